//! The store in a SQLite file: one file, one writer, nothing to install.
//!
//! The file is in WAL mode with `synchronous = FULL`: a commit survives a power cut. In each process one connection writes,
//! and whoever asks first gets it first; readers wait for nobody. Between processes SQLite gives the lock to any of them,
//! so a process that waits for longer than the lock limit tries again later, without counting an attempt.

mod errors;
mod outbox;
mod reader;
mod schema;
mod session;
mod statements;
mod status;
mod writer;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
pub use sqlx::Sqlite;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection, raw_sql};
use tokio::sync::Mutex;

use crate::adapter::sqlite::errors::{Failed, failed};
use crate::adapter::sqlite::outbox::SqliteOutbox;
use crate::adapter::sqlite::session::{Names, SqliteSession};
use crate::adapter::sqlite::writer::Writer;
use crate::store::{ActorNumber, Database, News, Outbox, Session, Store, StoreError, StoreStatus, Tables};

impl Database for Sqlite {
    type Connection = SqliteConnection;
    const NAME: &'static str = "sqlite";
}

/// How large the WAL file stays after a checkpoint, in bytes.
const WAL_BYTES: &str = "67108864";

/// A store in a SQLite file.
pub struct SqliteStore {
    shown: Arc<str>,
    namespace: Arc<str>,
    reading: SqliteConnectOptions,
    writer: Arc<Mutex<Writer>>,
}

impl SqliteStore {
    /// Opens the file. `lock` is how long a transaction waits while another process holds the file.
    ///
    /// # Errors
    /// When the address names no file, or the file or its tables cannot be used.
    pub async fn open(address: &str, namespace: &str, lock: Duration, tables: Tables) -> Result<Self, StoreError> {
        let shown: Arc<str> = address.into();
        let wrong = |reason: &str| StoreError::Address { store: address.to_owned(), reason: reason.to_owned() };
        let options = SqliteConnectOptions::from_str(address)
            .map_err(|error| wrong(&format!("{error}; write sqlite:path/to/file.db")))?;
        let file = options.get_filename();
        if file.as_os_str().is_empty() || address.contains(":memory:") || address.contains("mode=memory") {
            return Err(wrong("a store must outlive its process; name a file, as in sqlite:orders.db"));
        }
        if tables == Tables::AsTheyAre && !file.exists() {
            let reason = "there is no such file; a service that starts makes it, and so does `postrider store migrate`";
            return Err(StoreError::Refused { store: address.to_owned(), reason: reason.into() });
        }
        // The file remembers its journal mode.
        let options = match tables {
            Tables::Migrate => options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal),
            Tables::AsTheyAre => options.create_if_missing(false),
        };
        let options = options
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(lock)
            .pragma("journal_size_limit", WAL_BYTES)
            .disable_statement_logging();
        let mut connection =
            SqliteConnection::connect_with(&options).await.map_err(|error| failed(&shown, Failed::Opening, &error))?;
        match tables {
            Tables::Migrate => schema::migrate(&mut connection, &shown).await?,
            Tables::AsTheyAre => schema::judge(&mut connection, &shown).await?,
        }
        connection.close().await.map_err(|error| failed(&shown, Failed::Opening, &error))?;
        let reading = options.clone().pragma("query_only", "ON");
        let writer = Arc::new(Mutex::new(Writer::new(options, Arc::clone(&shown))));
        Ok(Self { shown, namespace: namespace.into(), reading, writer })
    }

    fn failed(&self, error: &sqlx::Error) -> StoreError {
        failed(&self.shown, Failed::Working, error)
    }
}

/// SQLite does not tell of other processes' rows.
struct NoNews;

impl News for NoNews {
    fn next(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(std::future::pending())
    }
}

