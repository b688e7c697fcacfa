//! A finding, and how it was reached.

use std::fmt;

use serde::Serialize;

use crate::broker::BrokerError;

/// Of a queue whose messages may be elsewhere.
pub(super) const NOT_FINISHED: &str =
    "its migration is not finished; finish it with the `topology migrate` that began it";

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As promised.
    Ok,
    /// Nothing is broken, but somebody should look.
    Warning,
    /// A promise is broken.
    Problem,
    /// It could not be seen; the text says what is needed.
    NotChecked,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "PROBLEM",
            Self::NotChecked => "not checked",
        })
    }
}

/// One row of what the doctor says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How it ended.
    pub verdict: Verdict,
    /// What was checked: `durability`, `confirms`, `claim` and so on.
    pub check: &'static str,
    /// Of what: a queue, a domain, a lane.
    pub subject: String,
    /// What was found, and what to do.
    pub text: String,
    /// The frame or query it was learnt from.
    pub source: String,
}

/// A check of something, by a frame or query.
pub(super) struct Check<'a> {
    pub(super) name: &'static str,
    pub(super) subject: &'a str,
    pub(super) source: &'a str,
}

impl Check<'_> {
    fn ended(&self, verdict: Verdict, text: impl Into<String>) -> Finding {
        Finding {
            verdict,
            check: self.name,
            subject: self.subject.to_owned(),
            text: text.into(),
            source: self.source.to_owned(),
        }
    }

    pub(super) fn ok(&self, text: impl Into<String>) -> Finding {
        self.ended(Verdict::Ok, text)
    }

    pub(super) fn warning(&self, text: impl Into<String>) -> Finding {
        self.ended(Verdict::Warning, text)
    }

    pub(super) fn problem(&self, text: impl Into<String>) -> Finding {
        self.ended(Verdict::Problem, text)
    }

    pub(super) fn not_checked(&self, text: impl Into<String>) -> Finding {
        self.ended(Verdict::NotChecked, text)
    }

    /// What the broker refused: a problem, or only a right that the user does not have.
    pub(super) fn refused(&self, error: &BrokerError, right: &str) -> Finding {
        match error {
            BrokerError::Forbidden { reason } => {
                self.not_checked(format!("not checked (the user has no right to {right}: {reason})"))
            }
            _ => self.problem(error.to_string()),
        }
    }

    /// What only the management API knows.
    pub(super) fn needs_management(&self) -> Finding {
        self.not_checked("not checked (needs --management URL)")
    }
}
