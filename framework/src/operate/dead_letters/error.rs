//! Errors of work on dead letters.

use crate::broker::BrokerError;
use crate::bus::SendError;

/// Why work on dead letters failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum DeadError {
    /// The broker could not be reached, or it refused.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// A letter could not be moved; it stays in its queue.
    #[error("{id:?} stays in {queue:?}: {error}")]
    NotMoved {
        /// The letter.
        id: String,
        /// Its queue.
        queue: String,
        /// Why.
        error: SendError,
    },
    /// The queue that the letter would go back to does not stand; the letter stays in its queue.
    #[error(
        "{id:?} stays in {queue:?}: its actor's queue {home:?} does not stand; start the service once, or declare it with `topology apply`"
    )]
    NoHome {
        /// The letter.
        id: String,
        /// Its queue.
        queue: String,
        /// The missing queue.
        home: String,
    },
    /// The queue that letters would go back to is being migrated.
    #[error("the migration of queue {queue:?} is not finished; finish it with the command that began it, then replay")]
    Migrating {
        /// The queue.
        queue: String,
    },
    /// There is no such letter.
    #[error("there is no dead letter {id:?}; `postrider dead list` shows them")]
    NotFound {
        /// The id that was looked for.
        id: String,
    },
    /// There is no such letter, but there is a service of this name.
    #[error("there is no dead letter {id:?}, but a service: is `--service {id}` meant?")]
    IsService {
        /// The id that was looked for.
        id: String,
    },
    /// Several letters have this id where one is needed.
    #[error("{letters} dead letters have the id {id:?}; name one of them by its own: {addresses}")]
    Ambiguous {
        /// The id that was looked for.
        id: String,
        /// How many letters have it.
        letters: u64,
        /// The addresses of the first of them.
        addresses: String,
    },
    /// Not all letters of a queue could be read.
    #[error(
        "{looked_at} letters of {queue:?} were looked at and {done} of them done, {left} were not reached: {reason}; \
         do it again for the rest"
    )]
    NotReached {
        /// The queue.
        queue: String,
        /// How many letters were read.
        looked_at: u64,
        /// How many letters of all queues were listed, deleted or replayed.
        done: u64,
        /// How many letters were there at the beginning and were not read.
        left: u64,
        /// Why.
        reason: String,
    },
    /// The selected letters are too large to return at once.
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
    /// The services' records cannot be read.
    #[error("{0}")]
    Records(String),
}
