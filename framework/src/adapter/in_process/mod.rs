//! A broker inside the process, with the rules of RabbitMQ: exchanges, wildcards, competing consumers, prefetch,
//! confirms, returns, expiry, redelivery. Only encoded bytes cross it. It ends with the process.

mod connection;
mod consumer;
mod faults;
#[cfg(test)]
mod property_tests;
mod publish;
mod publisher;
mod publishing_channel;
mod queue;
mod queue_faults;
mod replies;
mod routing;
mod session;
mod state;
mod strangers;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::adapter::amqp::{self, Routed};
use crate::broker::{Capabilities, MessageLimits, Names};
use crate::message::Envelope;
use faults::Script;
use state::State;

pub use faults::{Fault, FaultKind, Faults, Step};
pub use session::Session;

/// Called with every published message.
pub type Observer = Arc<dyn Fn(Envelope) + Send + Sync>;

/// The in-process broker. Clones share one broker, and apps that share a broker reach each other.
#[derive(Clone, Default)]
pub struct InProcess {
    pub(super) inner: Arc<Inner>,
    faults: Option<Script>,
    /// Notified when the script stops the process that connects through this handle.
    stops: Arc<Notify>,
}

pub(super) struct Inner {
    state: Mutex<State>,
    /// Tells publications that wait for a confirm that a queue was resumed.
    resumed: watch::Sender<()>,
    /// Counts changes. [`InProcess::quiet`] waits for them.
    changes: watch::Sender<u64>,
    observers: Mutex<Vec<Observer>>,
}

impl Default for Inner {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            resumed: watch::channel(()).0,
            changes: watch::channel(0).0,
            observers: Mutex::default(),
        }
    }
}

impl InProcess {
    /// RabbitMQ's capabilities, but nothing survives a restart, and payloads have no size limit.
    pub const CAPABILITIES: Capabilities = Capabilities {
        survives_restart: false,
        limits: MessageLimits { payload: usize::MAX, ..amqp::CAPABILITIES.limits },
        ..amqp::CAPABILITIES
    };

    /// An empty broker.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Connects to the broker in a namespace. A task on the current tokio runtime expires messages and ends delays on time. Without
    /// a runtime that happens only when the queue is next used.
    #[must_use]
    pub fn connect(&self, names: &Names) -> Session {
        Session::new(Arc::clone(&self.inner), names.clone(), self.faults.clone(), Arc::clone(&self.stops))
    }

    /// A handle to the same broker with faults. All connections through it share one fault script.
    #[must_use]
    pub fn with_faults(&self, faults: Faults) -> Self {
        Self { inner: Arc::clone(&self.inner), faults: Some(Script::new(faults)), stops: Arc::default() }
    }

    /// A handle to the same broker and script for another process. [`FaultKind::Stop`] stops only the process whose step it hits.
    #[must_use]
    pub fn for_another_process(&self) -> Self {
        Self { stops: Arc::default(), ..self.clone() }
    }

    /// Waits until the script asks for [`FaultKind::Stop`] on this handle. The caller then has to stop the process.
    pub async fn told_to_stop(&self) {
        self.stops.notified().await;
    }

    /// The faults that the script of this handle has caused so far, in order.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        self.faults.as_ref().map(Script::happened).unwrap_or_default()
    }

    /// Calls the observer with every message published from now on, on the publisher's thread.
    pub fn observe(&self, observer: Observer) {
        self.inner.observers.lock().unwrap_or_else(PoisonError::into_inner).push(observer);
    }

    /// A fault: the present consumers of a queue get no more messages, and no error.
    pub fn mute(&self, queue: &str) {
        if let Some(queue) = self.inner.lock().queues.get_mut(queue) {
            queue.subscribers.iter_mut().for_each(|subscriber| subscriber.mute = true);
        }
    }

    /// A fault: the present consumers of a queue panic, as a bug in the framework would make them.
    pub fn panic_in_consumers(&self, queue: &str) {
        if let Some(queue) = self.inner.lock().queues.get_mut(queue) {
            for subscriber in &mut queue.subscribers {
                subscriber.panics = true;
                subscriber.wake.wake();
            }
        }
    }

    /// A fault: a queue stops until [`InProcess::resume`], like a quorum queue without a majority. Messages sent to it are neither
    /// confirmed nor delivered. Earlier deliveries can still be acknowledged.
    pub fn suspend(&self, queue: &str) {
        if let Some(troubles) = self.inner.lock().troubles(queue) {
            troubles.suspended = true;
        }
    }

    /// A fault: a queue is full until [`InProcess::resume`] and rejects messages sent to it.
    pub fn fill(&self, queue: &str) {
        if let Some(troubles) = self.inner.lock().troubles(queue) {
            troubles.filled = true;
        }
    }

    /// Makes a suspended or filled queue work again.
    pub fn resume(&self, queue: &str) {
        self.inner.lock().resume(queue);
        self.inner.resumed.send_replace(());
        self.inner.changed();
    }

    /// A fault: the channels of a queue's present consumers end, each alone. Their unacknowledged messages are delivered again.
    pub fn close_consumers(&self, queue: &str) {
        let mut state = self.inner.lock();
        let ids: Vec<u64> =
            state.queues.get(queue).into_iter().flat_map(|queue| &queue.subscribers).map(|one| one.id).collect();
        ids.into_iter().for_each(|id| state.end_consumer(queue, id));
        drop(state);
        self.inner.changed();
    }

    /// Waits until no queue with a consumer has a message and no delivery is unacknowledged. Tap queues do not count.
    pub async fn quiet(&self) {
        let mut changes = self.inner.changes.subscribe();
        while !self.inner.lock().is_quiet() {
            // The sender lives as long as this broker.
            let _ = changes.changed().await;
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops a queue's deliveries for this time.
    fn hold(&self, queue: &str, time: Duration) {
        self.lock().hold(queue, Instant::now() + time);
    }

    fn changed(&self) {
        // Without waiters there is nobody to tell: a new waiter reads the state first.
        if self.changes.receiver_count() == 0 {
            return;
        }
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn published(&self, message: &Routed) {
        let observers = self.observers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for observer in observers {
            observer((*message.envelope).clone());
        }
    }
}
