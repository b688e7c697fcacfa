//! Opens stores in SQLite files.

use std::sync::Arc;
use std::time::Duration;

use crate::adapter::sqlite::SqliteStore;
use crate::store::{Store, StoreError, Tables};

pub(super) async fn open(
    address: &str,
    namespace: &str,
    lock: Duration,
    tables: Tables,
) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(SqliteStore::open(address, namespace, lock, tables).await?))
}
