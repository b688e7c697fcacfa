//! The outbox in a PostgreSQL database, as the relay sees it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::{PgConnection, Row};
use xxhash_rust::xxh3::xxh3_64;

use crate::adapter::postgres::errors::{Failed, failed};
use crate::store::{ListedRow, Outbox, OutboxRow, OutboxStatus, Page, StoreError, StoredRow};

/// The most bytes of a name.
const LONGEST_NAME: usize = 63;
/// After so many removed rows the lower bound is moved up.
const ROWS_BETWEEN_BOUNDS: usize = 1_000;

/// The outbox of one namespace.
///
/// Rows that were removed stay in the table and its index until no older snapshot needs them. A look that began at the start of the
/// index would go through all of them, so it begins at a lower bound. The bound moves only over numbers that no transaction can commit
/// any more: whoever has taken a number holds a lock on the table until the end of its transaction.
pub(super) struct PgOutbox {
    pub(super) store: Arc<str>,
    pub(super) namespace: Arc<str>,
    pub(super) connection: PgConnection,
    bound: i64,
    next_bound: Option<(i64, Vec<String>)>,
    removed: usize,
}

impl PgOutbox {
    pub(super) fn new(store: Arc<str>, namespace: Arc<str>, connection: PgConnection) -> Self {
        Self { store, namespace, connection, bound: 0, next_bound: None, removed: 0 }
    }

    fn failed(&self, error: &sqlx::Error) -> StoreError {
        failed(&self.store, Failed::Working, error)
    }

    /// The transactions that may have taken a number in the outbox and are not committed.
    async fn writers(&mut self) -> Result<Vec<String>, sqlx::Error> {
        let look = "SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation'
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND relation = 'postrider_outbox'::regclass AND mode = 'RowExclusiveLock' AND virtualtransaction <> (
                SELECT virtualtransaction FROM pg_locks WHERE pid = pg_backend_pid() LIMIT 1)";
        sqlx::query_scalar(look).fetch_all(&mut self.connection).await
    }

    /// Moves the bound up, if the transactions it waits for have ended. Each statement sees what was committed before it.
    async fn move_bound(&mut self) -> Result<(), sqlx::Error> {
        let (highest, waits_for) = match self.next_bound.take() {
            Some(next) => next,
            None => {
                let look = "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('postrider_outbox', 'number')::regclass), 0)";
                let highest: i64 = sqlx::query_scalar(look).fetch_one(&mut self.connection).await?;
                (highest, self.writers().await?)
            }
        };
        if !waits_for.is_empty() {
            let open = self.writers().await?;
            let waits_for: Vec<String> = waits_for.into_iter().filter(|writer| open.contains(writer)).collect();
            if !waits_for.is_empty() {
                self.next_bound = Some((highest, waits_for));
                return Ok(());
            }
        }
        let look = "SELECT min(number) FROM postrider_outbox WHERE number > $1 AND number <= $2";
        let lowest: Option<i64> =
            sqlx::query_scalar(look).bind(self.bound).bind(highest).fetch_one(&mut self.connection).await?;
        self.bound = lowest.map_or(highest, |lowest| lowest - 1).max(self.bound);
        self.removed = 0;
        Ok(())
    }
}

impl PgOutbox {
    async fn take_out(&mut self, statement: &'static str, numbers: &[i64]) -> Result<(), sqlx::Error> {
        sqlx::query(statement).bind(numbers).execute(&mut self.connection).await?;
        self.removed += numbers.len();
        if self.removed >= ROWS_BETWEEN_BOUNDS {
            self.move_bound().await?;
        }
        Ok(())
    }
}

impl PgOutbox {
    async fn one(&mut self, look: &'static str, number: i64) -> Result<Option<StoredRow>, StoreError> {
        let look = sqlx::query(look).bind(&*self.namespace).bind(number);
        let found = look.fetch_optional(&mut self.connection).await;
        found.and_then(|row| row.as_ref().map(stored).transpose()).map_err(|error| self.failed(&error))
    }

    async fn listed(&mut self, look: &'static str, most: usize) -> Result<Vec<ListedRow>, StoreError> {
        let look = sqlx::query(look).bind(&*self.namespace).bind(i64::try_from(most).unwrap_or(i64::MAX));
        let found = look.fetch_all(&mut self.connection).await;
        let read = found.and_then(|rows| rows.iter().map(listed).collect::<Result<Vec<_>, _>>());
        read.map_err(|error| self.failed(&error))
    }
}

