//! Refuses stores in PostgreSQL databases in a program that was built without them.

use std::sync::Arc;

use crate::store::{Store, StoreError, Tables};

pub(super) async fn open(_: &str, _: Option<&str>, _: &str, _: Tables) -> Result<Arc<dyn Store>, StoreError> {
    let reason =
        "this program was built without postrider's feature `postgres`; add the feature, or leave the address out";
    Err(StoreError::Address { store: "postgres://…".into(), reason: reason.into() })
}
