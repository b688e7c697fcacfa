//! Transactions of handlers in a PostgreSQL database.

use std::any::Any;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Row, raw_sql};
use sqlx_core::transaction::TransactionManager;
use tokio::time::timeout;

use crate::adapter::postgres::errors::{Failed, failed, is_conflict, is_there_already};
use crate::adapter::postgres::text::{bytes, literal};
use crate::store::{
    Access, Begun, FaultPoint, InboxEntry, IsConflict, OutboxRow, Session, StoreError, StoredAnswer, TransactionLimits,
    reach,
};

type Transactions = <Postgres as sqlx::Database>::TransactionManager;

/// The most bytes of rows that are written into the text of the commit; more are sent in binary, which takes a round trip more.
const BYTES_IN_TEXT: usize = 64 * 1024;
/// The most rows in one statement.
const ROWS_AT_ONCE: usize = 1_000;
/// How long a rollback may take before the statement in front of it is cancelled.
const ROLL_BACK_FOR: Duration = Duration::from_millis(100);
/// How long cancelling a statement may take.
const CANCEL_FOR: Duration = Duration::from_secs(2);
/// How much later than the handler's own time limit the server ends a statement. Mostly we cancel it; the server's limit is for a
/// process that cannot.
const SERVER_LATER: Duration = Duration::from_millis(500);
/// Fails if the transaction that began with `postrider.open` is over: a setting of a transaction ends with it.
const GUARD: &str = "SELECT 1 / (coalesce(current_setting('postrider.open', true), '') = 'on')::int;";

/// A connection, opened on the thread that uses it, since that thread serves its socket.
pub(super) struct PgSession {
    pub(super) store: Arc<str>,
    pub(super) namespace: Arc<str>,
    pub(super) options: PgConnectOptions,
    connection: PgConnection,
    /// The server's process behind the connection.
    process: i32,
    open: Option<Access>,
    /// Whether the connection can be used again.
    usable: bool,
    entry: Option<InboxEntry>,
}

impl PgSession {
    pub(super) async fn open(
        store: Arc<str>,
        namespace: Arc<str>,
        options: PgConnectOptions,
    ) -> Result<Self, StoreError> {
        let connecting = async {
            let mut connection = PgConnection::connect_with(&options).await?;
            // From now on the client counts one open transaction, so that a `begin` of a handler makes a savepoint. We begin and
            // commit with statements of our own, since they can do more in one round trip.
            Transactions::begin(&mut connection, None).await?;
            let process = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
            raw_sql("ROLLBACK").execute(&mut connection).await?;
            Ok((connection, process))
        };
        let (connection, process) = connecting.await.map_err(|error| failed(&store, Failed::Opening, &error))?;
        Ok(Self { store, namespace, options, connection, process, open: None, usable: true, entry: None })
    }

    fn failed(&self, doing: Failed, error: &sqlx::Error) -> StoreError {
        failed(&self.store, doing, error)
    }

    async fn run(&mut self, text: String) -> Result<(), sqlx::Error> {
        raw_sql(AssertSqlSafe(text)).execute(&mut self.connection).await.map(drop)
    }

    /// Whether the client still counts one open transaction. If not, the handler has left one open, or ended ours.
    fn is_in_order(&self) -> bool {
        Transactions::get_transaction_depth(&self.connection) == 1
    }

    async fn write_rows(&mut self, rows: &[OutboxRow]) -> Result<(), sqlx::Error> {
        for rows in rows.chunks(ROWS_AT_ONCE) {
            let insert = "INSERT INTO postrider_outbox (namespace, address, version, envelope)
                SELECT $1, * FROM unnest($2::text[], $3::smallint[], $4::bytea[])";
            let addresses: Vec<String> = rows.iter().map(|row| row.address.replace('\0', "\u{fffd}")).collect();
            let versions: Vec<i16> = rows.iter().map(|row| row.version).collect();
            let envelopes: Vec<&[u8]> = rows.iter().map(|row| &row.envelope[..]).collect();
            let insert = sqlx::query(insert).bind(&*self.namespace).bind(addresses).bind(versions).bind(envelopes);
            insert.execute(&mut self.connection).await?;
        }
        Ok(())
    }

