//! Faults of one queue: it confirms nothing for a while, rejects messages, or loses a consumer.

use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use crate::adapter::in_process::Inner;
use crate::adapter::in_process::queue::{Silence, Troubles};
use crate::adapter::in_process::state::State;

impl State {
    /// The queue confirms and delivers nothing until then.
    pub(super) fn silence(&mut self, name: &str, until: Instant) {
        self.troubled = true;
        if let Some(queue) = self.queues.get_mut(name) {
            queue.troubles.silent_until = queue.troubles.silent_until.max(Some(until));
        }
        self.hold(name, until);
    }

    /// The queue rejects messages until then.
    pub(super) fn fill(&mut self, name: &str, until: Instant) {
        if let Some(queue) = self.queues.get_mut(name) {
            queue.troubles.full_until = queue.troubles.full_until.max(Some(until));
        }
    }

    pub(super) fn troubles(&mut self, name: &str) -> Option<&mut Troubles> {
        self.troubled = true;
        self.queues.get_mut(name).map(|queue| &mut queue.troubles)
    }

    /// Ends the faults of a queue.
    pub(super) fn resume(&mut self, name: &str) {
        if let Some(queue) = self.queues.get_mut(name) {
            (queue.troubles, queue.held_until) = (Troubles::default(), None);
        }
        self.dispatch(name);
    }

    /// The longest silence of these queues. Deleted queues do not count.
    fn longest_silence(&self, queues: &[Arc<str>]) -> Silence {
        let silences = queues.iter().filter_map(|name| self.queues.get(&**name)).map(|queue| queue.troubles.silence());
        silences.max().unwrap_or(Silence::None)
    }

    /// The consumers of a session, sorted by queue, so that a seed can be repeated exactly.
    pub(super) fn consumers_of(&self, session: u64) -> Vec<(String, u64)> {
        let of = |name: String| {
            let ids = self.queues.get(&name).map(|queue| queue.subscribers_of(session)).unwrap_or_default();
            ids.into_iter().map(move |id| (name.clone(), id))
        };
        self.queue_names().into_iter().flat_map(of).collect()
    }

    /// Ends a consumer's channel and requeues its unacknowledged messages.
    pub(super) fn end_consumer(&mut self, name: &str, id: u64) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        let evicted = queue.remove_subscriber(id);
        let ends = queue.declared.exclusive && queue.subscribers.is_empty();
        self.settle_evicted(name, evicted, 0);
        // Like RabbitMQ's auto-delete queues: an exclusive queue ends with its last consumer.
        if ends {
            self.delete_queue(name);
        }
        self.dispatch(name);
    }

    pub(super) fn is_silent(&self, queues: &[Arc<str>]) -> bool {
        self.longest_silence(queues) != Silence::None
    }
}

/// Waits until all of these queues confirm.
pub(super) async fn silence_ended(inner: &Inner, queues: &[Arc<str>]) {
    let mut resumed = inner.resumed.subscribe();
    loop {
        let silence = inner.lock().longest_silence(queues);
        let heard = resumed.changed();
        // The sender of `resumed` lives as long as the broker.
        let _ = match silence {
            Silence::None => return,
            Silence::Until(until) => timeout_at(until, heard).await.unwrap_or(Ok(())),
            Silence::UntilResumed => heard.await,
        };
    }
}
