//! A broker for tests that accepts everything, and that a test can block or break.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures::future::{BoxFuture, ready};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::broker::any::{self, NoBroker};
use crate::broker::{
    Addressed, Broker, BrokerError, Capabilities, ConnectionState, Consumer, ConsumerSpec, Publication, Publisher,
    QueueRegistry, QueueState, Registry, ReplySink, Topology,
};
use crate::supervise::Tasks;

pub(crate) struct Double {
    tasks: Tasks,
    /// The number of declarations attempted.
    pub(crate) declares: AtomicU64,
    /// One permit per declaration that may proceed.
    pub(crate) declaring: Semaphore,
    /// Whether the next check for missing exchanges panics.
    pub(crate) panics: AtomicBool,
    /// The number of those checks.
    pub(crate) asked: AtomicU64,
    /// The number of ready messages in every queue; they are never delivered.
    pub(crate) ready: AtomicU64,
    /// The number of queue inspections.
    pub(crate) inspected: AtomicU64,
    /// The number of consumers opened.
    pub(crate) consumed: AtomicU64,
    /// Whether this user may not declare.
    pub(crate) forbids: AtomicBool,
    /// Whether published messages are rejected.
    pub(crate) refuses: Arc<AtomicBool>,
}

impl Double {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            tasks: Tasks::default(),
            declares: AtomicU64::new(0),
            declaring: Semaphore::new(Semaphore::MAX_PERMITS),
            panics: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            ready: AtomicU64::new(0),
            inspected: AtomicU64::new(0),
            consumed: AtomicU64::new(0),
            forbids: AtomicBool::new(false),
            refuses: Arc::default(),
        })
    }
}

/// Takes every message, or rejects it.
struct DoublePublisher {
    refuses: Arc<AtomicBool>,
}

impl Publisher for DoublePublisher {
    fn publish(&self, _: Addressed, _: Instant) -> BoxFuture<'static, Result<Publication, BrokerError>> {
        let refuses = self.refuses.load(Ordering::Acquire);
        Box::pin(ready(Ok(if refuses { Publication::Rejected } else { Publication::Confirmed })))
    }
}

impl Broker for Double {
    fn capabilities(&self) -> Capabilities {
        NoBroker.capabilities()
    }

    fn describe(&self) -> String {
        NoBroker.describe()
    }

    fn connection(&self) -> watch::Receiver<ConnectionState> {
        NoBroker.connection()
    }

    fn tasks(&self) -> Tasks {
        self.tasks.clone()
    }

    fn declare<'a>(&'a self, _: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(async {
            if self.forbids.load(Ordering::Acquire) {
                return Err(BrokerError::Forbidden { reason: "access to queue refused".into() });
            }
            self.declares.fetch_add(1, Ordering::AcqRel);
            self.declaring.acquire().await.unwrap().forget();
            Ok(())
        })
    }

    fn compare<'a>(&'a self, _: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(ready(Ok(())))
    }

    fn remove<'a>(&'a self, _: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        Box::pin(ready(Ok(())))
    }

    fn inspect<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Option<QueueState>, BrokerError>> {
        self.inspected.fetch_add(1, Ordering::AcqRel);
        let found = QueueState { ready: self.ready.load(Ordering::Acquire), consumers: 1 };
        Box::pin(ready(Ok(Some(found))))
    }

    fn absent<'a>(&'a self, _: &'a Topology) -> BoxFuture<'a, Result<Vec<String>, BrokerError>> {
        Box::pin(ready(Ok(Vec::new())))
    }

    fn missing(&self) -> BoxFuture<'_, Result<Option<Vec<String>>, BrokerError>> {
        self.asked.fetch_add(1, Ordering::AcqRel);
        assert!(!self.panics.swap(false, Ordering::AcqRel), "a fault that a test asked for");
        Box::pin(ready(Ok(Some(Vec::new()))))
    }

    fn registry(&self) -> Box<dyn Registry + '_> {
        Box::new(QueueRegistry::new(self, &any::NAMES))
    }

    fn publisher(&self, _: ReplySink) -> BoxFuture<'_, Result<Arc<dyn Publisher>, BrokerError>> {
        let publisher = DoublePublisher { refuses: Arc::clone(&self.refuses) };
        Box::pin(ready(Ok(Arc::new(publisher) as Arc<dyn Publisher>)))
    }

    fn consume<'a>(&'a self, _: &'a ConsumerSpec) -> BoxFuture<'a, Result<Box<dyn Consumer>, BrokerError>> {
        self.consumed.fetch_add(1, Ordering::AcqRel);
        Box::pin(ready(Ok(Box::new(NoBroker) as Box<dyn Consumer>)))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }
}