    /// Writes the rows: into the text where they are small, else at once.
    async fn rows_into(&mut self, text: &mut String, rows: &[OutboxRow]) -> Result<(), sqlx::Error> {
        if rows.is_empty() {
            return Ok(());
        }
        if rows.iter().map(|row| row.envelope.len()).sum::<usize>() > BYTES_IN_TEXT || rows.len() > ROWS_AT_ONCE {
            return self.write_rows(rows).await;
        }
        text.push_str("INSERT INTO postrider_outbox (namespace, address, version, envelope) VALUES ");
        for (number, row) in rows.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            let (namespace, address) = (literal(&self.namespace), literal(&row.address));
            let _ = write!(text, "{comma}({namespace}, {address}, {}, {})", row.version, bytes(&row.envelope));
        }
        text.push(';');
        Ok(())
    }

    async fn finish(&mut self, answer: &StoredAnswer, rows: &[OutboxRow]) -> Result<(), sqlx::Error> {
        let mut text = GUARD.to_owned();
        if rows.iter().map(|row| row.envelope.len()).sum::<usize>() > BYTES_IN_TEXT || rows.len() > ROWS_AT_ONCE {
            // They must not be written outside of the transaction.
            self.run(GUARD.to_owned()).await?;
        }
        if let (Some(entry), Some(answer)) = (self.entry.take(), answer.encode()) {
            let (actor, id, answer) = (entry.actor.0, bytes(&entry.id), bytes(&answer));
            let _ = write!(text, "UPDATE postrider_inbox SET answer = {answer} WHERE actor = {actor} AND id = {id};");
        }
        self.rows_into(&mut text, rows).await?;
        reach(FaultPoint::Written);
        text.push_str("COMMIT");
        self.run(text).await
    }

    async fn write_at_once(
        &mut self,
        entry: Option<(&InboxEntry, &StoredAnswer)>,
        rows: &[OutboxRow],
        limits: TransactionLimits,
    ) -> Result<(), sqlx::Error> {
        let mut text = format!("BEGIN; {}", limits_text(limits));
        if let Some((entry, answer)) = entry {
            text.push_str(&insert_entry(entry, answer.encode().as_deref()));
        }
        if rows.iter().map(|row| row.envelope.len()).sum::<usize>() > BYTES_IN_TEXT || rows.len() > ROWS_AT_ONCE {
            self.run(std::mem::take(&mut text)).await?;
        }
        self.rows_into(&mut text, rows).await?;
        text.push_str("COMMIT");
        self.run(text).await
    }

    async fn look(&mut self, entry: &InboxEntry) -> Result<Option<Begun>, StoreError> {
        let look = "SELECT content, answer FROM postrider_inbox WHERE actor = $1 AND id = $2";
        let look = sqlx::query(look).bind(entry.actor.0).bind(&entry.id[..]);
        let read = look.fetch_optional(&mut self.connection).await.and_then(|row| {
            let Some(row) = row else { return Ok(None) };
            let content: i64 = row.try_get(0)?;
            let answer: Option<&[u8]> = row.try_get(1)?;
            let known = content == entry.content;
            Ok(Some(if known { Begun::Known(StoredAnswer::decode(answer)) } else { Begun::OtherContent }))
        });
        read.map_err(|error| self.failed(Failed::Working, &error))
    }

    /// What a failed begin means: the message may be known.
    async fn not_begun(&mut self, error: sqlx::Error, entry: Option<&InboxEntry>) -> Result<Begun, StoreError> {
        let first = self.failed(Failed::Working, &error);
        let Some(entry) = entry.filter(|_| is_there_already(&error)) else { return Err(first) };
        self.run("ROLLBACK".into()).await.map_err(|error| self.failed(Failed::Working, &error))?;
        self.look(entry).await?.ok_or(first)
    }
}

/// Lock, statement and idle time of the transaction, and the setting that [`GUARD`] looks for.
fn limits_text(limits: TransactionLimits) -> String {
    let (lock, handler) = (limits.lock.as_millis(), limits.handler.saturating_add(SERVER_LATER).as_millis());
    format!(
        "SELECT set_config('lock_timeout', '{lock}', true), set_config('statement_timeout', '{handler}', true), set_config('idle_in_transaction_session_timeout', '{}', true), set_config('postrider.open', 'on', true);",
        handler.saturating_add(lock)
    )
}

