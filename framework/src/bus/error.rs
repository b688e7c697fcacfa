//! Errors of sending and of requests.

use std::time::Duration;

use postrider_grammar::NameError;

use crate::broker::BrokerError;
use crate::codec::{DecodeError, EncodeError};
use crate::message::{Kind, MessageId, Problem};

/// Why a message was not sent, or why it is unknown whether the broker has it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No queue takes it.
    #[error("{kind} {key:?} (message {id}) reached nobody: no queue takes it; {}", looked_for(*kind))]
    Unroutable {
        /// Its kind.
        kind: Kind,
        /// Its key, with `<service>:` in front if it was sent to a service by name.
        key: String,
        /// Its id.
        id: MessageId,
    },
    /// The broker refused it.
    #[error("the broker rejected {kind} {key:?} (message {id}): the queue is full or not available")]
    Rejected {
        /// Its kind.
        kind: Kind,
        /// Its key.
        key: String,
        /// Its id.
        id: MessageId,
    },
    /// It was sent; whether the broker has it is unknown. Sending it again with the same id is safe for a
    /// receiver that keeps an inbox.
    #[error("nobody knows whether the broker has {kind} {key:?} (message {id}): {reason}")]
    Unknown {
        /// Its kind.
        kind: Kind,
        /// Its key.
        key: String,
        /// Its id.
        id: MessageId,
        /// Why.
        reason: String,
    },
    /// The broker could not be reached in time, or refused the connection.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The value could not be encoded, or is too large or too deep.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// The key or a name is malformed.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The kind does not fit the call.
    #[error("{reason}")]
    WrongKind {
        /// What to call instead.
        reason: String,
    },
    /// The sender does not own the event's domain.
    #[error(
        "service {service:?} may not publish {key:?}: it does not own the domain {domain:?}; publish from the owner, or say `as_owner` if this program must"
    )]
    NotOwner {
        /// The sending service.
        service: String,
        /// The key.
        key: String,
        /// Its domain.
        domain: String,
    },
    /// An option has a value that makes no sense.
    #[error("option {option}: {reason}")]
    Option {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Properties and headers together are too large.
    #[error("properties and headers of {bytes} bytes are too large; at most {most} are allowed")]
    HeadersTooLarge {
        /// Their size.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// A handler holds too many messages.
    #[error(
        "a handler may hold at most {messages} messages and {bytes} bytes until it succeeds; send in smaller portions"
    )]
    TooManyPending {
        /// The limit in messages.
        messages: usize,
        /// The limit in bytes.
        bytes: usize,
    },
    /// The context's handler has ended; its held messages have already been sent or dropped.
    #[error(
        "the handler has ended and sends nothing more; work that outlives it sends through a bus, such as `setup.bus()`"
    )]
    HandlerEnded,
    /// Middleware refused to send it.
    #[error("sending was refused: {0}")]
    Refused(Problem),
    /// The caller cancelled it. A message that is not yet on a channel to the broker never leaves. Otherwise the broker may have
    /// it, and it is not sent again.
    #[error("sending was cancelled by the caller")]
    Cancelled,
}

/// An error answer from the other service.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{service} answered {key:?} with an error: {problem}")]
pub struct RemoteError {
    /// The service that answered.
    pub service: String,
    /// The key of the request.
    pub key: String,
    /// Code, text and details.
    pub problem: Problem,
}

/// Why a request got no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// It was not sent, or it is unknown whether the broker has it.
    #[error(transparent)]
    Send(#[from] SendError),
    /// No answer came in time. A command may still be handled.
    #[error("no answer to {key:?} within {after:?}")]
    TimedOut {
        /// The key.
        key: String,
        /// How long we waited.
        after: Duration,
    },
    /// The other service answered with an error.
    #[error(transparent)]
    Remote(RemoteError),
    /// Only an actor that already waits for this request could answer it: the calls form a circle. As after a time-out, a command
    /// may be handled later all the same: its lane can fill up after it was sent.
    #[error("{key:?} would wait for itself: {text}")]
    WouldWaitForItself {
        /// The key.
        key: String,
        /// The circle.
        text: String,
    },
    /// The handler has a transaction for which others would wait as long as the request takes.
    #[error(
        "{key:?} cannot be asked while the handler's transaction is open, since others would wait for its locks; ask in a handler without `Tx`, or before its first use of a PostgreSQL transaction"
    )]
    InTransaction {
        /// The key.
        key: String,
    },
    /// The channel that carried the request closed, so no answer will come. The request is not sent again. A command that the
    /// broker has may still be handled.
    #[error("connection lost while waiting for the answer to {key:?}")]
    ConnectionLost {
        /// The key.
        key: String,
    },
    /// The answer cannot be decoded as the type that the caller expects.
    #[error("the answer to {key:?} cannot be read: {error}")]
    Decode {
        /// The key.
        key: String,
        /// What is wrong.
        error: DecodeError,
    },
    /// Too many requests are open.
    #[error("{open} requests are open, the most that are allowed (max_open_requests); wait for answers first")]
    TooManyOpen {
        /// The limit.
        open: usize,
    },
    /// The caller cancelled it. Whether it left is as for [`SendError::Cancelled`].
    #[error("the request was cancelled by the caller")]
    Cancelled,
}

impl SendError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unroutable { .. } | Self::Rejected { .. } | Self::Unknown { .. } => true,
            Self::Broker(error) => !error.is_permanent(),
            _ => false,
        }
    }
}

/// A likely cause when no queue takes a message.
fn looked_for(kind: Kind) -> &'static str {
    match kind {
        Kind::Command => {
            "is the service that handles it deployed? (An event is published with `publish`, a message of a channel sent with `send_channel`)"
        }
        Kind::Channel => {
            "is the service deployed, and has it this channel? (A command goes to a service with `send_to`)"
        }
        Kind::Query | Kind::Event | Kind::Reply => "is the service that handles it deployed?",
    }
}
