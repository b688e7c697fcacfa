//! The registry: the few things that all processes of a namespace know beside messages, and that outlive them.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::broker::{BrokerError, Claim};

/// Claims, notes and counts that all processes of a namespace share. A name in it is one that [`Names`](crate::broker::Names) makes, or
/// that of a queue with a word behind it.
///
/// All methods are cancel safe: what is read stays, and a dropped change has either happened or not.
pub trait Registry: Send + Sync {
    /// The claims that were ever declared. A released one may still be among them; [`Broker::absent`](crate::broker::Broker::absent)
    /// and [`Broker::compare`](crate::broker::Broker::compare) tell.
    ///
    /// # Errors
    /// When the broker cannot be reached, or does not let this user read.
    fn claims(&self) -> BoxFuture<'_, Result<BTreeSet<Claim>, BrokerError>>;

    /// The note under a name; `None` if there is none.
    ///
    /// # Errors
    /// When the broker cannot be reached, or does not let this user read.
    fn note<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Bytes>, BrokerError>>;

    /// Replaces a note, unless somebody else has changed it: `expected` is what [`Registry::note`] gave. Whether it was replaced. Of
    /// two processes that replace the same note, one is told `false`. Of two that both write the first one, a broker may tell
    /// `true` to both; then the later one stands.
    ///
    /// # Errors
    /// When the broker cannot be reached, or does not let this user write. Then the note may or may not be replaced.
    fn set_note<'a>(
        &'a self,
        name: &'a str,
        expected: Option<&'a [u8]>,
        value: Bytes,
    ) -> BoxFuture<'a, Result<bool, BrokerError>>;

    /// How much has been counted under a name; 0 if nothing was.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    fn count<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<u64, BrokerError>>;

    /// Counts one more under a name. The count is forgotten when nobody has used it for so long.
    ///
    /// # Errors
    /// When the broker cannot be reached, or does not let this user write. Then one more may have been counted.
    fn count_one<'a>(&'a self, name: &'a str, unused_for: Duration) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Counts one less, and never less than none.
    ///
    /// # Errors
    /// When the broker cannot be reached, or does not let this user read.
    fn uncount_one<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), BrokerError>>;

    /// Forgets a count.
    ///
    /// # Errors
    /// When the broker cannot be reached, or refuses.
    fn forget_count<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), BrokerError>>;
}
