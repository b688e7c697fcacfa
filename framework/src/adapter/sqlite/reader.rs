//! A connection that only reads a SQLite file. It waits for nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

use crate::adapter::sqlite::writer::STEPS_BETWEEN_LOOKS;

/// A reading connection. Dropping it ends its statement.
pub(super) struct Reader {
    pub(super) connection: Box<SqliteConnection>,
    /// Set while a running statement is to end.
    pub(super) interrupt: Arc<AtomicBool>,
}

impl Reader {
    pub(super) async fn connect(options: &SqliteConnectOptions) -> Result<Self, sqlx::Error> {
        let mut connection = Box::new(SqliteConnection::connect_with(options).await?);
        let interrupt = Arc::new(AtomicBool::new(false));
        let looked_at = Arc::clone(&interrupt);
        let mut handle = connection.lock_handle().await?;
        handle.set_progress_handler(STEPS_BETWEEN_LOOKS, move || !looked_at.load(Ordering::Acquire));
        drop(handle);
        Ok(Self { connection, interrupt })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.interrupt.store(true, Ordering::Release);
    }
}
