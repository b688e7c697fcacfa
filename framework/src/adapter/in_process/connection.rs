//! The connection of one app to the in-process broker: faults, disconnects and shutdown.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, watch};

use crate::adapter::in_process::Inner;
use crate::adapter::in_process::faults::{FaultKind, Script, Step};
use crate::adapter::in_process::replies::Replies;
use crate::broker::{BrokerError, ConnectionState, Names};

/// The state that a session shares with its publishers and consumers.
pub(super) struct Connection {
    pub(super) inner: Arc<Inner>,
    /// The names of the connected app's namespace.
    pub(super) names: Names,
    pub(super) id: u64,
    pub(super) state: watch::Sender<ConnectionState>,
    pub(super) replies: Replies,
    closed: AtomicBool,
    pub(super) faults: Option<Script>,
    /// Notified when the fault script stops the process.
    stops: Arc<Notify>,
    is_stopping: AtomicBool,
}

impl Connection {
    pub(super) fn new(inner: Arc<Inner>, names: Names, faults: Option<Script>, stops: Arc<Notify>) -> Arc<Self> {
        let id = inner.lock().next_id();
        let state = watch::channel(ConnectionState { up: true, epoch: 1, blocked: false }).0;
        Arc::new(Self {
            inner,
            names,
            id,
            state,
            replies: Replies::default(),
            closed: AtomicBool::new(false),
            faults,
            stops,
            is_stopping: AtomicBool::new(false),
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn open(&self) -> Result<(), BrokerError> {
        if self.is_closed() { Err(BrokerError::Stopped) } else { Ok(()) }
    }

    /// Closes the connection for good. A crash fault does the same.
    pub(super) fn shut(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.end_channels();
        self.inner.lock().earlier.notify_waiters();
        self.state.send_modify(|state| state.up = false);
        self.replies.lose_all();
        self.inner.changed();
    }

    /// Ends all channels. New ones can be opened.
    fn disconnect(&self) {
        self.end_channels();
        self.state.send_modify(|state| state.epoch += 1);
        self.replies.interrupt();
        self.inner.changed();
    }

    /// Deletes exclusive queues and requeues unacknowledged messages.
    fn end_channels(&self) {
        let mut state = self.inner.lock();
        // Sorted, so that a seed can be repeated exactly.
        let exclusive: BTreeSet<String> = state
            .queues
            .values()
            .filter(|queue| queue.owner == Some(self.id))
            .map(|queue| queue.declared.name.clone())
            .collect();
        exclusive.iter().for_each(|queue| state.delete_queue(queue));
        state.close_session(self.id);
    }

    /// Ends one consuming channel. The rest of the connection stays.
    fn end_one_consumer(&self, script: &Script) {
        let mut state = self.inner.lock();
        let consumers = state.consumers_of(self.id);
        if let Some((queue, id)) = consumers.get(script.pick(consumers.len())) {
            state.end_consumer(queue, *id);
        }
        drop(state);
        self.inner.changed();
    }

    /// The fault for this step, if one happens. A disconnect, a crash before the step, a consumer channel's end, a stop and a delay
    /// have already taken effect. The caller carries out the others.
    pub(super) fn fault(&self, step: Step, queue: Option<&str>) -> Option<FaultKind> {
        let script = self.faults.as_ref().filter(|_| !self.is_closed())?;
        let kind = script.at(step, self.is_stopping.load(Ordering::Acquire))?;
        tracing::debug!(?kind, ?step, queue, "the fault script");
        match kind {
            FaultKind::Disconnect => self.disconnect(),
            FaultKind::CrashBefore => self.shut(),
            FaultKind::ConsumerChannel => self.end_one_consumer(script),
            // Only a request to stop; the step itself still takes place.
            FaultKind::Stop => {
                self.is_stopping.store(true, Ordering::Release);
                self.stops.notify_one();
            }
            FaultKind::Delay => {
                if let Some(queue) = queue {
                    self.inner.hold(queue, script.delay());
                }
            }
            _ => {}
        }
        Some(kind)
    }
}
