//! The registry: data that all processes of a namespace share apart from messages, and that outlives them.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::broker::{BrokerError, Claim};

/// Claims, notes and counts that all processes of a namespace share. A name is one that [`Names`](crate::broker::Names)
/// makes, or a queue's name followed by a word.
///
/// All methods are cancel safe: reading changes nothing, and a dropped change has either happened or not.
pub trait Registry: Send + Sync {
    /// All claims ever declared. A released claim may still be listed; check with
    /// [`Broker::absent`](crate::broker::Broker::absent) and [`Broker::compare`](crate::broker::Broker::compare).
    ///
    /// # Errors
    /// When the broker cannot be reached, or does not let this user read.
    fn claims(&self) -> BoxFuture<'_, Result<BTreeSet<Claim>, BrokerError>>;

    /// Adds claims that have been declared to those that [`Registry::claims`] gives.
    ///
    /// # Errors
    /// When the broker cannot be reached, or does not let this user write. An unlisted claim is still valid.
    fn list_claims<'a>(&'a self, claims: &'a [Claim]) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// The note under a name; `None` if there is none.
    ///
    /// # Errors
    /// When the broker cannot be reached, or does not let this user read.
    fn note<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, BrokerError>>;

    /// Replaces a note, unless it has changed: `expected` is the value that [`Registry::note`] returned. Returns
    /// whether it was replaced. Of two processes that replace the same note, one gets `false`. If two write the first
    /// note at the same time, a broker may return `true` to both; then the later one stays.
    ///
    /// # Errors
    /// When the broker cannot be reached, or does not let this user write. Then the note may or may not be replaced.
    fn set_note<'a>(
        &'a self,
        name: &'a str,
        expected: Option<&'a [u8]>,
        value: Bytes,
    ) -> BoxFuture<'a, Result<bool, BrokerError>>;

    /// The count under a name; 0 if nothing was counted.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    fn count<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<u64, BrokerError>>;

    /// Adds one to the count under a name. The broker forgets the count after `unused_for` without use.
    ///
    /// # Errors
    /// When the broker cannot be reached, or does not let this user write. The count may have grown all the same.
    fn count_one<'a>(&'a self, name: &'a str, unused_for: Duration) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Subtracts one from the count, but never below zero.
    ///
    /// # Errors
    /// When the broker cannot be reached, or does not let this user read.
    fn uncount_one<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Deletes a count.
    ///
    /// # Errors
    /// When the broker cannot be reached, or refuses.
    fn forget_count<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), BrokerError>>;
}
