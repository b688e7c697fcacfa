//! Deliveries on their way into the mailbox, and outcomes on their way back.

use std::sync::Arc;
use std::time::Duration;

use actix::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::handler::{FailureClass, Lane, Outcome};
use crate::host::epoch::Epoch;
use crate::host::handled::{AttemptRecord, Handled};
use crate::host::running::Turn;
use crate::message::Envelope;

/// Deliveries of one lane, in their order: those that arrived together enter the mailbox together.
#[derive(Debug)]
pub struct Deliver {
    /// The lane they arrived on.
    pub lane: Lane,
    /// The deliveries.
    pub arrivals: Vec<Arrival>,
}

/// A delivery as it enters the mailbox. The right to settle it stays behind: a handler cannot acknowledge.
#[derive(Debug)]
pub struct Arrival {
    /// The message.
    pub envelope: Arc<Envelope>,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// Until when the caller waits for the answer, if it said so.
    pub waited_for_until: Option<Instant>,
    /// How long ago a build without a handler for its key first got it.
    pub skewed_for: Duration,
    /// Whether it is given up unhandled, because it has ended its process too often.
    pub condemned: bool,
    /// Where the outcome goes.
    pub ticket: Ticket,
}

impl Message for Deliver {
    type Result = ();
}

/// The end of a delivery's handling, on its way back to the lane.
#[derive(Debug)]
pub struct Finished {
    /// The delivery's number on its lane.
    pub number: u64,
    /// How handling it ended.
    pub handled: Handled,
    /// The right to handle the message, if it was handled to its end. It is released when the delivery is settled.
    pub turn: Option<Turn>,
}

/// Reports one delivery's outcome to its lane. Dropping it reports `Shutdown`.
#[derive(Debug)]
pub struct Ticket {
    number: u64,
    /// `None` for a delivery that was acknowledged on receipt, which is always handled.
    epoch: Option<Arc<Epoch>>,
    /// Never full: it has room for as many outcomes as there are permits.
    done: Option<mpsc::Sender<Finished>>,
}

impl Ticket {
    /// A ticket for the delivery with this number. `epoch` is its channel, or `None` if the delivery was acknowledged on receipt.
    #[must_use]
    pub fn new(number: u64, epoch: Option<Arc<Epoch>>, done: mpsc::Sender<Finished>) -> Self {
        Self { number, epoch, done: Some(done) }
    }

    /// Whether the delivery may still begin: its channel is open, and its lane has not been stopped.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.epoch.as_ref().is_none_or(|epoch| epoch.is_live())
    }

    /// Whether the delivery was acknowledged on receipt, so that the broker does not deliver it again.
    #[must_use]
    pub fn is_acked(&self) -> bool {
        self.epoch.is_none()
    }

    /// No other delivery of this channel begins any more; they go back.
    pub fn stop_lane(&self) {
        if let Some(epoch) = &self.epoch {
            epoch.begin_nothing_more();
        }
    }

    /// The channel it came from; `None` for a delivery that was acknowledged on receipt.
    #[must_use]
    pub fn epoch(&self) -> Option<&Epoch> {
        self.epoch.as_deref()
    }

    /// [`Ticket::epoch`] as a shared handle.
    pub(super) fn shared_epoch(&self) -> Option<Arc<Epoch>> {
        self.epoch.clone()
    }

    /// Reports the outcome, with the right to handle the message if it was handled to its end.
    pub fn finish(mut self, handled: Handled, turn: Option<Turn>) {
        if let Some(done) = self.done.take() {
            self.report(&done, handled, turn);
        }
    }

    fn report(&self, done: &mpsc::Sender<Finished>, handled: Handled, turn: Option<Turn>) {
        // A lane that is gone has given its deliveries back already.
        let _ = done.try_send(Finished { number: self.number, handled, turn });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            // Messages behind it must not begin before it is delivered again.
            if self.epoch.as_ref().is_some_and(|epoch| epoch.ordered) {
                self.stop_lane();
            }
            let stopped = Outcome::failed(FailureClass::Shutdown, "shutdown", "the actor stopped");
            self.report(&done, Handled::given_back(stopped, AttemptRecord::default()), None);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[test]
    fn a_delivery_that_is_dropped_stops_the_lane_of_an_ordered_actor_and_no_other() {
        for ordered in [true, false] {
            let epoch = Epoch::begin(&CancellationToken::new(), ordered);
            let (done, mut finished) = mpsc::channel(1);
            drop(Ticket::new(7, Some(Arc::clone(&epoch)), done));
            assert_eq!(epoch.is_live(), !ordered);
            assert_eq!(finished.try_recv().unwrap().number, 7);
        }
    }
}
