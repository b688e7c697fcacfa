//! What happens after a failure: retry, give up or discard.

use postrider_grammar::{NextAttempt, Retry, RetryError};

use crate::handler::FailureClass;

/// What the attribute of an impl block or a method says about failures. Absent values come from the block, then from the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PolicyWords {
    /// When a failed message is tried again.
    pub retry: Option<&'static str>,
    /// Failures after which it is not tried again.
    pub give_up: Option<&'static [FailureClass]>,
    /// Failures whose message is dropped in the end instead of dead-lettered.
    pub discard: Option<&'static [FailureClass]>,
}

/// What becomes of a message whose handler fails.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policy {
    /// When a message that failed transiently, panicked or timed out is tried again.
    pub retry: Retry,
    /// Which of these failures are not tried again.
    pub give_up: Vec<FailureClass>,
    /// Failures whose message is dropped in the end instead of dead-lettered.
    pub discard: Vec<FailureClass>,
}

impl Policy {
    /// This policy with the values of an attribute.
    ///
    /// # Errors
    /// When the retry plan cannot be parsed; the macro refuses such a plan at compile time.
    pub fn with(mut self, words: &PolicyWords) -> Result<Self, RetryError> {
        if let Some(retry) = words.retry {
            self.retry = Retry { pause: self.retry.pause, ..retry.parse()? };
        }
        if let Some(classes) = words.give_up {
            self.give_up = classes.to_vec();
        }
        if let Some(classes) = words.discard {
            self.discard = classes.to_vec();
        }
        Ok(self)
    }

    /// What comes after a failed attempt. Attempts are counted from 1.
    #[must_use]
    pub fn after(&self, class: FailureClass, attempt: u32, chance: f64) -> NextAttempt {
        let passing = matches!(class, FailureClass::Transient | FailureClass::Panic | FailureClass::TimedOut);
        if passing && !self.give_up.contains(&class) { self.retry.after(attempt, chance) } else { NextAttempt::None }
    }
}
