//! The messages of the suites.

use postrider::{Command, Event, Query};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Command)]
#[message(key = "alpha.note", reply = String)]
pub struct Note {
    pub text: String,
}

impl Note {
    pub fn new(text: impl ToString) -> Self {
        Self { text: text.to_string() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Event)]
#[message(key = "alpha.noted")]
pub struct Noted {
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Query)]
#[message(key = "alpha.count", reply = u64)]
pub struct Count;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Query)]
#[message(key = "alpha.echo", reply = String)]
pub struct Echo {
    pub text: String,
}
