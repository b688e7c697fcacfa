//! The events that wake a lane, and why its channel ends.

use crate::broker::{BrokerError, QueueState};
use crate::host::Finished;
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
    Settled(u64, Receive),
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
