//! Refuses stores in SQLite files in a program that was built without them.

use std::sync::Arc;
use std::time::Duration;

use crate::store::{Store, StoreError, Tables};

pub(super) async fn open(address: &str, _: &str, _: Duration, _: Tables) -> Result<Arc<dyn Store>, StoreError> {
    let reason =
        "this program was built without postrider's feature `sqlite`; add the feature, or leave the address out";
    Err(StoreError::Address { store: address.to_owned(), reason: reason.into() })
}
