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
mod replies;
mod routing;
mod session;
mod state;
mod troubles;

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

/// Looks at everything that is published.
pub type Observer = Arc<dyn Fn(Envelope) + Send + Sync>;

/// The in-process broker. Clones are the same broker; apps that share one reach each other.
#[derive(Clone, Default)]
pub struct InProcess {
    pub(super) inner: Arc<Inner>,
    faults: Option<Script>,
    /// Hears that a fault stops what connects through this handle.
    stops: Arc<Notify>,
}

pub(super) struct Inner {
    state: Mutex<State>,
    /// Tells those who wait for a confirm that a queue goes on.
    resumed: watch::Sender<()>,
    /// Counts changes, for those who wait for the broker to be quiet.
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
    /// What it can do: as much as RabbitMQ, for as long as the process lives.
    pub const CAPABILITIES: Capabilities = Capabilities {
        survives_restart: false,
        limits: MessageLimits { payload: usize::MAX, ..amqp::CAPABILITIES.limits },
        ..amqp::CAPABILITIES
    };

    /// A broker with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A connection to it, in a namespace. Messages expire, and delays end, on the tokio runtime on which it is made; without one
    /// neither happens.
    #[must_use]
    pub fn connect(&self, names: &Names) -> Session {
        Session::new(Arc::clone(&self.inner), names.clone(), self.faults.clone(), Arc::clone(&self.stops))
    }

    /// The same broker for those who are to suffer: what connects through this handle has these faults, all by one script.
    #[must_use]
    pub fn with_faults(&self, faults: Faults) -> Self {
        Self { inner: Arc::clone(&self.inner), faults: Some(Script::new(faults)), stops: Arc::default() }
    }

    /// The same broker and the same script, for another process: [`FaultKind::Stop`] stops each alone.
    #[must_use]
    pub fn for_another_process(&self) -> Self {
        Self { stops: Arc::default(), ..self.clone() }
    }

    /// Waits until the script stops what connects through this handle, as [`FaultKind::Stop`]. Whoever calls it does so.
    pub async fn told_to_stop(&self) {
        self.stops.notified().await;
    }

    /// The faults that have happened to what connected through this handle, in their order.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        self.faults.as_ref().map(Script::happened).unwrap_or_default()
    }

    /// Calls the observer with everything that is published from now on, on the publisher's thread.
    pub fn observe(&self, observer: Observer) {
        self.inner.observers.lock().unwrap_or_else(PoisonError::into_inner).push(observer);
    }

    /// A fault: the present consumers of a queue get nothing more, without hearing of it.
    pub fn mute(&self, queue: &str) {
        if let Some(queue) = self.inner.lock().queues.get_mut(queue) {
            queue.subscribers.iter_mut().for_each(|subscriber| subscriber.mute = true);
        }
    }

    /// A fault: the consumers of a queue panic, as by a bug of the framework.
    pub fn panic_in_consumers(&self, queue: &str) {
        if let Some(queue) = self.inner.lock().queues.get_mut(queue) {
            for subscriber in &mut queue.subscribers {
                subscriber.panics = true;
                subscriber.wake.wake();
            }
        }
    }

    /// A fault: a queue stands still until [`InProcess::resume`], as one without its majority does. What is sent to it is neither
    /// confirmed nor delivered; what it has delivered can be acknowledged.
    pub fn suspend(&self, queue: &str) {
        if let Some(troubles) = self.inner.lock().troubles(queue) {
            troubles.suspended = true;
        }
    }

    /// A fault: a queue is full until [`InProcess::resume`], and refuses what is sent to it.
    pub fn fill(&self, queue: &str) {
        if let Some(troubles) = self.inner.lock().troubles(queue) {
            troubles.filled = true;
        }
    }

    /// A queue that was suspended or filled works again.
    pub fn resume(&self, queue: &str) {
        self.inner.lock().resume(queue);
        self.inner.resumed.send_replace(());
        self.inner.changed();
    }

    /// A fault: the channels of a queue's present consumers end, each alone. What was unsettled on them is delivered again.
    pub fn close_consumers(&self, queue: &str) {
        let mut state = self.inner.lock();
        let ids: Vec<u64> =
            state.queues.get(queue).into_iter().flat_map(|queue| &queue.subscribers).map(|one| one.id).collect();
        ids.into_iter().for_each(|id| state.end_consumer(queue, id));
        drop(state);
        self.inner.changed();
    }

    /// Waits until nothing is on its way: no consumed queue has a message, and no delivery is unsettled.
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

    /// A queue delivers nothing for a while.
    fn hold(&self, queue: &str, time: Duration) {
        self.lock().hold(queue, Instant::now() + time);
    }

    fn changed(&self) {
        // Who begins to wait now sees the change itself.
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
