//! The outbox in a SQLite file, as the relay sees it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::{AssertSqlSafe, Row, SqliteConnection};
use tokio::sync::Mutex;

use crate::adapter::sqlite::errors::{Failed, failed};
use crate::adapter::sqlite::writer::Writer;
use crate::store::{ListedRow, Outbox, OutboxRow, OutboxStatus, Page, StoreError, StoredRow};

/// The outbox of one namespace. It reads on a connection of its own, which waits for nobody.
pub(super) struct SqliteOutbox {
    pub(super) store: Arc<str>,
    pub(super) namespace: Arc<str>,
    pub(super) writer: Arc<Mutex<Writer>>,
    pub(super) reader: SqliteConnection,
}

impl SqliteOutbox {
    fn failed(&self, error: &sqlx::Error) -> StoreError {
        failed(&self.store, Failed::Working, error)
    }

    fn lease(&self, name: &str) -> String {
        format!("{name} of {}", self.namespace)
    }
}

impl SqliteOutbox {
    async fn one(&mut self, look: &'static str, number: i64) -> Result<Option<StoredRow>, StoreError> {
        let look = sqlx::query(look).bind(&*self.namespace).bind(number);
        let found = look.fetch_optional(&mut self.reader).await;
        found.and_then(|row| row.as_ref().map(stored).transpose()).map_err(|error| self.failed(&error))
    }

    async fn listed(&mut self, look: &'static str, most: usize) -> Result<Vec<ListedRow>, StoreError> {
        let look = sqlx::query(look).bind(&*self.namespace).bind(i64::try_from(most).unwrap_or(i64::MAX));
        let found = look.fetch_all(&mut self.reader).await;
        let read = found.and_then(|rows| rows.iter().map(listed).collect::<Result<Vec<_>, _>>());
        read.map_err(|error| self.failed(&error))
    }
}

