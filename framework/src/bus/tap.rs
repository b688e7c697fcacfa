//! Wire taps give observers copies of messages.

use std::sync::Arc;

use crate::broker::{
    Broker, BrokerError, Consumer, ConsumerSpec, Names, Queue, Source, Subscription, Target, Topology, WhenFull,
};
use crate::message::{Envelope, MessageId};

/// The most messages that wait for a tap's reader; beyond that the oldest are dropped.
const TAP_CAPACITY: u64 = 10_000;
/// The most messages that are handed to a tap's reader at once.
const TAP_PREFETCH: u16 = 256;

/// Which messages a tap sees: patterns over keys, with `*` and `#`. A message sent to a service by name, and a
/// channel message, has the key `<service>:<key>`, whose first word is `<service>:…`.
#[derive(Debug, Clone)]
pub struct TapFilter {
    patterns: Vec<String>,
}

impl TapFilter {
    /// All messages.
    #[must_use]
    pub fn everything() -> Self {
        Self { patterns: vec!["#".into()] }
    }

    /// Messages whose key matches one of the patterns.
    #[must_use]
    pub fn patterns<S: Into<String>>(patterns: impl IntoIterator<Item = S>) -> Self {
        Self { patterns: patterns.into_iter().map(Into::into).collect() }
    }
}

/// A wire tap: copies of commands, events, queries and channel messages on their way. It never slows anybody down:
/// its queue keeps the newest 10 000 messages, and ends with the tap.
pub struct Tap {
    consumer: Box<dyn Consumer>,
}

impl Tap {
    pub(super) async fn open(broker: &dyn Broker, names: &Names, filter: TapFilter) -> Result<Self, BrokerError> {
        let queue = Queue::of_connection(names.tap_queue(MessageId::new().as_str()))
            .with_limit(TAP_CAPACITY, WhenFull::DropOldest);
        let subscription = |pattern: &String| Subscription {
            source: Source::Taps,
            pattern: pattern.clone(),
            target: Target::Queue(queue.name.clone()),
        };
        let subscriptions = filter.patterns.iter().map(subscription).collect();
        let topology = Topology { sources: vec![Source::Taps], subscriptions, ..Topology::default() };
        let spec = ConsumerSpec { queue, topology, prefetch: TAP_PREFETCH, answers: false };
        let consumer = broker.consume(&spec).await.map_err(|error| match error {
            BrokerError::Forbidden { reason } => {
                let (own, tap) = (names.tap_queue("*"), names.tap());
                let needs = format!(
                    "a tap has a queue of its own, and needs configure, write and read on {own}, and read on {tap}"
                );
                BrokerError::Forbidden { reason: format!("{reason}; {needs}") }
            }
            other => other,
        })?;
        Ok(Self { consumer })
    }

    /// The next message. `None` when the connection is gone; open a new tap then. Cancel safe.
    pub async fn next(&mut self) -> Option<Envelope> {
        let delivery = self.consumer.next().await?.ok()?;
        delivery.receipt.ack();
        Some(Arc::unwrap_or_clone(delivery.envelope))
    }
}
