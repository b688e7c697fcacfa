//! What a PostgreSQL database holds, and settings of the server that break a promise.

use std::time::Duration;

use sqlx::{PgConnection, Row};

use crate::adapter::postgres::errors::{Failed, failed};
use crate::store::{InboxStatus, OutboxStatus, StoreError, StoreStatus};

/// What the database holds.
pub(super) async fn status(
    connection: &mut PgConnection,
    store: &str,
    namespace: &str,
    outbox: OutboxStatus,
) -> Result<StoreStatus, StoreError> {
    let read = async {
        let look = "SELECT (SELECT max(version)::bigint FROM postrider_schema),
            (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'postrider_inbox'::regclass),
            pg_total_relation_size('postrider_inbox'),
            (SELECT extract(epoch FROM clock_timestamp() - min(handled_at))::float8 FROM postrider_inbox),
            (SELECT holder FROM postrider_leases WHERE name = 'relay of ' || $1),
            (SELECT extract(epoch FROM clock_timestamp() - min(xact_start))::float8 FROM pg_stat_activity
                WHERE pid <> pg_backend_pid() AND backend_type = 'client backend')";
        let row = sqlx::query(look).bind(namespace).fetch_one(connection).await?;
        let (version, rows, bytes): (i64, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let seconds = |seconds: Option<f64>| seconds.map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
        let oldest = seconds(row.try_get(3)?);
        let inbox = InboxStatus { rows: rows.cast_unsigned(), bytes: bytes.cast_unsigned(), oldest };
        let (relay, longest_transaction) = (row.try_get(4)?, seconds(row.try_get(5)?));
        Ok(StoreStatus { store: store.to_owned(), version, inbox, outbox, relay, longest_transaction })
    };
    read.await.map_err(|error| failed(store, Failed::Working, &error))
}

/// Settings that break a promise.
pub(super) async fn check(connection: &mut PgConnection, store: &str) -> Result<Vec<String>, StoreError> {
    let read = async {
        let mut problems = Vec::new();
        let settings = [
            ("fsync", "a crash of the machine may damage or undo what was committed"),
            ("full_page_writes", "a crash of the machine may damage what was committed"),
            (
                "synchronous_commit",
                "a crash of the server may undo what was committed, and its message is acknowledged already",
            ),
        ];
        for (setting, why) in settings {
            let value: String =
                sqlx::query_scalar("SELECT current_setting($1)").bind(setting).fetch_one(&mut *connection).await?;
            if value == "off" {
                problems.push(format!("{setting} is off: {why}"));
            }
        }
        let look = "SELECT current_setting('max_connections')::bigint - (SELECT count(*) FROM pg_stat_activity)";
        let free: i64 = sqlx::query_scalar(look).fetch_one(&mut *connection).await?;
        if free < 10 {
            problems.push(format!(
                "only {free} connections are free: each handler that runs at once needs one; raise max_connections"
            ));
        }
        Ok(problems)
    };
    read.await.map_err(|error| failed(store, Failed::Working, &error))
}
