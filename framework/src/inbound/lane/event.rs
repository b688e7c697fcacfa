//! What wakes a lane, and why its channel ends.

use crate::broker::{BrokerError, QueueState};
use crate::host::Finished;
use crate::inbound::settle::Receive;
use crate::inbound::suspects::Cleared;

/// What is known of a queue.
pub(super) type Found = Result<Option<QueueState>, BrokerError>;

/// Everything that can wake a lane.
pub(super) enum Event {
    /// Something has happened and was seen to.
    Progress,
    /// The consumer has ended: the broker has cancelled it, or there was an error.
    Ended(Option<BrokerError>),
    Finished(Finished),
    Settled(u64, Receive),
    /// Whether a suspect may be handled; `None` when the app stops.
    Cleared(u64, Option<Cleared>),
    /// The answer to a delivery has left, or will not.
    Answered(u64, bool),
    /// The oldest answer was not written in time.
    Unanswered,
    /// Nothing else is about to happen.
    Quiet,
    /// It is time to look whether the queue stalls.
    Probe,
    Probed(Found),
    /// Somebody wants something of the actor.
    Controlled,
    Stop,
}

/// Why an epoch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// For good.
    Stopped,
    /// Until somebody resumes it.
    Paused,
    /// The consumer is to be opened again.
    Lost,
}
