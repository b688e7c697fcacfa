//! Orders to a process. Every process of a service receives them on its own queue, and answers.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::LocalBoxFuture;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError, ConsumerSpec, Delivery, Queue, Source, Subscription, Topology};
use crate::bus::{Bus, channel_key};
use crate::inbound::reopen::{ReopeningConsumer, Watched, keep_consuming};
use crate::message::{Kind, MediaType, Name, is_logged};

/// The channel on which every process of a service receives orders. The name is reserved: no handler can use it.
pub const CONTROL: &str = "postrider.control";

/// The channel key on which every process hears that sources were deleted. No service can be named `*`.
pub(super) const BIND: &str = "*:postrider.bind";

/// The most orders that are held at once.
const PREFETCH: u16 = 8;

/// Carries out an order to a service. Returns the answer as JSON, or `None` if the order is for another process.
pub type Obey = Arc<dyn Fn(&str, &[u8]) -> Option<Vec<u8>> + Send + Sync>;

/// The settings of [`obey_orders`].
pub struct ControlSettings {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// Sends the answers.
    pub bus: Bus,
    /// The services of this process.
    pub services: Vec<String>,
    /// Carries out an order.
    pub obey: Obey,
    /// Is notified when sources were deleted.
    pub bind: Arc<Notify>,
    /// How long an answer may take to be confirmed.
    pub confirm_timeout: Duration,
    /// How long an order may wait in the queue without being delivered.
    pub stall_after: Duration,
    /// Fires when the app stops.
    pub stopping: CancellationToken,
}

/// Obeys orders until the app stops.
pub async fn obey_orders(settings: ControlSettings, started: oneshot::Sender<Result<(), BrokerError>>) {
    keep_consuming(&settings, &settings.broker, &settings.stopping, started).await;
}

impl ReopeningConsumer for ControlSettings {
    fn name(&self) -> String {
        "orders to this process".into()
    }

    fn stall_after(&self) -> Duration {
        self.stall_after
    }

    fn spec(&self, epoch: u64) -> ConsumerSpec {
        let identity = &self.bus.identity;
        let (names, first) = (&identity.names, self.services.first().map_or("", String::as_str));
        let name = names.instance_queue(&names.queue(first, None), identity.instance.as_str(), epoch);
        let queue = Queue::of_connection(format!("{name}.control"));
        let to_it = |key: String| Subscription::new(Kind::Channel, key, &queue.name);
        let orders = self.services.iter().map(|service| to_it(channel_key(service, CONTROL)));
        let topology = Topology {
            sources: vec![Source::Kind(Kind::Channel)],
            subscriptions: orders.chain([to_it(BIND.to_owned())]).collect(),
            ..Topology::default()
        };
        ConsumerSpec { queue, topology, prefetch: PREFETCH, answers: false }
    }

    fn consumes(&self, _: bool, problem: Option<String>) {
        if let Some(problem) = problem {
            tracing::warn!(problem, "orders such as `postrider actor pause` are not heard for now");
        }
    }

    fn epoch<'a>(&'a self, mut consumer: Watched<'a>) -> LocalBoxFuture<'a, Option<BrokerError>> {
        Box::pin(async move {
            loop {
                let pulled = tokio::select! {
                    biased;
                    () = self.stopping.cancelled() => {
                        consumer.close().await;
                        return None;
                    }
                    pulled = consumer.next() => pulled,
                };
                match pulled {
                    Ok(delivery) => self.obey(delivery).await,
                    Err(error) => return Some(error),
                }
            }
        })
    }
}

impl ControlSettings {
    async fn obey(&self, delivery: Delivery) {
        let Delivery { envelope: order, receipt, .. } = delivery;
        // Acknowledged first, so at most once: a redelivered order would be obeyed twice.
        receipt.ack();
        if *order.address() == *BIND {
            return self.bind.notify_one();
        }
        let Some(service) = order.target.as_ref().map(Name::as_str) else { return };
        let Some(answer) = (self.obey)(service, &order.payload) else { return };
        let Some(reply) = self.bus.identity.reply(&order, MediaType::JSON, Bytes::from(answer)) else { return };
        if let Err(error) = self.bus.outlet.publish(Box::new(reply), Instant::now() + self.confirm_timeout).await
            && is_logged("the answer to an order could not be sent", service)
        {
            tracing::warn!(message_id = %order.id, %error, "the answer to an order could not be sent");
        }
    }
}
