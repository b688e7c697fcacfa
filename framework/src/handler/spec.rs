//! What `#[distributed]` says about an actor and its handlers.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::handler::{PolicyWords, Table};
use crate::message::Kind;

/// A service actor: one annotated impl block. Implemented by `#[distributed(service = "…")]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service actor",
    label = "not a service actor",
    note = "annotate its impl block: `#[distributed(service = \"…\")] impl {Self} {{ … }}`"
)]
pub trait Actor: Sized + 'static {
    /// What the impl block's attribute says.
    fn attributes() -> Attributes;
    /// Puts a row for each annotated method into the table.
    fn handlers(table: &mut Table<Self>);
}

/// What is promised about the effect of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// A crash loses the messages in the mailbox.
    AtMostOnce,
    /// Nothing is lost; a message may run twice.
    AtLeastOnce,
    /// An effect happens once within the inbox's retention; needs a store.
    EffectivelyOnce,
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AtMostOnce => "at_most_once",
            Self::AtLeastOnce => "at_least_once",
            Self::EffectivelyOnce => "effectively_once",
        })
    }
}

/// What the attribute of an impl block says. Absent values come from the app.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    /// The type's name.
    pub actor: &'static str,
    /// The service it belongs to.
    pub service: &'static str,
    /// Its own queue, for a second actor of the service.
    pub queue: Option<&'static str>,
    /// The domains that the service owns.
    pub domains: &'static [&'static str],
    /// The delivery guarantee.
    pub guarantee: Guarantee,
    /// The field of the message, or the header, by which a repetition is known; `None`: by the message's id.
    pub once_by: Option<&'static str>,
    /// Whether the queue's order is kept across instances and retries.
    pub ordered: bool,
    /// Whether the actor stops at a message that it would otherwise dead-letter.
    pub stops_at_poison: bool,
    /// The most deliveries held per lane.
    pub prefetch: Option<u16>,
    /// The most `&self` handlers that run at once per lane.
    pub concurrency: Option<usize>,
    /// How long a handler may run.
    pub timeout: Option<Duration>,
    /// What becomes of a message whose handler fails.
    pub policy: PolicyWords,
}

/// Who gets a copy of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// One instance of the service.
    Shared,
    /// Every instance of the service, at most once across reconnects.
    Instance,
}

/// One of an actor's up to three queues, each with its own channel, prefetch and permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Commands, events and channel messages.
    Durable,
    /// Queries.
    Query,
    /// Events for every instance.
    Instance,
}

impl Lane {
    /// All lanes, in the order of their indices.
    pub const ALL: [Self; 3] = [Self::Durable, Self::Query, Self::Instance];

    /// The lane's place in an array of lanes.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Durable => 0,
            Self::Query => 1,
            Self::Instance => 2,
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(["durable", "query", "instance"][self.index()])
    }
}

/// What the attribute of a method says, and where the method is defined.
#[derive(Debug, Clone, Copy)]
pub struct HandlerSpec {
    /// Command, event, query or channel.
    pub kind: Kind,
    /// The key; for an event it may be a pattern.
    pub key: &'static str,
    /// Who gets a copy.
    pub scope: Scope,
    /// The database whose transaction it takes, or [`HandlerSpec::ANY_DATABASE`].
    pub transaction: Option<&'static str>,
    /// The permission that the sender must have.
    pub permission: Option<&'static str>,
    /// What becomes of a message whose handler fails.
    pub policy: PolicyWords,
    /// The method.
    pub method: &'static str,
    /// Its file.
    pub file: &'static str,
    /// Its line.
    pub line: u32,
}

impl HandlerSpec {
    /// [`HandlerSpec::transaction`] of a handler that takes the transaction of any database.
    pub const ANY_DATABASE: &str = "any";

    /// The lane its messages arrive on.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match (self.kind, self.scope) {
            (Kind::Query, _) => Lane::Query,
            (_, Scope::Instance) => Lane::Instance,
            (_, Scope::Shared) => Lane::Durable,
        }
    }
}

impl fmt::Display for HandlerSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}:{})", self.method, self.file, self.line)
    }
}
