//! What waits in a lane for its turn, and which of it takes the shared state together.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::handler::Lane;
use crate::host::attempt::Job;
use crate::host::deliver::{Arrival, Deliver};
use crate::host::state::Guard;

/// Deliveries of a lane that are not handled yet, in their order.
pub(super) struct Waiting {
    lane: Lane,
    arrivals: VecDeque<Arrival>,
    queue: mpsc::Receiver<Deliver>,
}

impl Waiting {
    pub(super) fn new(lane: Lane, queue: mpsc::Receiver<Deliver>) -> Self {
        Self { lane, arrivals: VecDeque::new(), queue }
    }

    /// The next one; `None` when the mailbox is gone.
    pub(super) async fn next(&mut self) -> Option<Job> {
        // Handlers that never wait let others have their turn.
        tokio::task::coop::consume_budget().await;
        loop {
            if let Some(arrival) = self.arrivals.pop_front() {
                return Some(Job::new(self.lane, arrival));
            }
            self.arrivals = self.queue.recv().await?.arrivals.into();
        }
    }

    /// How many wait.
    pub(super) fn count(&mut self) -> usize {
        while let Ok(more) = self.queue.try_recv() {
            self.arrivals.extend(more.arrivals);
        }
        self.arrivals.len()
    }
}

/// Messages that were waiting already when the lane got shared state take it together: otherwise each query would wait
/// for one more of the commands that wait as well. Those that come later ask for the lock again, so that nobody starves.
pub(super) struct Batch<S> {
    guard: Option<Guard<S>>,
    left: usize,
}

impl<S> Batch<S> {
    pub(super) const fn none() -> Self {
        Self { guard: None, left: 0 }
    }

    /// The shared state, for one more message. It is let go with the last one.
    pub(super) fn take(&mut self, share: impl FnOnce(&Guard<S>) -> Option<Guard<S>>) -> Option<Guard<S>> {
        self.left = self.left.checked_sub(1)?;
        if self.left == 0 { self.guard.take() } else { self.guard.as_ref().and_then(share) }
    }

    pub(super) fn begin(&mut self, guard: Option<Guard<S>>, waiting: usize) {
        *self = if waiting == 0 { Self::none() } else { Self { guard, left: waiting } };
    }

    pub(super) fn end(&mut self) {
        *self = Self::none();
    }

    /// A message of the batch that needs no state after all.
    pub(super) fn pass(&mut self) {
        if self.left > 0 {
            self.left -= 1;
        }
        if self.left == 0 {
            self.end();
        }
    }
}
