//! Where a lane gets its deliveries: a queue today, but anything that can be consumed like one fits the trait.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::broker::{Broker, BrokerError, Consumer, QueueState};
use crate::inbound::topology::LanePlan;
use crate::supervise::Tasks;

/// A consumer that is being opened.
pub(super) type Opening<'a> = BoxFuture<'a, Result<Box<dyn Consumer>, BrokerError>>;

/// Opens the consumers of a lane, one after the other.
pub(super) trait Consumers: Send + Sync {
    /// Opens the consumer of an epoch with this prefetch. Returns the name of the queue that it consumes.
    fn open(&self, prefetch: u16, epoch: u64) -> (String, Opening<'_>);

    /// The state of the queue with this name; `None` if it is gone.
    fn look(&self, name: &str) -> BoxFuture<'static, Result<Option<QueueState>, BrokerError>>;

    /// Whether the broker takes no answers at the moment.
    fn is_blocked(&self) -> bool;

    /// Where panics of the lane are reported.
    fn tasks(&self) -> Tasks;
}

/// The queue of a lane.
pub(super) struct QueueConsumers {
    broker: Arc<dyn Broker>,
    plan: LanePlan,
}

impl QueueConsumers {
    pub(super) fn new(broker: &Arc<dyn Broker>, plan: &LanePlan) -> Arc<Self> {
        Arc::new(Self { broker: Arc::clone(broker), plan: plan.clone() })
    }
}

impl Consumers for QueueConsumers {
    fn open(&self, prefetch: u16, epoch: u64) -> (String, Opening<'_>) {
        let spec = self.plan.consumer(prefetch, epoch);
        (spec.queue.name.clone(), Box::pin(async move { self.broker.consume(&spec).await }))
    }

    fn look(&self, name: &str) -> BoxFuture<'static, Result<Option<QueueState>, BrokerError>> {
        let (broker, name) = (Arc::clone(&self.broker), name.to_owned());
        Box::pin(async move { broker.inspect(&name).await })
    }

    fn is_blocked(&self) -> bool {
        self.broker.connection().borrow().blocked
    }

    fn tasks(&self) -> Tasks {
        self.broker.tasks()
    }
}
