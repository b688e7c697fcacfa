//! Opens stores in SQLite files.

use std::sync::Arc;
use std::time::Duration;

use crate::adapter::sqlite::SqliteStore;
use crate::store::{Store, StoreError};

pub(super) async fn open(address: &str, namespace: &str, lock: Duration) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(SqliteStore::open(address, namespace, lock).await?))
}
