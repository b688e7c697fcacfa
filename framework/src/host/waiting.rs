//! The deliveries that wait in a lane for their turn, and the batches of them that share the state.

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

    /// The next job; `None` when the mailbox is gone.
    pub(super) async fn next(&mut self) -> Option<Job> {
        // Gives other tasks their turn, even if no handler ever waits.
        tokio::task::coop::consume_budget().await;
        loop {
            if let Some(arrival) = self.arrivals.pop_front() {
                return Some(Job::new(self.lane, arrival));
            }
            self.arrivals = self.queue.recv().await?.arrivals.into();
        }
    }

    /// The next delivery, if one waits.
    pub(super) fn peek(&mut self) -> Option<&Arrival> {
        while self.arrivals.is_empty() {
            self.arrivals = self.queue.try_recv().ok()?.arrivals.into();
        }
        self.arrivals.front()
    }

    /// Takes the next delivery, if one waits.
    pub(super) fn take(&mut self) -> Option<Job> {
        self.peek()?;
        Some(Job::new(self.lane, self.arrivals.pop_front()?))
    }

    /// How many deliveries wait.
    pub(super) fn count(&mut self) -> usize {
        while let Ok(more) = self.queue.try_recv() {
            self.arrivals.extend(more.arrivals);
        }
        self.arrivals.len()
    }
}

/// Messages that already wait when the lane gets shared state take it together. Otherwise each waiting query would wait for one
/// more of the waiting commands. Later messages ask for the lock again, so that no writer starves.
pub(super) struct Batch {
    guard: Option<Guard>,
    left: usize,
}

impl Batch {
    pub(super) const fn none() -> Self {
        Self { guard: None, left: 0 }
    }

    /// The shared state for one more message. The last one releases it.
    pub(super) fn take(&mut self, share: impl FnOnce(&Guard) -> Option<Guard>) -> Option<Guard> {
        self.left = self.left.checked_sub(1)?;
        if self.left == 0 { self.guard.take() } else { self.guard.as_ref().and_then(share) }
    }

    pub(super) fn begin(&mut self, guard: Option<Guard>, waiting: usize) {
        *self = if waiting == 0 { Self::none() } else { Self { guard, left: waiting } };
    }

    pub(super) fn end(&mut self) {
        *self = Self::none();
    }

    /// Counts off a message of the batch that needs no state.
    pub(super) fn pass(&mut self) {
        if self.left > 0 {
            self.left -= 1;
        }
        if self.left == 0 {
            self.end();
        }
    }
}
