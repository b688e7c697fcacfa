//! Exchanges and routing keys for what the port says in its own words. RabbitMQ routes by them, and the in-process broker has
//! RabbitMQ's rules.

pub(super) mod delays;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub(super) use delays::Delays;

use crate::broker::{
    Addressed, Capabilities, HOME, KIND, MAX_DELAY, MAX_PROPERTIES_BYTES, MessageLimits, Names, ORIGINAL_EXPIRATION,
    ORIGINAL_TYPE, Origin, Patterns, Properties, Settles, Taps, To, delayed_publish, delayed_to_queue,
};
use crate::message::{Kind, Value};

/// What RabbitMQ can do, and the in-process broker with its rules.
pub(super) const CAPABILITIES: Capabilities = Capabilities {
    survives_restart: true,
    settles: Settles::Each,
    counts_deliveries: true,
    returns_keys: true,
    returns_events: true,
    patterns: Some(Patterns::ByBroker),
    delays: Some(MAX_DELAY),
    one_active_consumer: true,
    replies: true,
    instance_queues: true,
    full_queues_refuse: true,
    full_queues_drop_oldest: true,
    expires: true,
    taps: Taps::All,
    claims: true,
    limits: MessageLimits { payload: 16 * 1024 * 1024, properties: MAX_PROPERTIES_BYTES, name: u8::MAX as usize },
    ..Capabilities::none()
};

/// A message with exchange and routing key.
#[derive(Debug, Clone)]
pub(super) struct Routed {
    pub(super) way: Way,
    pub(super) mandatory: bool,
    #[cfg_attr(
        not(feature = "rabbitmq"),
        expect(dead_code, reason = "in process the reply's address is known before")
    )]
    pub(super) awaits_reply: bool,
    pub(super) properties: Arc<Properties>,
    pub(super) payload: Bytes,
}

/// The exchange and routing key a message is published with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Way {
    /// Empty for the default exchange, which routes to the queue named by the routing key.
    pub(super) exchange: Arc<str>,
    pub(super) routing_key: Arc<str>,
}

impl Way {
    /// The way to where a message goes at once.
    pub(super) fn to(to: &To, names: &Names) -> Self {
        match to {
            To::Key { kind, .. } => Self { exchange: names.exchange(*kind), routing_key: to.name() },
            To::Queue(queue) => Self { exchange: names.exchange(Kind::Reply), routing_key: Arc::clone(queue) },
        }
    }

    /// How a message was addressed that came by this way.
    pub(super) fn origin(&self, names: &Names) -> Origin {
        names.origin(&self.exchange, Arc::clone(&self.routing_key))
    }
}

impl Routed {
    /// A message that leaves at once, or into its delay.
    pub(super) fn of(message: Addressed, names: &Names) -> Self {
        let Addressed { to, delay, mandatory, awaits_reply, mut properties, payload } = message;
        let way = match delay {
            None => Way::to(&to, names),
            Some(delay) => delayed(&to, delay, Arc::make_mut(&mut properties), names),
        };
        Self { way, mandatory, awaits_reply, properties, payload }
    }
}

/// The way through the delays, and what the message must tell of itself when they are over. It does not expire before that.
fn delayed(to: &To, delay: Duration, properties: &mut Properties, names: &Names) -> Way {
    let (exchange, routing_key) = match to {
        To::Queue(queue) => {
            // Should the way back be gone when the delay is over, it is sent on from what is due.
            if **queue != *names.due() {
                properties.headers.set(HOME, Arc::clone(queue));
            }
            delayed_to_queue(names, delay, queue)
        }
        To::Key { kind, .. } => {
            let key = to.name();
            properties.headers.set(KIND, kind.as_str());
            // The key takes the place of a type that its sender gave it. Without one, the type is the key.
            let plain = key.split_once(':').map_or(&*key, |(_, key)| key);
            if let Some(given) = properties.message_type.take().filter(|given| **given != *plain) {
                properties.headers.set(ORIGINAL_TYPE, Value::Text(given));
            }
            properties.message_type = Some(key);
            // A restart of the broker must not lose what waits for days.
            properties.persistent = true;
            if let Some(expiration) = properties.expiration.take() {
                properties.headers.set(ORIGINAL_EXPIRATION, expiration);
            }
            delayed_publish(names, delay)
        }
    };
    Way { exchange: exchange.into(), routing_key: routing_key.into() }
}

#[cfg(test)]
mod tests;