impl Outbox for PgOutbox {
    fn has_rows(&mut self) -> BoxFuture<'_, Result<bool, StoreError>> {
        Box::pin(async move {
            if self.removed >= ROWS_BETWEEN_BOUNDS {
                self.move_bound().await.map_err(|error| self.failed(&error))?;
            }
            let look = "SELECT EXISTS (SELECT 1 FROM postrider_outbox WHERE number > $1 AND namespace = $2 AND parked_because IS NULL)";
            let found = sqlx::query_scalar(look).bind(self.bound).bind(&*self.namespace);
            found.fetch_one(&mut self.connection).await.map_err(|error| self.failed(&error))
        })
    }

    fn take_lease<'a>(
        &'a mut self,
        name: &'a str,
        holder: &'a str,
        lasts: Duration,
    ) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(async move {
            let take = "INSERT INTO postrider_leases AS lease (name, holder, until)
                VALUES ($1, $2, clock_timestamp() + make_interval(secs => $3))
                ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until
                WHERE lease.holder = excluded.holder OR lease.until < clock_timestamp()
                    OR lease.until > clock_timestamp() + make_interval(secs => 2 * $3)";
            let take = sqlx::query(take).bind(format!("{name} of {}", self.namespace)).bind(holder);
            let taken = take.bind(lasts.as_secs_f64()).execute(&mut self.connection).await;
            Ok(taken.map_err(|error| self.failed(&error))?.rows_affected() == 1)
        })
    }

    fn give_up_lease<'a>(&'a mut self, name: &'a str, holder: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let give_up = sqlx::query("DELETE FROM postrider_leases WHERE name = $1 AND holder = $2");
            let give_up = give_up.bind(format!("{name} of {}", self.namespace)).bind(holder);
            give_up.execute(&mut self.connection).await.map(drop).map_err(|error| self.failed(&error))
        })
    }

    fn page<'a>(&'a mut self, page: &'a Page<'a>) -> BoxFuture<'a, Result<Vec<StoredRow>, StoreError>> {
        Box::pin(async move {
            // The running sum ends the page where it has enough bytes.
            let look = "SELECT number, address, version, envelope, age FROM (
                    SELECT *, sum(length(envelope)) OVER (ORDER BY number) - length(envelope) AS before,
                        (1000 * extract(epoch FROM clock_timestamp() - written_at))::bigint AS age
                    FROM (SELECT * FROM postrider_outbox
                        WHERE number > $1 AND namespace = $2 AND parked_because IS NULL AND NOT address = ANY ($3)
                        ORDER BY number LIMIT $4) AS page) AS summed
                WHERE before = 0 OR before < $5 ORDER BY number";
            let rows = i64::try_from(page.rows).unwrap_or(i64::MAX);
            let bytes = i64::try_from(page.bytes).unwrap_or(i64::MAX);
            let look = sqlx::query(look).bind(self.bound).bind(&*self.namespace).bind(page.without);
            let found = look.bind(rows).bind(bytes).fetch_all(&mut self.connection).await;
            let read = found.and_then(|rows| rows.iter().map(stored).collect::<Result<Vec<_>, _>>());
            read.map_err(|error| self.failed(&error))
        })
    }

    fn remove<'a>(&'a mut self, numbers: &'a [i64]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            // A removal that a crash undoes repeats a message and loses none, so nobody waits for the disk.
            let remove = "WITH quick AS (SELECT set_config('synchronous_commit', 'off', true))
                DELETE FROM postrider_outbox USING quick WHERE number = ANY ($1)";
            self.take_out(remove, numbers).await.map_err(|error| self.failed(&error))
        })
    }

    fn keep_sent<'a>(&'a mut self, numbers: &'a [i64]) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            // As for a removal. What a crash undoes is sent again, and kept once.
            let keep = "WITH quick AS (SELECT set_config('synchronous_commit', 'off', true)), sent AS (
                    DELETE FROM postrider_outbox USING quick WHERE number = ANY ($1)
                    RETURNING number, written_at, version, namespace, address, envelope)
                INSERT INTO postrider_sent (number, written_at, version, namespace, address, envelope)
                SELECT * FROM sent ON CONFLICT DO NOTHING";
            self.take_out(keep, numbers).await.map_err(|error| self.failed(&error))
        })
    }

    fn sent(&mut self, most: usize) -> BoxFuture<'_, Result<Vec<ListedRow>, StoreError>> {
        Box::pin(async move {
            let look = "SELECT number, address, extract(epoch FROM clock_timestamp() - sent_at)::bigint, length(envelope)::bigint,
                NULL::text FROM postrider_sent WHERE namespace = $1 ORDER BY number DESC LIMIT $2";
            self.listed(look, most).await
        })
    }

    fn park<'a>(&'a mut self, number: i64, reason: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let park = sqlx::query("UPDATE postrider_outbox SET parked_because = $1 WHERE number = $2");
            let parked = park.bind(reason.replace('\0', " ")).bind(number).execute(&mut self.connection).await;
            parked.map(drop).map_err(|error| self.failed(&error))
        })
    }

    fn parked_addresses(&mut self) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        Box::pin(async move {
            let look =
                "SELECT DISTINCT address FROM postrider_outbox WHERE namespace = $1 AND parked_because IS NOT NULL";
            let found = sqlx::query_scalar(look).bind(&*self.namespace).fetch_all(&mut self.connection).await;
            found.map_err(|error| self.failed(&error))
        })
    }

    fn status(&mut self) -> BoxFuture<'_, Result<OutboxStatus, StoreError>> {
        Box::pin(async move {
            let look = "SELECT count(*) FILTER (WHERE parked_because IS NULL), count(*) FILTER (WHERE parked_because IS NOT NULL),
                extract(epoch FROM clock_timestamp() - min(written_at) FILTER (WHERE parked_because IS NULL))::float8
                FROM postrider_outbox WHERE namespace = $1";
            let found = sqlx::query(look).bind(&*self.namespace).fetch_one(&mut self.connection).await;
            let read = found.and_then(|row| {
                let (waiting, parked): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
                let oldest: Option<f64> = row.try_get(2)?;
                Ok(OutboxStatus {
                    waiting: waiting.cast_unsigned(),
                    parked: parked.cast_unsigned(),
                    oldest: oldest.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()),
                })
            });
            read.map_err(|error| self.failed(&error))
        })
    }

    fn list(&mut self, most: usize) -> BoxFuture<'_, Result<Vec<ListedRow>, StoreError>> {
        Box::pin(async move {
            let look = "SELECT number, address, extract(epoch FROM clock_timestamp() - written_at)::bigint, length(envelope)::bigint,
                parked_because FROM postrider_outbox WHERE namespace = $1 ORDER BY number LIMIT $2";
            self.listed(look, most).await
        })
    }

    fn row(&mut self, number: i64) -> BoxFuture<'_, Result<Option<StoredRow>, StoreError>> {
        Box::pin(async move {
            let look = "SELECT number, address, version, envelope, (1000 * extract(epoch FROM clock_timestamp() - written_at))::bigint
                FROM postrider_outbox WHERE namespace = $1 AND number = $2";
            self.one(look, number).await
        })
    }

    fn sent_row(&mut self, number: i64) -> BoxFuture<'_, Result<Option<StoredRow>, StoreError>> {
        Box::pin(async move {
            let look = "SELECT number, address, version, envelope, (1000 * extract(epoch FROM clock_timestamp() - sent_at))::bigint
                FROM postrider_sent WHERE namespace = $1 AND number = $2";
            self.one(look, number).await
        })
    }

    fn retry(&mut self, number: Option<i64>) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(async move {
            let retry = "UPDATE postrider_outbox SET parked_because = NULL WHERE namespace = $1 AND parked_because IS NOT NULL AND ($2 IS NULL OR number = $2)";
            let retried = sqlx::query(retry).bind(&*self.namespace).bind(number).execute(&mut self.connection).await;
            Ok(retried.map_err(|error| self.failed(&error))?.rows_affected())
        })
    }

    fn tell_others(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            let tell = sqlx::query("SELECT pg_notify($1, '')").bind(channel(&self.namespace));
            tell.execute(&mut self.connection).await.map(drop).map_err(|error| self.failed(&error))
        })
    }
}

/// The channel on which processes tell each other of new rows.
pub(super) fn channel(namespace: &str) -> String {
    // A channel has a name of at most 63 bytes.
    let name = format!("postrider_{}", namespace.replace('-', "_"));
    if name.len() <= LONGEST_NAME { name } else { format!("postrider_{:016x}", xxh3_64(namespace.as_bytes())) }
}

fn stored(row: &sqlx::postgres::PgRow) -> Result<StoredRow, sqlx::Error> {
    let age: i64 = row.try_get(4)?;
    Ok(StoredRow {
        number: row.try_get(0)?,
        age_millis: u64::try_from(age).unwrap_or(0),
        row: OutboxRow { address: row.try_get(1)?, version: row.try_get(2)?, envelope: row.try_get(3)? },
    })
}

fn listed(row: &sqlx::postgres::PgRow) -> Result<ListedRow, sqlx::Error> {
    let (age, bytes): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
    Ok(ListedRow {
        number: row.try_get(0)?,
        address: row.try_get(1)?,
        age_seconds: u64::try_from(age).unwrap_or(0),
        bytes: u64::try_from(bytes).unwrap_or(0),
        parked_because: row.try_get(4)?,
    })
}