impl Store for SqliteStore {
    fn database(&self) -> &'static str {
        Sqlite::NAME
    }

    fn describe(&self) -> &str {
        &self.shown
    }

    fn has_one_writer(&self) -> bool {
        true
    }

    fn session(&self) -> BoxFuture<'_, Result<Box<dyn Session>, StoreError>> {
        let names = Names { store: Arc::clone(&self.shown), namespace: Arc::clone(&self.namespace) };
        let session = SqliteSession::new(names, Arc::clone(&self.writer), self.reading.clone());
        Box::pin(std::future::ready(Ok(Box::new(session) as Box<dyn Session>)))
    }

    fn actor<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ActorNumber, StoreError>> {
        Box::pin(async move {
            let name = format!("{}:{name}", self.namespace);
            let insert = "INSERT INTO postrider_actors (name) VALUES (?) ON CONFLICT DO NOTHING";
            let look = "SELECT number FROM postrider_actors WHERE name = ?";
            let mut writer = self.writer.lock().await;
            let connection = writer.connection().await?;
            let number = async {
                // Mostly it is there, and looking takes no lock.
                let found: Option<i16> = sqlx::query_scalar(look).bind(&name).fetch_optional(&mut *connection).await?;
                if let Some(number) = found {
                    return Ok(number);
                }
                sqlx::query(insert).bind(&name).execute(&mut *connection).await?;
                sqlx::query_scalar(look).bind(&name).fetch_one(&mut *connection).await
            };
            number.await.map(ActorNumber).map_err(|error| self.failed(&error))
        })
    }

    fn outbox(&self) -> BoxFuture<'_, Result<Box<dyn Outbox>, StoreError>> {
        Box::pin(async move {
            let reader = SqliteConnection::connect_with(&self.reading).await;
            let reader = reader.map_err(|error| failed(&self.shown, Failed::Opening, &error))?;
            let (store, namespace) = (Arc::clone(&self.shown), Arc::clone(&self.namespace));
            let outbox = SqliteOutbox { store, namespace, writer: Arc::clone(&self.writer), reader };
            Ok(Box::new(outbox) as Box<dyn Outbox>)
        })
    }

    fn news(&self) -> BoxFuture<'_, Result<Box<dyn News>, StoreError>> {
        Box::pin(std::future::ready(Ok(Box::new(NoNews) as Box<dyn News>)))
    }

    fn forget_handled(&self, older: Duration, most: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(async move {
            // The rows are numbered in the order of their handling, so the oldest come first.
            let forget = "DELETE FROM postrider_inbox WHERE handled_at < unixepoch() - ?1 AND number IN
                (SELECT number FROM postrider_inbox ORDER BY number LIMIT ?2)";
            let seconds = i64::try_from(older.as_secs()).unwrap_or(i64::MAX);
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let mut writer = self.writer.lock().await;
            let forgotten = sqlx::query(forget).bind(seconds).bind(most).execute(writer.connection().await?).await;
            let forgotten = forgotten.map_err(|error| self.failed(&error))?;
            Ok(usize::try_from(forgotten.rows_affected()).unwrap_or(usize::MAX))
        })
    }

    fn forget_sent(&self, older: Duration, most: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(async move {
            let forget = "DELETE FROM postrider_sent WHERE number IN
                (SELECT number FROM postrider_sent WHERE sent_at < unixepoch('subsec') - ?1 LIMIT ?2)";
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let mut writer = self.writer.lock().await;
            let forget = sqlx::query(forget).bind(older.as_secs_f64()).bind(most);
            let forgotten = forget.execute(writer.connection().await?).await;
            let forgotten = forgotten.map_err(|error| self.failed(&error))?;
            Ok(usize::try_from(forgotten.rows_affected()).unwrap_or(usize::MAX))
        })
    }

    fn prepare<'a>(&'a self, statements: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut writer = self.writer.lock().await;
            let text = AssertSqlSafe(format!("BEGIN IMMEDIATE; {statements}\n; COMMIT"));
            let prepared = raw_sql(text).execute(writer.connection().await?).await;
            if prepared.is_err() {
                // The transaction may be open.
                writer.close();
            }
            prepared.map(drop).map_err(|error| failed(&self.shown, Failed::Preparing, &error))
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<StoreStatus, StoreError>> {
        Box::pin(async move {
            let outbox = self.outbox().await?.status().await?;
            let mut connection =
                SqliteConnection::connect_with(&self.reading).await.map_err(|error| self.failed(&error))?;
            status::status(&mut connection, &self.shown, &self.namespace, outbox).await
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        Box::pin(async move {
            let mut connection =
                SqliteConnection::connect_with(&self.reading).await.map_err(|error| self.failed(&error))?;
            status::check(&mut connection, &self.shown).await
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.writer.lock().await.close() })
    }
}
