//! What a lane takes its messages from. Today it is a queue; whatever can be consumed like one can take its place.

use std::sync::Arc;

use futures::future::BoxFuture;

use crate::broker::{Broker, BrokerError, Consumer, QueueState};
use crate::inbound::topology::LanePlan;
use crate::supervise::Tasks;

/// A consumer that is being opened.
pub(super) type Opening<'a> = BoxFuture<'a, Result<Box<dyn Consumer>, BrokerError>>;

/// Opens the consumers of a lane, one after the other.
pub(super) trait Consumers: Send + Sync {
    /// Opens the consumer of an epoch with this prefetch; gives the name of what it consumes.
    fn open(&self, prefetch: u16, epoch: u64) -> (String, Opening<'_>);

    /// How what is consumed stands; `None` if it is gone.
    fn look(&self, name: &str) -> BoxFuture<'static, Result<Option<QueueState>, BrokerError>>;

    /// Whether no answers are taken for now.
    fn is_blocked(&self) -> bool;

    /// Where a panic of the lane is seen.
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
