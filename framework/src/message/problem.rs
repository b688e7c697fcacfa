//! Why a message was not handled, in the form that is sent to its sender.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// The most bytes of a code.
const MAX_CODE_BYTES: usize = 100;
/// The most bytes of a text; longer ones are cut.
const MAX_TEXT_BYTES: usize = 2_000;

/// Why a message was not handled, as sent in an error reply and in a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Problem {
    /// A word for programs, such as `unknown-order`.
    pub code: String,
    /// A sentence for people, without secrets.
    pub text: String,
    /// More data for programs; empty unless the service adds some.
    #[serde(default)]
    pub details: BTreeMap<String, String>,
}

impl Problem {
    /// The code for a request that only an actor waiting for its answer could answer.
    pub const WOULD_WAIT: &str = "would-wait-for-itself";
    /// The code for a payload that cannot be decoded.
    pub const UNDECODABLE: &str = "undecodable";
    /// The code for a key that no handler of this build takes.
    pub const NO_HANDLER: &str = "no-handler";
    /// The code for a handler that took too long.
    pub const TIMED_OUT: &str = "timed-out";
    /// The code for a handler that panicked.
    pub const PANICKED: &str = "panicked";
    /// The code for a failure whose text is for the service's log only.
    pub const FAILED: &str = "failed";
    /// The code for a sender without the permission that a handler requires.
    pub const DENIED: &str = "denied";

    /// A problem without details. Code and text are cut to 100 and 2 000 bytes.
    #[must_use]
    pub fn new(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            code: cut(code.into(), MAX_CODE_BYTES),
            text: cut(text.into(), MAX_TEXT_BYTES),
            details: BTreeMap::new(),
        }
    }

    /// The same with one more detail.
    #[must_use]
    pub fn with_detail(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.details.insert(name.into(), value.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.code)
    }
}

fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        let end = (0..=most).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
