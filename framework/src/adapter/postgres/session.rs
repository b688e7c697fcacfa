//! Transactions of handlers in a PostgreSQL database.

use std::any::Any;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Postgres, Row, raw_sql};
use sqlx_core::transaction::TransactionManager;
use tokio::time::timeout;

use crate::adapter::postgres::errors::{Failed, failed, is_there_already, judge};
use crate::adapter::postgres::reach::Reach;
use crate::adapter::postgres::statements::{
    GUARD, KNOWN_COLUMNS, forget_text, insert_entries, limits_text, look_text, update_entry,
};
use crate::adapter::postgres::text::{bytes, literal};
use crate::store::{
    Access, Begun, FaultPoint, InboxEntry, JudgeError, OutboxRow, Session, StoreError, StoredAnswer, TransactionLimits,
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

/// A connection, opened on the thread that uses it, since that thread serves its socket.
pub(super) struct PgSession {
    pub(super) store: Arc<str>,
    pub(super) namespace: Arc<str>,
    reach: Reach,
    connection: PgConnection,
    /// The server's process behind the connection; behind a pooler that of the last transaction.
    process: i32,
    open: Option<Access>,
    /// Whether the connection can be used again.
    usable: bool,
    entry: Option<InboxEntry>,
}

impl PgSession {
    pub(super) async fn open(store: Arc<str>, namespace: Arc<str>, reach: Reach) -> Result<Self, StoreError> {
        let connecting = async {
            let mut connection = PgConnection::connect_with(reach.sessions()).await?;
            // From now on the client counts one open transaction, so that a `begin` of a handler makes a savepoint. We begin and
            // commit with statements of our own, since they can do more in one round trip.
            Transactions::begin(&mut connection, None).await?;
            if reach.is_pooled() {
                // A setting would stay on the server's connection, for whoever gets it next.
                raw_sql("ROLLBACK").execute(&mut connection).await?;
                return Ok((connection, 0));
            }
            let process = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut connection).await?;
            // A statement outside of our transactions writes nothing, for example after a handler has ended its own.
            raw_sql("ROLLBACK; SET default_transaction_read_only = on").execute(&mut connection).await?;
            Ok((connection, process))
        };
        let (connection, process) = connecting.await.map_err(|error| failed(&store, Failed::Opening, &error))?;
        Ok(Self { store, namespace, reach, connection, process, open: None, usable: true, entry: None })
    }

    fn failed(&self, doing: Failed, error: &sqlx::Error) -> StoreError {
        failed(&self.store, doing, error)
    }

    async fn run(&mut self, text: String) -> Result<(), sqlx::Error> {
        raw_sql(AssertSqlSafe(text)).execute(&mut self.connection).await.map(drop)
    }

    /// Begins a transaction with its limits, and notes the process that serves it.
    async fn begin_with(
        &mut self,
        access: Access,
        limits: TransactionLimits,
        then: &str,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let access = if access == Access::Read { "READ ONLY" } else { "READ WRITE" };
        let (around, limits) = (self.reach.around(), limits_text(limits));
        if !self.reach.is_pooled() {
            let text = format!("BEGIN {access}; {limits} {then}");
            return raw_sql(AssertSqlSafe(text)).fetch_all(&mut self.connection).await;
        }
        let text = format!("BEGIN {access}; {around} SELECT pg_backend_pid(); {limits} {then}");
        let mut rows = raw_sql(AssertSqlSafe(text)).fetch_all(&mut self.connection).await?;
        if let Some(process) = rows.drain(..1.min(rows.len())).next() {
            self.process = process.try_get(0)?;
        }
        Ok(rows)
    }

    async fn roll_back_at_once(&mut self) -> Result<(), sqlx::Error> {
        self.run(format!("ROLLBACK; {}", self.reach.around())).await
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
        if are_many(rows) {
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

    /// Commits with what `notes` writes into the inbox.
    async fn finish(&mut self, notes: &str, rows: &[OutboxRow]) -> Result<(), sqlx::Error> {
        let mut text = format!("{GUARD}{notes}");
        if are_many(rows) {
            // They must not be written outside of the transaction.
            self.run(GUARD.to_owned()).await?;
        }
        self.rows_into(&mut text, rows).await?;
        reach(FaultPoint::Written);
        text.push_str(self.reach.around());
        text.push_str("COMMIT");
        self.run(text).await
    }

    async fn commit_with(&mut self, notes: &str, rows: &[OutboxRow]) -> Result<(), StoreError> {
        let committed = self.finish(notes, rows).await;
        // If not, a handler has left a transaction open inside of ours.
        self.usable = committed.is_ok() && self.is_in_order();
        committed.map_err(|error| self.failed(Failed::Committing, &error))
    }

    async fn begin_and_look(
        &mut self,
        entries: &[InboxEntry],
        limits: TransactionLimits,
    ) -> Result<Vec<Begun>, sqlx::Error> {
        let found = self.begin_with(Access::Write, limits, &look_text(entries)).await?;
        let mut begun = vec![Begun::New; entries.len()];
        // The limits are a row of four columns.
        for row in found.iter().filter(|row| row.len() == KNOWN_COLUMNS) {
            let (id, content, answer): (Vec<u8>, i64, Option<Vec<u8>>) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let entry = entries.iter().position(|entry| entry.id == id);
            if let Some((entry, begun)) = entry.map(|place| (&entries[place], &mut begun[place])) {
                *begun = entry.is_known(content, answer.as_deref());
            }
        }
        Ok(begun)
    }

    async fn write_at_once(
        &mut self,
        entry: Option<(&InboxEntry, &StoredAnswer)>,
        rows: &[OutboxRow],
        limits: TransactionLimits,
    ) -> Result<(), sqlx::Error> {
        let mut text = format!("BEGIN READ WRITE; {} {}", self.reach.around(), limits_text(limits));
        if let Some((entry, answer)) = entry {
            text.push_str(&insert_entries([(entry, answer.encode())]));
        }
        if are_many(rows) {
            self.run(std::mem::take(&mut text)).await?;
        }
        self.rows_into(&mut text, rows).await?;
        text.push_str(self.reach.around());
        text.push_str("COMMIT");
        self.run(text).await
    }

    async fn look(&mut self, entry: &InboxEntry) -> Result<Option<Begun>, StoreError> {
        // One text, which behind a pooler is one transaction.
        let look = raw_sql(AssertSqlSafe(look_text(std::slice::from_ref(entry))));
        let read = look.fetch_optional(&mut self.connection).await.and_then(|row| {
            let Some(row) = row else { return Ok(None) };
            let answer: Option<Vec<u8>> = row.try_get(2)?;
            Ok(Some(entry.is_known(row.try_get(1)?, answer.as_deref())))
        });
        read.map_err(|error| self.failed(Failed::Working, &error))
    }

    /// What a failed begin means: the message may be known.
    async fn not_begun(&mut self, error: sqlx::Error, entry: Option<&InboxEntry>) -> Result<Begun, StoreError> {
        let first = self.failed(Failed::Working, &error);
        let Some(entry) = entry.filter(|_| is_there_already(&error)) else { return Err(first) };
        self.roll_back_at_once().await.map_err(|error| self.failed(Failed::Working, &error))?;
        self.look(entry).await?.ok_or(first)
    }
}

/// Whether rows take a statement of their own.
fn are_many(rows: &[OutboxRow]) -> bool {
    rows.len() > ROWS_AT_ONCE || rows.iter().map(|row| row.envelope.len()).sum::<usize>() > BYTES_IN_TEXT
}

impl Session for PgSession {
    fn begin<'a>(
        &'a mut self,
        access: Access,
        entry: Option<&'a InboxEntry>,
        limits: TransactionLimits,
    ) -> BoxFuture<'a, Result<Begun, StoreError>> {
        Box::pin(async move {
            let entry = entry.filter(|_| access == Access::Write);
            let insert = entry.map_or_else(String::new, |entry| insert_entries([(entry, None)]));
            if let Err(error) = self.begin_with(access, limits, &insert).await {
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
            let notes = self.entry.take().map_or_else(String::new, |entry| update_entry(&entry, answer));
            self.commit_with(&notes, rows).await
        })
    }

    fn begin_together<'a>(
        &'a mut self,
        entries: &'a [InboxEntry],
        limits: TransactionLimits,
    ) -> BoxFuture<'a, Result<Vec<Begun>, StoreError>> {
        Box::pin(async move {
            let begun = self.begin_and_look(entries, limits).await;
            let begun = begun.map_err(|error| self.failed(Failed::Working, &error))?;
            (self.open, self.entry) = (Some(Access::Write), None);
            Ok(begun)
        })
    }

    fn commit_together<'a>(
        &'a mut self,
        handled: &'a [(InboxEntry, StoredAnswer)],
        rows: &'a [OutboxRow],
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            self.open = None;
            let notes = insert_entries(handled.iter().map(|(entry, answer)| (entry, answer.encode())));
            self.commit_with(&notes, rows).await
        })
    }

    fn roll_back(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            self.open = None;
            // A statement of a handler that was dropped may still run, and the rollback waits behind it.
            let rolled_back = timeout(ROLL_BACK_FOR, self.roll_back_at_once()).await;
            if matches!(rolled_back, Ok(Ok(()))) && self.is_in_order() {
                return Ok(());
            }
            // The server rolls back what its client has left.
            self.usable = false;
            match timeout(CANCEL_FOR, cancel(&self.reach.direct, self.process)).await {
                Ok(Ok(())) => Ok(()),
                // What the handler did failed because the server is away.
                Ok(Err(error)) => Err(self.failed(Failed::Working, &error)),
                Err(_) => Err(StoreError::Unavailable {
                    store: self.store.to_string(),
                    reason: format!("a statement was not cancelled within {CANCEL_FOR:?}; its time limit ends it"),
                }),
            }
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
            let forgotten = self.run(forget_text(entry)).await;
            self.usable = forgotten.is_ok();
            forgotten.map_err(|error| self.failed(Failed::Working, &error))
        })
    }

    fn judge_error(&self) -> JudgeError {
        |error| error.downcast_ref().and_then(judge)
    }

    fn connection(&mut self) -> Option<&mut dyn Any> {
        self.open.is_some().then_some(&mut self.connection as &mut dyn Any)
    }

    fn is_usable(&self) -> bool {
        self.usable
    }
}

/// Cancels what a server process is doing. If that fails, the statement's own limit ends it.
async fn cancel(options: &PgConnectOptions, process: i32) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect_with(options).await?;
    sqlx::query("SELECT pg_cancel_backend($1)").bind(process).execute(&mut connection).await?;
    connection.close().await
}
