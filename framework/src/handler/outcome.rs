//! How an attempt ended.

use bytes::Bytes;
use serde::Serialize;

use crate::handler::failure::{Class, HandlerError};
use crate::message::{Envelope, Kind, MediaType, Problem};

/// What the sender asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Asked {
    /// No reply.
    OneWay,
    /// No reply that a caller waits for, because an event has many subscribers. An answer still goes to `reply_to`.
    Event,
    /// A reply.
    Reply,
    /// A reply, and no effect.
    Query,
}

impl Asked {
    /// What the sender of a message asked for.
    #[must_use]
    pub fn of(envelope: &Envelope) -> Self {
        match envelope.kind {
            Kind::Query => Self::Query,
            Kind::Event if envelope.wants_reply() => Self::Event,
            _ if envelope.wants_reply() => Self::Reply,
            _ => Self::OneWay,
        }
    }
}

/// How handling ended: the only value that travels from a handler back to the broker's side.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum Outcome {
    /// The handler succeeded; the answer, if the sender waits for one.
    Done(Option<Reply>),
    /// The handler failed, or could not run.
    Failed(Failed),
    /// The handler did not run, because the caller no longer waits for the answer.
    Expired,
}

/// An encoded answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// How it is encoded.
    pub media_type: MediaType,
    /// The bytes.
    pub payload: Bytes,
}

/// Why handling failed.
#[derive(Debug, Clone, PartialEq)]
pub struct Failed {
    /// The class, which decides whether it is tried again.
    pub class: FailureClass,
    /// What the caller is told.
    pub problem: Problem,
    /// What the log is told.
    pub log: String,
}

impl Failed {
    /// Class and text, for a header.
    #[must_use]
    pub fn in_short(&self) -> String {
        format!("{}: {}", self.class.as_str(), Problem::new("", self.log.as_str()).text)
    }
}

/// What decides whether a failed message is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureClass {
    /// The service refuses the message.
    Rejected,
    /// It will never succeed.
    Permanent,
    /// It may succeed later.
    Transient,
    /// The handler panicked.
    Panic,
    /// The handler took too long.
    TimedOut,
    /// Postrider or the broker failed, for example a confirm did not come. It does not count as an attempt.
    Infrastructure,
    /// The app stops.
    Shutdown,
    /// The payload cannot be decoded.
    Undecodable,
    /// No handler of this build takes the key.
    NoHandler,
    /// The message has no id by which the inbox could know it again.
    NoId,
    /// The inbox knows another message under the same id.
    IdReused,
    /// The process ended each time it handled this message, even alone in its lane: the message may be what ends it.
    CrashSuspected,
}

impl FailureClass {
    /// The word for it in headers and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Permanent => "permanent",
            Self::Transient => "transient",
            Self::Panic => "panic",
            Self::TimedOut => "timed_out",
            Self::Infrastructure => "infrastructure",
            Self::Shutdown => "shutdown",
            Self::Undecodable => "undecodable",
            Self::NoHandler => "no_handler",
            Self::NoId => "no_id",
            Self::IdReused => "id_reused",
            Self::CrashSuspected => "crash_suspected",
        }
    }
}

impl Outcome {
    /// A failure with the same text for caller and log.
    pub fn failed(class: FailureClass, code: &str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self::Failed(Failed { class, problem: Problem::new(code, text.clone()), log: text })
    }

    /// The failure for a handler's error.
    pub fn from_error<E: HandlerError>(error: &E) -> Self {
        let class = match error.class() {
            Class::Transient => FailureClass::Transient,
            Class::Permanent => FailureClass::Permanent,
            Class::Rejected => FailureClass::Rejected,
        };
        let mut problem = Problem::new(error.code(), error.caller_text());
        problem.details = error.details();
        Self::Failed(Failed { class, problem, log: error.log_text() })
    }

    /// The word for it in logs and traces.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Done(_) => "ok",
            Self::Expired => "expired",
            Self::Failed(failed) => failed.class.as_str(),
        }
    }

    /// Whether the handler succeeded.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}