impl Outbox for SqliteOutbox {
    fn has_rows(&mut self) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            let look = "SELECT EXISTS (SELECT 1 FROM postrider_outbox WHERE namespace = ? AND parked_because IS NULL)";
            let found = sqlx::query_scalar(look).bind(&*self.namespace).fetch_one(&mut self.reader).await;
            found.map_err(|error| self.failed(&error))
        })
    }

    fn take_lease<'a>(
        &'a mut self,
        name: &'a str,
        holder: &'a str,
        lasts: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let take = "INSERT INTO postrider_leases (name, holder, until) VALUES (?1, ?2, unixepoch('subsec') + ?3)
                ON CONFLICT (name) DO UPDATE SET holder = ?2, until = unixepoch('subsec') + ?3
                WHERE holder = ?2 OR until < unixepoch('subsec') OR until > unixepoch('subsec') + 2 * ?3";
            let mut writer = self.writer.lock().await;
            let take = sqlx::query(take).bind(self.lease(name)).bind(holder).bind(lasts.as_secs_f64());
            let taken = take.execute(writer.connection().await?).await.map_err(|error| self.failed(&error))?;
            Ok(taken.rows_affected() == 1)
        })
    }

    fn give_up_lease<'a>(&'a mut self, name: &'a str, holder: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut writer = self.writer.lock().await;
            let give_up = sqlx::query("DELETE FROM postrider_leases WHERE name = ? AND holder = ?");
            let given_up = give_up.bind(self.lease(name)).bind(holder).execute(writer.connection().await?).await;
            given_up.map(drop).map_err(|error| self.failed(&error))
        })
    }

    fn page<'a>(&'a mut self, page: &'a Page<'a>) -> BoxFuture<'a, Result<Vec<StoredRow>, StoreError>> {
        Box::pin(async move {
            let without =
                if page.without.is_empty() { "" } else { "AND address NOT IN (SELECT value FROM json_each(?3))" };
            // The running sum ends the page where it has enough bytes.
            let look = format!(
                "SELECT number, address, version, envelope, CAST(1000 * (unixepoch('subsec') - written_at) AS INTEGER) FROM (
                    SELECT *, sum(length(envelope)) OVER (ORDER BY number) - length(envelope) AS before FROM (
                        SELECT * FROM postrider_outbox
                        WHERE namespace = ?1 AND parked_because IS NULL {without}
                        ORDER BY number LIMIT ?2))
                WHERE before = 0 OR before < ?4 ORDER BY number"
            );
            let rows = i64::try_from(page.rows).unwrap_or(i64::MAX);
            let bytes = i64::try_from(page.bytes).unwrap_or(i64::MAX);
            let addresses = serde_json::to_string(page.without).unwrap_or_default();
            let look = sqlx::query(AssertSqlSafe(look)).bind(&*self.namespace).bind(rows);
            let found = look.bind(addresses).bind(bytes).fetch_all(&mut self.reader).await;
            let read = found.and_then(|rows| rows.iter().map(stored).collect::<Result<Vec<_>, _>>());
            read.map_err(|error| self.failed(&error))
        })
    }

    fn remove<'a>(&'a mut self, numbers: &'a [i64]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let numbers = serde_json::to_string(numbers).unwrap_or_default();
            let mut writer = self.writer.lock().await;
            let remove = sqlx::query("DELETE FROM postrider_outbox WHERE number IN (SELECT value FROM json_each(?))");
            let removed = remove.bind(numbers).execute(writer.connection().await?).await;
            removed.map(drop).map_err(|error| self.failed(&error))
        })
    }

    fn keep_sent<'a>(&'a mut self, numbers: &'a [i64]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let numbers = serde_json::to_string(numbers).unwrap_or_default();
            // Kept first and removed then: what a crash leaves in both is sent again, and kept once.
            let keep = "INSERT OR IGNORE INTO postrider_sent (number, namespace, address, version, envelope, written_at, sent_at)
                SELECT number, namespace, address, version, envelope, written_at, unixepoch('subsec') FROM postrider_outbox
                WHERE number IN (SELECT value FROM json_each(?))";
            let remove = "DELETE FROM postrider_outbox WHERE number IN (SELECT value FROM json_each(?))";
            let mut writer = self.writer.lock().await;
            for statement in [keep, remove] {
                let done = sqlx::query(statement).bind(&numbers).execute(writer.connection().await?).await;
                done.map_err(|error| self.failed(&error))?;
            }
            Ok(())
        })
    }

    fn sent(&mut self, most: usize) -> BoxFuture<'_, Result<Vec<ListedRow>, StoreError>> {
        Box::pin(async move {
            let look = "SELECT number, address, CAST(unixepoch('subsec') - sent_at AS INTEGER), length(envelope), NULL
                FROM postrider_sent WHERE namespace = ? ORDER BY number DESC LIMIT ?";
            self.listed(look, most).await
        })
    }

    fn park<'a>(&'a mut self, number: i64, reason: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut writer = self.writer.lock().await;
            let park = sqlx::query("UPDATE postrider_outbox SET parked_because = ? WHERE number = ?");
            let parked = park.bind(reason).bind(number).execute(writer.connection().await?).await;
            parked.map(drop).map_err(|error| self.failed(&error))
        })
    }

    fn parked_addresses(&mut self) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        Box::pin(async move {
            let look =
                "SELECT DISTINCT address FROM postrider_outbox WHERE namespace = ? AND parked_because IS NOT NULL";
            let found = sqlx::query_scalar(look).bind(&*self.namespace).fetch_all(&mut self.reader).await;
            found.map_err(|error| self.failed(&error))
        })
    }

    fn status(&mut self) -> BoxFuture<'_, Result<OutboxStatus, StoreError>> {
        Box::pin(async move {
            let look = "SELECT count(*) FILTER (WHERE parked_because IS NULL), count(*) FILTER (WHERE parked_because IS NOT NULL),
                unixepoch('subsec') - min(written_at) FILTER (WHERE parked_because IS NULL) FROM postrider_outbox WHERE namespace = ?";
            let found = sqlx::query(look).bind(&*self.namespace).fetch_one(&mut self.reader).await;
            let read = found.and_then(|row| {
                let (waiting, parked): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
                let oldest: Option<f64> = row.try_get(2)?;
                Ok(OutboxStatus {
                    waiting: waiting.cast_unsigned(),
                    parked: parked.cast_unsigned(),
                    oldest: oldest.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))),
                })
            });
            read.map_err(|error| self.failed(&error))
        })
    }

    fn list(&mut self, most: usize) -> BoxFuture<'_, Result<Vec<ListedRow>, StoreError>> {
        Box::pin(async move {
            let look = "SELECT number, address, CAST(unixepoch('subsec') - written_at AS INTEGER), length(envelope), parked_because
                FROM postrider_outbox WHERE namespace = ? ORDER BY number LIMIT ?";
            self.listed(look, most).await
        })
    }

    fn row(&mut self, number: i64) -> BoxFuture<'_, Result<Option<StoredRow>, StoreError>> {
        Box::pin(async move {
            let look =
                "SELECT number, address, version, envelope, CAST(1000 * (unixepoch('subsec') - written_at) AS INTEGER)
                FROM postrider_outbox WHERE namespace = ? AND number = ?";
            self.one(look, number).await
        })
    }

    fn sent_row(&mut self, number: i64) -> BoxFuture<'_, Result<Option<StoredRow>, StoreError>> {
        Box::pin(async move {
            let look =
                "SELECT number, address, version, envelope, CAST(1000 * (unixepoch('subsec') - sent_at) AS INTEGER)
                FROM postrider_sent WHERE namespace = ? AND number = ?";
            self.one(look, number).await
        })
    }

    fn retry(&mut self, number: Option<i64>) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let mut writer = self.writer.lock().await;
            let retry = "UPDATE postrider_outbox SET parked_because = NULL WHERE namespace = ?1 AND parked_because IS NOT NULL AND (?2 IS NULL OR number = ?2)";
            let retry = sqlx::query(retry).bind(&*self.namespace).bind(number);
            let retried = retry.execute(writer.connection().await?).await;
            Ok(retried.map_err(|error| self.failed(&error))?.rows_affected())
        })
    }

    fn tell_others(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        // SQLite has no way to; the others look by themselves.
        Box::pin(std::future::ready(Ok(())))
    }
}

fn stored(row: &sqlx::sqlite::SqliteRow) -> Result<StoredRow, sqlx::Error> {
    let age: i64 = row.try_get(4)?;
    Ok(StoredRow {
        number: row.try_get(0)?,
        age_millis: u64::try_from(age).unwrap_or(0),
        row: OutboxRow { address: row.try_get(1)?, version: row.try_get(2)?, envelope: row.try_get(3)? },
    })
}

fn listed(row: &sqlx::sqlite::SqliteRow) -> Result<ListedRow, sqlx::Error> {
    let (age, bytes): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
    Ok(ListedRow {
        number: row.try_get(0)?,
        address: row.try_get(1)?,
        age_seconds: u64::try_from(age).unwrap_or(0),
        bytes: u64::try_from(bytes).unwrap_or(0),
        parked_because: row.try_get(4)?,
    })
}
