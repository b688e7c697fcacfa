//! A finding, and the check that produced it.

use std::fmt;

use serde::Serialize;

use crate::broker::BrokerError;

/// The text for a queue whose messages may be in a temporary queue.
pub(super) const NOT_FINISHED: &str =
    "its migration is not finished; finish it with the `topology migrate` that began it";

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The promise is kept.
    Ok,
    /// Nothing is broken, but a person should look.
    Warning,
    /// A promise is broken.
    Problem,
    /// It could not be checked; the text says what is needed.
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

/// One row of the doctor's report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// The result.
    pub verdict: Verdict,
    /// What was checked: `durability`, `confirms`, `claim` and so on.
    pub check: &'static str,
    /// The subject: a queue, a domain, a lane.
    pub subject: String,
    /// What was found, and what to do.
    pub text: String,
    /// The frame or query that the finding comes from.
    pub source: String,
}

/// A check of a subject by a frame or query.
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

    /// The broker refused: a problem, unless only the user's permission is missing.
    pub(super) fn refused(&self, error: &BrokerError, right: &str) -> Finding {
        match error {
            BrokerError::Forbidden { reason } => {
                self.not_checked(format!("not checked (the user has no right to {right}: {reason})"))
            }
            _ => self.problem(error.to_string()),
        }
    }

    /// A check that needs the management API.
    pub(super) fn needs_management(&self) -> Finding {
        self.not_checked("not checked (needs --management URL)")
    }
}
