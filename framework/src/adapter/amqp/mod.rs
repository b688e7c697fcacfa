//! Translates the broker port's terms into exchanges and routing keys. Both adapters use it, because the in-process broker
//! routes by RabbitMQ's rules.

mod death;
mod declaration;
mod declared;
pub(super) mod delays;
#[cfg(any(feature = "rabbitmq", feature = "testing", test))]
pub(crate) mod fields;
#[cfg(test)]
pub(super) mod fields_tests;
#[cfg(test)]
mod for_tests;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod foreign;
mod intents;
mod levels;
mod names;
mod origin;

use std::sync::Arc;
use std::time::Duration;

pub(super) use death::note_broker_death;
pub(super) use declaration::{
    Binding, Declaration, DeclaredQueue, Destination, Exchange, ExchangeKind, inequivalent_exchange,
};
pub(super) use declared::{ConsumedBindings, Declared};
pub(super) use delays::Delays;
pub(super) use intents::subscription;
pub(crate) use origin::Origin;

use crate::adapter::amqp::levels::{MAX_DELAY, delayed_publish, delayed_to_queue};
use crate::broker::{
    Addressed, Capabilities, HOME, MAX_PROPERTIES_BYTES, MAX_TEXT_BYTES, MessageLimits, Names, Patterns, Settles, Taps,
    To, suspend_expiration,
};
use crate::message::{Envelope, Kind, Name};

/// The capabilities of RabbitMQ and of the in-process broker.
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
    limits: MessageLimits { payload: 16 * 1024 * 1024, properties: MAX_PROPERTIES_BYTES, name: MAX_TEXT_BYTES },
    ..Capabilities::none()
};

/// A message with its exchange and routing key.
#[derive(Debug, Clone)]
pub(super) struct Routed {
    pub(super) way: Way,
    pub(super) mandatory: bool,
    /// Whether the message must carry its kind and key itself, because exchange and routing key tell neither.
    #[cfg_attr(not(feature = "rabbitmq"), expect(dead_code, reason = "in process nothing is written"))]
    pub(super) tells_address: bool,
    /// Whether `type` is left out if it is only the key, because its way tells that. See [`Addressed::bare`].
    #[cfg_attr(not(feature = "rabbitmq"), expect(dead_code, reason = "in process nothing is written"))]
    pub(super) bare: bool,
    pub(super) envelope: Arc<Envelope>,
}

/// The exchange and routing key a message is published with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(super) struct Way {
    /// Empty for the default exchange, which routes to the queue named by the routing key.
    pub(super) exchange: Arc<str>,
    pub(super) routing_key: Arc<str>,
}

impl Way {
    /// The way of a message without a delay.
    pub(super) fn to(to: &To, names: &Names) -> Self {
        match to {
            To::Key { kind, .. } => Self { exchange: names.exchange(*kind), routing_key: to.name() },
            To::Queue(queue) => Self { exchange: names.exchange(Kind::Reply), routing_key: Arc::clone(queue) },
        }
    }

    /// How the sender addressed a message that was published this way.
    #[cfg_attr(not(feature = "rabbitmq"), expect(dead_code, reason = "in process the envelope tells it"))]
    pub(super) fn origin(&self, names: &Names) -> Origin {
        Origin::of(names, &self.exchange, Arc::clone(&self.routing_key))
    }
}

impl Routed {
    /// Routes a message to its address, or into the delay levels first.
    pub(super) fn of(message: Addressed, names: &Names) -> Self {
        let Addressed { to, delay, mandatory, bare, mut envelope } = message;
        let way = match delay {
            None => Way::to(&to, names),
            Some(delay) => delayed(&to, delay, Arc::make_mut(&mut envelope), names),
        };
        Self { way, mandatory, bare, tells_address: delay.is_some() || matches!(to, To::Queue(_)), envelope }
    }
}

/// The way into the delay levels. Also sets what the message needs when its delay is over. The expiration of a message to a key
/// is suspended until then.
fn delayed(to: &To, delay: Duration, envelope: &mut Envelope, names: &Names) -> Way {
    let (exchange, routing_key) = match to {
        To::Queue(queue) => {
            // If the binding back to the queue is gone when the delay ends, the message is published to this queue from the due queue.
            if **queue != *names.due() {
                envelope.headers.set(HOME, Arc::clone(queue));
            }
            delayed_to_queue(names, delay, queue)
        }
        To::Key { service, .. } => {
            envelope.target = service.clone().map(Name::from_wire);
            // A delay can last for days, and a broker restart must not lose the message.
            envelope.transient = false;
            suspend_expiration(envelope);
            delayed_publish(names, delay)
        }
    };
    Way { exchange: exchange.into(), routing_key: routing_key.into() }
}

#[cfg(test)]
mod tests;
