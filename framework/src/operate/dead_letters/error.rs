//! Errors of working on dead letters.

use crate::broker::BrokerError;
use crate::bus::SendError;

/// Why dead letters could not be worked on.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DeadError {
    /// The broker could not be reached or refused.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A letter could not be moved; it stays where it is.
    #[error("{id:?} stays in {queue:?}: {error}")]
    NotMoved {
        /// The letter.
        id: String,
        /// Where it is.
        queue: String,
        /// Why.
        error: SendError,
    },
    /// The queue that letters would go back to is being migrated.
    #[error("the migration of queue {queue:?} is not finished; finish it with the command that began it, then replay")]
    Migrating {
        /// The queue.
        queue: String,
    },
    /// No such letter.
    #[error("there is no dead letter {id:?}; `postrider dead list` shows them")]
    NotFound {
        /// What was looked for.
        id: String,
    },
    /// No such letter, but a service of this name.
    #[error("there is no dead letter {id:?}, but a service: is `--service {id}` meant?")]
    IsService {
        /// What was looked for.
        id: String,
    },
    /// Several letters have this id, and one is wanted.
    #[error("{letters} dead letters have the id {id:?}; name one of them by its own: {addresses}")]
    Ambiguous {
        /// What was looked for.
        id: String,
        /// How many.
        letters: u64,
        /// The addresses of the first of them.
        addresses: String,
    },
    /// A part of a queue was not looked at.
    #[error(
        "{looked_at} letters of {queue:?} were looked at and {done} of them done, {left} were not reached: {reason}; \
         do it again for the rest"
    )]
    NotReached {
        /// The queue.
        queue: String,
        /// How many letters were looked at.
        looked_at: u64,
        /// How many of all queues were listed, deleted or replayed.
        done: u64,
        /// How many were there at the beginning and not looked at.
        left: u64,
        /// Why.
        reason: String,
    },
    /// The letters that are meant are too large to be had at once.
    #[error(
        "the letters have more than {most} bytes, of which {listed} letters were read; narrow the filter or take them one \
         by one with `DeadLetters::each`"
    )]
    TooLarge {
        /// How many letters fit.
        listed: u64,
        /// The limit in bytes.
        most: usize,
    },
    /// The records of services cannot be read.
    #[error("{0}")]
    Records(String),
}
