//! Opens stores in PostgreSQL databases.

use std::sync::Arc;

use crate::adapter::postgres::PgStore;
use crate::store::{Store, StoreError, Tables};

pub(super) async fn open(
    address: &str,
    pooler: Option<&str>,
    namespace: &str,
    tables: Tables,
) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(PgStore::open(address, pooler, namespace, tables).await?))
}
