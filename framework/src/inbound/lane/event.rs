//! The events that wake a lane, and why its channel ends.

use crate::broker::{BrokerError, QueueState};
use crate::host::{End, Finished, Handled, Settlement, Turn};
use crate::inbound::settle::Receive;
use crate::inbound::suspects::Cleared;

/// The state of a queue, as the broker reports it.
pub(super) type Found = Result<Option<QueueState>, BrokerError>;

/// The events that can wake a lane.
pub(super) enum Event {
    /// Something has happened and was dealt with.
    Progress,
    /// The consumer has ended: the broker has cancelled it, or there was an error.
    Ended(Option<BrokerError>),
    Finished(Finished),
    Settled(Settled),
    /// Whether a suspect may be handled; `None` when the app stops.
    Cleared(u64, Option<Cleared>),
    /// The answer to a delivery was sent, or will not be.
    Answered(u64, bool),
    /// The oldest answer was not sent in time.
    Unanswered,
    /// Nothing else is ready: acknowledgements are flushed.
    Quiet,
    /// It is time to check whether the queue stalls.
    Probe,
    Probed(Found),
    /// An order to the actor has changed.
    Controlled,
    Stop,
}

/// A delivery of which everything is published; only its receipt is left to use.
pub(super) struct Settled {
    pub(super) number: u64,
    pub(super) receive: Receive,
    /// The right to handle it, and how it was handled.
    pub(super) handled: Option<(Turn, Handled)>,
}

impl Drop for Settled {
    /// The lane is gone. A redelivery is acknowledged then, and not handled again.
    fn drop(&mut self) {
        if let Some((turn, mut handled)) = self.handled.take().filter(|_| self.receive == Receive::Ack) {
            handled.settlement = ONLY_ACK;
            turn.pass_on(handled);
        }
    }
}

/// The settlement of a message for which only the acknowledgement is left to do.
pub(super) const ONLY_ACK: Settlement = Settlement { answer: false, end: End::Ack };

/// Why an epoch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// For good.
    Stopped,
    /// Until it is resumed, or the circuit breaker lets a message through.
    Paused,
    /// A new consumer must be opened.
    Lost,
}
