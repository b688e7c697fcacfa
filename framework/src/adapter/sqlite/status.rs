//! What a SQLite file holds, and settings of it that break a promise.

use std::time::Duration;

use sqlx::{Row, SqliteConnection};

use crate::adapter::sqlite::errors::{Failed, failed};
use crate::store::{InboxStatus, OutboxStatus, StoreError, StoreStatus};

/// What the file holds.
pub(super) async fn status(
    connection: &mut SqliteConnection,
    store: &str,
    namespace: &str,
    outbox: OutboxStatus,
) -> Result<StoreStatus, StoreError> {
    let read = async {
        let look = "SELECT (SELECT max(version) FROM postrider_schema), (SELECT count(*) FROM postrider_inbox),
            (SELECT sum(pgsize) FROM dbstat WHERE name IN ('postrider_inbox', 'postrider_inbox_by_id')),
            (SELECT unixepoch() - handled_at FROM postrider_inbox ORDER BY number LIMIT 1),
            (SELECT holder FROM postrider_leases WHERE name = 'relay of ' || ?)";
        let row = sqlx::query(look).bind(namespace).fetch_one(connection).await?;
        let (version, rows): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let (bytes, oldest): (Option<i64>, Option<i64>) = (row.try_get(2)?, row.try_get(3)?);
        let oldest = oldest.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        let inbox = InboxStatus { rows: rows.cast_unsigned(), bytes: bytes.unwrap_or(0).cast_unsigned(), oldest };
        let relay = row.try_get(4)?;
        Ok(StoreStatus { store: store.to_owned(), version, inbox, outbox, relay, longest_transaction: None })
    };
    read.await.map_err(|error| failed(store, Failed::Working, &error))
}

/// Settings that break a promise. Ours are set on every connection, so only what is kept in the file can be wrong.
pub(super) async fn check(connection: &mut SqliteConnection, store: &str) -> Result<Vec<String>, StoreError> {
    let read = async {
        let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *connection).await?;
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut *connection).await?;
        let damage: String = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut *connection).await?;
        let mut problems = Vec::new();
        if mode != "wal" {
            problems.push(format!(
                "journal_mode is {mode:?}: readers and the writer wait for each other; is the file on a network disk?"
            ));
        }
        if synchronous < 2 {
            problems.push("synchronous is below FULL: a power cut may undo what was committed".to_owned());
        }
        if damage != "ok" {
            problems.push(format!("the file is damaged: {damage}; restore a copy of it"));
        }
        Ok(problems)
    };
    read.await.map_err(|error| failed(store, Failed::Working, &error))
}
