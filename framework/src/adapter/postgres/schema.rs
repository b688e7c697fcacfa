//! Postrider's tables in a PostgreSQL database, and how they come there.

use sqlx::{AssertSqlSafe, PgConnection, raw_sql};

use crate::adapter::postgres::errors::{Failed, failed};
use crate::store::{StoreError, Tables};

/// What each version of the tables adds to the one before it. The position, counted from 1, is the version.
const VERSIONS: [&str; 2] = [FIRST, SENT];

/// The order of the inbox's columns leaves no gaps in its rows. Its times have an index that takes a few bytes for a thousand rows.
const FIRST: &str = "
CREATE TABLE postrider_actors (number smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL UNIQUE);
CREATE TABLE postrider_inbox (
    content bigint NOT NULL,
    handled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor smallint NOT NULL,
    id bytea NOT NULL,
    answer bytea,
    PRIMARY KEY (actor, id)
);
CREATE INDEX postrider_inbox_by_time ON postrider_inbox USING brin (handled_at) WITH (pages_per_range = 32, autosummarize = on);
CREATE TABLE postrider_outbox (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    written_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    version smallint NOT NULL,
    namespace text NOT NULL,
    address text NOT NULL,
    envelope bytea NOT NULL,
    parked_because text
);
CREATE INDEX postrider_outbox_parked ON postrider_outbox (namespace, address) WHERE parked_because IS NOT NULL;
CREATE TABLE postrider_leases (name text PRIMARY KEY, holder text NOT NULL, until timestamptz NOT NULL);
";

/// Messages that were sent and are kept for a while.
const SENT: &str = "
CREATE TABLE postrider_sent (
    number bigint PRIMARY KEY,
    written_at timestamptz NOT NULL,
    sent_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    version smallint NOT NULL,
    namespace text NOT NULL,
    address text NOT NULL,
    envelope bytea NOT NULL
);
CREATE INDEX postrider_sent_by_time ON postrider_sent USING brin (sent_at) WITH (pages_per_range = 32, autosummarize = on);
";

/// The newest version of the tables that this release knows.
pub(super) const VERSION: i32 = VERSIONS.len() as i32;

/// Any number that others hardly use: whoever migrates holds this advisory lock.
pub(super) const LOCK: i64 = 0x706f_7374_7269_6465;

/// Refuses tables that this release cannot use.
pub(super) async fn judge(connection: &mut PgConnection, store: &str) -> Result<(), StoreError> {
    let version = version(connection).await.map_err(|error| failed(store, Failed::Opening, &error))?;
    Tables::AsTheyAre.judge(store, version.unwrap_or(0).into(), VERSION.into())
}

/// The version of the tables; `None` if there are none.
async fn version(connection: &mut PgConnection) -> Result<Option<i32>, sqlx::Error> {
    // Looking needs no right to create tables.
    let look = "SELECT to_regclass('postrider_schema') IS NOT NULL";
    if !sqlx::query_scalar(look).fetch_one(&mut *connection).await? {
        return Ok(None);
    }
    let look = sqlx::query_scalar("SELECT max(version) FROM postrider_schema").fetch_one(connection);
    look.await.map(|version: Option<i32>| Some(version.unwrap_or(0)))
}

/// Brings the tables to this release's version. Of several processes one does it, and the others wait.
pub(super) async fn migrate(connection: &mut PgConnection, store: &str) -> Result<(), StoreError> {
    let failed = |error| failed(store, Failed::Migrating, &error);
    let begin = format!("BEGIN; SELECT pg_advisory_xact_lock({LOCK})");
    raw_sql(AssertSqlSafe(begin)).execute(&mut *connection).await.map_err(failed)?;
    let migrated = migrate_locked(connection, store).await;
    let end = if migrated.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = raw_sql(end).execute(&mut *connection).await;
    migrated?;
    ended.map(drop).map_err(failed)
}

async fn migrate_locked(connection: &mut PgConnection, store: &str) -> Result<(), StoreError> {
    let failed = |error| failed(store, Failed::Migrating, &error);
    let stands = version(&mut *connection).await.map_err(failed)?;
    if stands.is_none() {
        let create = "CREATE TABLE postrider_schema (version integer NOT NULL)";
        raw_sql(create).execute(&mut *connection).await.map_err(failed)?;
    }
    let version = stands.unwrap_or(0);
    Tables::Migrate.judge(store, version.into(), VERSION.into())?;
    let missing = VERSIONS.iter().zip(1_i32..).filter(|(_, added)| *added > version);
    for (statements, added) in missing {
        let all = format!("{statements}; INSERT INTO postrider_schema (version) VALUES ({added})");
        raw_sql(AssertSqlSafe(all)).execute(&mut *connection).await.map_err(failed)?;
    }
    Ok(())
}
