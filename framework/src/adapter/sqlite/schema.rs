//! Postrider's tables in a SQLite file, and how they come there.

use sqlx::{AssertSqlSafe, SqliteConnection, raw_sql};

use crate::adapter::sqlite::errors::{Failed, failed};
use crate::store::{StoreError, Tables};

/// What each version of the tables adds to the one before it. The position, counted from 1, is the version.
const VERSIONS: [&str; 2] = [FIRST, SENT];

/// Rows of the inbox are numbered in the order of their handling, so that the oldest are found without an index of times.
const FIRST: &str = "
CREATE TABLE postrider_actors (number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE postrider_inbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    actor INTEGER NOT NULL,
    id BLOB NOT NULL,
    content INTEGER NOT NULL,
    handled_at INTEGER NOT NULL,
    answer BLOB
);
CREATE UNIQUE INDEX postrider_inbox_by_id ON postrider_inbox (actor, id);
CREATE TABLE postrider_outbox (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    address TEXT NOT NULL,
    version INTEGER NOT NULL,
    envelope BLOB NOT NULL,
    written_at REAL NOT NULL,
    parked_because TEXT
);
CREATE INDEX postrider_outbox_parked ON postrider_outbox (namespace, address) WHERE parked_because IS NOT NULL;
CREATE TABLE postrider_leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
";

/// Messages that were sent and are kept for a while.
const SENT: &str = "
CREATE TABLE postrider_sent (
    number INTEGER PRIMARY KEY,
    namespace TEXT NOT NULL,
    address TEXT NOT NULL,
    version INTEGER NOT NULL,
    envelope BLOB NOT NULL,
    written_at REAL NOT NULL,
    sent_at REAL NOT NULL
);
CREATE INDEX postrider_sent_by_time ON postrider_sent (sent_at);
";

/// The newest version of the tables that this release knows.
pub(super) const VERSION: i64 = VERSIONS.len() as i64;

/// Refuses tables that this release cannot use.
pub(super) async fn judge(connection: &mut SqliteConnection, store: &str) -> Result<(), StoreError> {
    let failed = |error| failed(store, Failed::Opening, &error);
    let look = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'postrider_schema'";
    let stands: i64 = sqlx::query_scalar(look).fetch_one(&mut *connection).await.map_err(failed)?;
    let version = if stands > 0 { version(connection).await.map_err(failed)? } else { 0 };
    Tables::AsTheyAre.judge(store, version, VERSION)
}

async fn version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    let look = sqlx::query_scalar("SELECT max(version) FROM postrider_schema").fetch_one(connection);
    look.await.map(|version: Option<i64>| version.unwrap_or(0))
}

/// Brings the tables to this release's version. Of several processes one does it, and the others wait.
pub(super) async fn migrate(connection: &mut SqliteConnection, store: &str) -> Result<(), StoreError> {
    let failed = |error| failed(store, Failed::Migrating, &error);
    raw_sql("BEGIN IMMEDIATE").execute(&mut *connection).await.map_err(failed)?;
    let migrated = migrate_locked(connection, store).await;
    let end = if migrated.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = raw_sql(end).execute(&mut *connection).await;
    migrated?;
    ended.map(drop).map_err(failed)
}

async fn migrate_locked(connection: &mut SqliteConnection, store: &str) -> Result<(), StoreError> {
    let failed = |error| failed(store, Failed::Migrating, &error);
    let create = "CREATE TABLE IF NOT EXISTS postrider_schema (version INTEGER NOT NULL)";
    raw_sql(create).execute(&mut *connection).await.map_err(failed)?;
    let stands = version(&mut *connection).await.map_err(failed)?;
    Tables::Migrate.judge(store, stands, VERSION)?;
    let missing = VERSIONS.iter().zip(1_i64..).filter(|(_, version)| *version > stands);
    for (statements, version) in missing {
        raw_sql(*statements).execute(&mut *connection).await.map_err(failed)?;
        let noted = format!("INSERT INTO postrider_schema (version) VALUES ({version})");
        raw_sql(AssertSqlSafe(noted)).execute(&mut *connection).await.map_err(failed)?;
    }
    Ok(())
}