fn insert_entry(entry: &InboxEntry, answer: Option<&[u8]>) -> String {
    let (actor, id, content) = (entry.actor.0, bytes(&entry.id), entry.content);
    let answer = answer.map_or_else(|| "NULL".to_owned(), bytes);
    format!("INSERT INTO postrider_inbox (actor, id, content, answer) VALUES ({actor}, {id}, {content}, {answer});")
}

impl Session for PgSession {
    fn begin<'a>(
        &'a mut self,
        access: Access,
        entry: Option<&'a InboxEntry>,
        limits: TransactionLimits,
    ) -> BoxFuture<'a, Result<Begun, StoreError>> {
        Box::pin(async move {
            let begin = if access == Access::Read { "BEGIN READ ONLY;" } else { "BEGIN;" };
            let entry = entry.filter(|_| access == Access::Write);
            let insert = entry.map_or_else(String::new, |entry| insert_entry(entry, None));
            if let Err(error) = self.run(format!("{begin} {} {insert}", limits_text(limits))).await {
                return self.not_begun(error, entry).await;
            }
            self.open = Some(access);
            self.entry = entry.cloned();
            Ok(Begun::New)
        })
    }

    fn commit<'a>(
        &'a mut self,
        answer: &'a StoredAnswer,
        rows: &'a [OutboxRow],
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let access = self.open.take();
            if access == Some(Access::Read) {
                self.roll_back().await?;
                // A query reads; what it sends leaves all the same.
                if rows.is_empty() {
                    return Ok(());
                }
                return self.write(None, rows, TransactionLimits::default()).await.map(drop);
            }
            let committed = self.finish(answer, rows).await;
            // If not, the handler has left a transaction open inside of ours.
            self.usable = committed.is_ok() && self.is_in_order();
            committed.map_err(|error| self.failed(Failed::Committing, &error))
        })
    }

    fn roll_back(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.open = None;
            // A statement of a handler that was dropped may still run, and the rollback waits behind it.
            let rolled_back = timeout(ROLL_BACK_FOR, self.run("ROLLBACK".into())).await;
            if matches!(rolled_back, Ok(Ok(()))) && self.is_in_order() {
                return Ok(());
            }
            // The server rolls back what its client has left.
            self.usable = false;
            if timeout(CANCEL_FOR, cancel(&self.options, self.process)).await.is_err() {
                tracing::debug!("a statement was not cancelled in time; its time limit ends it");
            }
            Ok(())
        })
    }

    fn write<'a>(
        &'a mut self,
        entry: Option<(&'a InboxEntry, &'a StoredAnswer)>,
        rows: &'a [OutboxRow],
        limits: TransactionLimits,
    ) -> BoxFuture<'a, Result<Begun, StoreError>> {
        Box::pin(async move {
            let Err(error) = self.write_at_once(entry, rows, limits).await else { return Ok(Begun::New) };
            if is_there_already(&error) {
                return self.not_begun(error, entry.map(|(entry, _)| entry)).await;
            }
            Err(self.failed(Failed::Committing, &error))
        })
    }

    fn known<'a>(&'a mut self, entry: &'a InboxEntry) -> BoxFuture<'a, Result<Option<Begun>, StoreError>> {
        Box::pin(self.look(entry))
    }

    fn forget<'a>(&'a mut self, entry: &'a InboxEntry) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let delete = sqlx::query("DELETE FROM postrider_inbox WHERE actor = $1 AND id = $2");
            let deleted = delete.bind(entry.actor.0).bind(&entry.id[..]).execute(&mut self.connection).await;
            deleted.map(drop).map_err(|error| self.failed(Failed::Working, &error))
        })
    }

    fn is_conflict(&self) -> IsConflict {
        |error| error.downcast_ref().is_some_and(is_conflict)
    }

    fn connection(&mut self) -> Option<&mut dyn Any> {
        self.open.is_some().then_some(&mut self.connection as &mut dyn Any)
    }

    fn is_usable(&self) -> bool {
        self.usable
    }
}

/// Cancels what a server process is doing. If that fails, the statement's own limit ends it.
async fn cancel(options: &PgConnectOptions, process: i32) {
    let cancelling = async {
        let mut connection = PgConnection::connect_with(options).await?;
        sqlx::query("SELECT pg_cancel_backend($1)").bind(process).execute(&mut connection).await?;
        connection.close().await
    };
    if let Err(error) = cancelling.await {
        tracing::debug!(%error, "a statement was not cancelled; its time limit ends it");
    }
}
