//! The bench of a scenario: two connections and unused names.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use crate::broker::{
    Addressed, Broker, BrokerError, Consumer, ConsumerSpec, Delivery, Names, Publication, Publisher, Queue, Source,
    Subscription, To, Topology,
};
use crate::message::{Envelope, Key, Kind, MediaType, MessageId, Name};

/// How long an expected event may take.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long to watch that an event does not happen.
const SILENCE: Duration = Duration::from_millis(300);

/// Two connections to one broker, and names that no other test uses.
pub struct Bench {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) other: Arc<dyn Broker>,
    pub(super) names: Names,
}

impl Bench {
    /// A namespace that no other test uses.
    ///
    /// # Panics
    /// Never: the generated name is a valid word.
    #[must_use]
    pub fn names() -> Names {
        let id = MessageId::new();
        let word = format!("c{}", id.as_str().rsplit('-').next().unwrap_or_default());
        Names::new(&word).expect("a word")
    }

    /// Two separate connections to the same broker in this namespace.
    #[must_use]
    pub fn new(names: Names, broker: Arc<dyn Broker>, other: Arc<dyn Broker>) -> Self {
        Self { broker, other, names }
    }

    pub(super) fn name(&self, name: &str) -> String {
        format!("{}.{name}", self.names.namespace())
    }

    pub(super) fn queue(&self, name: &str) -> Queue {
        Queue::replicated(self.name(name))
    }

    pub(super) async fn declare(&self, topology: Topology) {
        self.broker.declare(&topology).await.expect("what is declared stands");
    }

    /// Declares queues that are reached through the default exchange.
    pub(super) async fn declare_queues(&self, queues: &[&Queue]) {
        self.declare(Topology::of_queues(queues.iter().map(|queue| (*queue).clone()))).await;
    }

    pub(super) async fn publisher(&self) -> Arc<dyn Publisher> {
        self.broker.publisher(Arc::new(|_| {})).await.expect("a publisher opens")
    }

    pub(super) async fn publish(&self, publisher: &Arc<dyn Publisher>, to: To, payload: &str) -> Publication {
        self.try_publish(publisher, addressed(to, payload)).await.expect("the message is taken")
    }

    pub(super) async fn try_publish(
        &self,
        publisher: &Arc<dyn Publisher>,
        message: Addressed,
    ) -> Result<Publication, BrokerError> {
        let publishing = publisher.publish(message, Instant::now() + EVENT_TIMEOUT);
        timeout(EVENT_TIMEOUT * 2, publishing).await.expect("a publication resolves by its deadline")
    }

    pub(super) async fn consume(&self, queue: &Queue, prefetch: u16) -> Box<dyn Consumer> {
        self.open(queue, prefetch, false).await
    }

    /// A consumer for deliveries that are answered on their channel.
    pub(super) async fn consume_for_answers(&self, queue: &Queue, prefetch: u16) -> Box<dyn Consumer> {
        self.open(queue, prefetch, true).await
    }

    async fn open(&self, queue: &Queue, prefetch: u16, answers: bool) -> Box<dyn Consumer> {
        let spec = ConsumerSpec { queue: queue.clone(), topology: Topology::default(), prefetch, answers };
        self.broker.consume(&spec).await.expect("a consumer opens")
    }

    /// Takes all messages out of a queue and returns their payloads in order.
    pub(super) async fn drain(&self, queue: &Queue) -> Vec<String> {
        let mut consumer = self.consume(queue, 100).await;
        let mut payloads = Vec::new();
        while let Some(delivery) = next_within(&mut consumer, SILENCE).await {
            payloads.push(text(&delivery));
            delivery.receipt.ack();
        }
        consumer.close().await;
        payloads
    }
}

/// Queues subscribed to a kind with these keys.
pub(super) fn subscribed(kind: Kind, keys: &[(&str, &Queue)]) -> Topology {
    let mut topology = Topology { sources: vec![Source::Kind(kind)], ..Topology::default() };
    for (key, queue) in keys {
        topology.extend(Topology {
            queues: vec![(*queue).clone()],
            subscriptions: vec![Subscription::new(kind, *key, &queue.name)],
            ..Topology::default()
        });
    }
    topology
}

/// The address of a queue.
pub(super) fn to(queue: &Queue) -> To {
    To::Queue(queue.name.as_str().into())
}

pub(super) fn addressed(to: To, payload: &str) -> Addressed {
    let payload = Bytes::copy_from_slice(payload.as_bytes());
    let (kind, key, target) = match &to {
        To::Key { kind, service, key } => {
            (*kind, Key::from_wire(Arc::clone(key)), service.clone().map(Name::from_wire))
        }
        To::Queue(_) => (Kind::Command, Key::from_wire("conformance.message"), None),
    };
    let mut envelope = Envelope::new(kind, key, MediaType::TEXT, payload);
    envelope.target = target;
    Addressed { to, ..Addressed::to_queue("", envelope) }
}

pub(super) fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.envelope.payload).into_owned()
}

/// The next delivery, which must arrive.
pub(super) async fn next(consumer: &mut Box<dyn Consumer>) -> Delivery {
    next_within(consumer, EVENT_TIMEOUT).await.expect("a delivery comes")
}

/// Asserts that no delivery arrives.
pub(super) async fn nothing(consumer: &mut Box<dyn Consumer>) {
    let extra = next_within(consumer, SILENCE).await;
    assert!(extra.is_none(), "a delivery that must not come: {extra:?}");
}

async fn next_within(consumer: &mut Box<dyn Consumer>, patience: Duration) -> Option<Delivery> {
    match timeout(patience, consumer.next()).await {
        Ok(Some(Ok(delivery))) => Some(delivery),
        Ok(Some(Err(error))) => panic!("the consumer failed: {error}"),
        Ok(None) | Err(_) => None,
    }
}

pub(super) fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}
