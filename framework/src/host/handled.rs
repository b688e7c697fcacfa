//! How handling a message ended, and how often it was tried.

use crate::handler::Outcome;
use crate::host::verdict::{End, Settlement};

/// How handling a message ended.
#[derive(Debug, Clone)]
pub struct Handled {
    /// The outcome.
    pub outcome: Outcome,
    /// The attempts that were made.
    pub made: AttemptRecord,
    /// What becomes of the delivery.
    pub settlement: Settlement,
}

impl Handled {
    /// The message was not handled to its end and is given back.
    #[must_use]
    pub fn given_back(outcome: Outcome, made: AttemptRecord) -> Self {
        Self { outcome, made, settlement: Settlement { answer: false, end: End::GiveBack } }
    }
}

/// What is known of the attempts at one delivery.
#[derive(Debug, Clone, Default)]
pub struct AttemptRecord {
    /// The last attempt, counted from 1 over all deliveries of the message.
    pub attempt: u32,
    /// The handler's place in the table; `None` if no handler got the message.
    pub handler: Option<usize>,
    /// Why the first attempt at this delivery failed, if there was a later one.
    pub first_error: Option<Box<str>>,
}

impl AttemptRecord {
    /// Counts another attempt after one with this outcome.
    pub(super) fn next(&mut self, outcome: &Outcome) {
        self.attempt += 1;
        if let Outcome::Failed(failed) = outcome
            && self.first_error.is_none()
        {
            self.first_error = Some(failed.in_short().into());
        }
    }
}
