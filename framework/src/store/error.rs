//! What can go wrong with a store.

/// Why a store did not do what it was asked to. No text shows a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The address is not one.
    #[error("store {store}: {reason}")]
    Address {
        /// The address, without its password.
        store: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The database does not answer, is read-only, full or locked by somebody else. Trying again may help.
    #[error("store {store}: {reason}")]
    Unavailable {
        /// The store.
        store: String,
        /// What the database says, and what to do.
        reason: String,
    },
    /// The database refuses for good: the user, a right, or its tables.
    #[error("store {store}: {reason}")]
    Refused {
        /// The store.
        store: String,
        /// What the database says, and what to do.
        reason: String,
    },
    /// Another transaction was in the way; the same work may succeed at once.
    #[error("store {store}: another transaction was in the way: {reason}")]
    Conflict {
        /// The store.
        store: String,
        /// What the database says.
        reason: String,
    },
    /// Another transaction held a lock for longer than the limit. It may handle the same message.
    #[error("store {store}: another transaction holds the lock: {reason}")]
    Locked {
        /// The store.
        store: String,
        /// What the database says.
        reason: String,
    },
    /// The database refused at the commit what the handler wrote, for example because of a deferred constraint.
    #[error("the commit failed: {reason}")]
    Constraint {
        /// What the database says.
        reason: String,
    },
    /// The transaction was over before the handler was.
    #[error("the handler's transaction was over before its commit, so nothing it wrote was kept: {reason}")]
    Ended {
        /// How it ended.
        reason: String,
    },
    /// The connection was lost at the commit: whether it took place is not known.
    #[error("store {store}: the answer to a commit was lost: {reason}")]
    Unknown {
        /// The store.
        store: String,
        /// Why.
        reason: String,
    },
}

impl StoreError {
    /// Whether trying again cannot help.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        matches!(self, Self::Address { .. } | Self::Refused { .. })
    }
}
