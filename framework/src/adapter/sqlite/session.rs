//! Transactions of handlers on a SQLite file.

use std::any::Any;
use std::fmt::Write as _;
use std::sync::Arc;

use futures::future::BoxFuture;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Row, SqlSafeStr, SqlStr, Sqlite, SqliteConnection, raw_sql};
use sqlx_core::transaction::TransactionManager;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

use crate::adapter::sqlite::errors::{
    Failed, failed, is_refused_commit, is_there_already, is_without_transaction,
};
use crate::adapter::sqlite::writer::Writer;
use crate::store::{
    Access, Begun, FaultPoint, InboxEntry, OutboxRow, Session, StoreError, StoredAnswer, TransactionLimits, reach,
};

type Transactions = <Sqlite as sqlx::Database>::TransactionManager;

/// Why a transaction can be over before its commit.
const ROLLED_BACK: &str = "a statement failed so that SQLite rolled it back, the handler ended it itself, or it dropped a `begin` half way";

/// The most rows of the outbox in one statement.
const ROWS_AT_ONCE: usize = 500;

/// What a session works on while its transaction is open.
enum Held {
    /// The file's one writing connection. Whoever asks first gets it first.
    Writer(OwnedMutexGuard<Writer>),
    /// A reading connection, which waits for nobody.
    Reader(Box<SqliteConnection>),
}

/// A session on a SQLite file.
pub(super) struct SqliteSession {
    pub(super) store: Arc<str>,
    pub(super) namespace: Arc<str>,
    pub(super) writer: Arc<Mutex<Writer>>,
    pub(super) reading: SqliteConnectOptions,
    reader: Option<Box<SqliteConnection>>,
    held: Option<Held>,
    entry: Option<InboxEntry>,
}

impl SqliteSession {
    pub(super) fn new(
        store: Arc<str>,
        namespace: Arc<str>,
        writer: Arc<Mutex<Writer>>,
        reading: SqliteConnectOptions,
    ) -> Self {
        Self { store, namespace, writer, reading, reader: None, held: None, entry: None }
    }

    fn failed(&self, doing: Failed, error: &sqlx::Error) -> StoreError {
        failed(&self.store, doing, error)
    }

    async fn lock(&self, limits: TransactionLimits) -> Result<OwnedMutexGuard<Writer>, StoreError> {
        let waiting = timeout(limits.handler, Arc::clone(&self.writer).lock_owned());
        waiting.await.map_err(|_| StoreError::Unavailable {
            store: self.store.to_string(),
            reason: format!(
                "other transactions of this process held the file for {:?}; SQLite has one writer: shorten the handlers, or use PostgreSQL",
                limits.handler
            ),
        })
    }

    async fn begin_reading(&mut self) -> Result<Begun, StoreError> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => {
                let connected = SqliteConnection::connect_with(&self.reading).await;
                Box::new(connected.map_err(|error| self.failed(Failed::Opening, &error))?)
            }
        };
        Transactions::begin(&mut reader, None).await.map_err(|error| self.failed(Failed::Working, &error))?;
        self.held = Some(Held::Reader(reader));
        Ok(Begun::New)
    }

    async fn begin_writing(
        &mut self,
        entry: Option<&InboxEntry>,
        limits: TransactionLimits,
    ) -> Result<Begun, StoreError> {
        let mut writer = self.lock(limits).await?;
        let statement = begin_statement(entry);
        writer.connection().await?;
        writer.begins();
        let connection = writer.connection().await?;
        let Err(error) = raw_sql(statement).execute(&mut *connection).await else {
            self.held = Some(Held::Writer(writer));
            self.entry = entry.cloned();
            return Ok(Begun::New);
        };
        let error = match entry.filter(|_| is_there_already(&error)) {
            None => self.failed(Failed::Working, &error),
            Some(entry) => {
                if raw_sql("ROLLBACK").execute(&mut *connection).await.is_ok() {
                    match known(connection, &self.store, entry).await {
                        Ok(Some(begun)) => {
                            writer.ends();
                            return Ok(begun);
                        }
                        Ok(None) => self.failed(Failed::Working, &error),
                        Err(error) => error,
                    }
                } else {
                    self.failed(Failed::Working, &error)
                }
            }
        };
        writer.close();
        Err(error)
    }

    async fn commit_writing(
        &self,
        writer: &mut Writer,
        answer: &StoredAnswer,
        rows: &[OutboxRow],
    ) -> Result<(), StoreError> {
        let ended = || StoreError::Ended { reason: ROLLED_BACK.into() };
        reach(FaultPoint::Written);
        writer.commits();
        let connection = writer.open().ok_or_else(ended)?;
        let committed = self.finish(connection, answer, rows).await;
        let is_committed = writer.ends();
        match committed {
            Ok(()) if is_committed && writer.is_in_order() => Ok(()),
            Ok(()) if is_committed => {
                writer.close();
                Ok(())
            }
            Ok(()) => Err(ended()),
            Err(error) if is_refused_commit(&error) || is_without_transaction(&error) => Err(ended()),
            Err(error) => Err(self.failed(Failed::Committing, &error)),
        }
    }

    /// Answer, rows and commit in one text: each text costs two changes of thread.
    async fn finish(
        &self,
        connection: &mut SqliteConnection,
        answer: &StoredAnswer,
        rows: &[OutboxRow],
    ) -> Result<(), sqlx::Error> {
        let mut statements = String::new();
        let answer = self.entry.as_ref().zip(answer.encode());
        if answer.is_some() {
            statements.push_str("UPDATE postrider_inbox SET answer = ? WHERE actor = ? AND id = ?;");
        }
        let (now, before) = if rows.len() > ROWS_AT_ONCE { (&[][..], rows) } else { (rows, &[][..]) };
        self.write_rows(&mut *connection, before).await?;
        if !now.is_empty() {
            statements.push_str(&insert_rows(now.len()));
            statements.push(';');
        }
        statements.push_str("COMMIT");
        let mut query = sqlx::query(AssertSqlSafe(statements)).persistent(now.len() <= 1);
        if let Some((entry, bytes)) = answer {
            query = query.bind(bytes).bind(entry.actor.0).bind(&entry.id[..]);
        }
        bind_rows(query, &self.namespace, now).execute(connection).await.map(drop)
    }

    async fn write_rows(&self, connection: &mut SqliteConnection, rows: &[OutboxRow]) -> Result<(), sqlx::Error> {
        for rows in rows.chunks(ROWS_AT_ONCE) {
            let insert = sqlx::query(AssertSqlSafe(insert_rows(rows.len())));
            bind_rows(insert.persistent(rows.len() == 1), &self.namespace, rows).execute(&mut *connection).await?;
        }
        Ok(())
    }

    /// Everything in one statement text: each text costs two changes of thread.
    async fn write_at_once(
        &self,
        connection: &mut SqliteConnection,
        entry: Option<(&InboxEntry, &StoredAnswer)>,
        rows: &[OutboxRow],
    ) -> Result<(), sqlx::Error> {
        let mut statements = "BEGIN IMMEDIATE;".to_owned();
        if entry.is_some() {
            statements.push_str(
                "INSERT INTO postrider_inbox (actor, id, content, handled_at, answer) VALUES (?, ?, ?, unixepoch(), ?);",
            );
        }
        let (now, later) = if rows.len() > ROWS_AT_ONCE { (&[][..], rows) } else { (rows, &[][..]) };
        if !now.is_empty() {
            statements.push_str(&insert_rows(now.len()));
            statements.push(';');
        }
        if later.is_empty() {
            statements.push_str("COMMIT");
        }
        let mut query = sqlx::query(AssertSqlSafe(statements)).persistent(now.len() <= 1);
        if let Some((entry, answer)) = entry {
            query = query.bind(entry.actor.0).bind(&entry.id[..]).bind(entry.content).bind(answer.encode());
        }
        bind_rows(query, &self.namespace, now).execute(&mut *connection).await?;
        if !later.is_empty() {
            self.write_rows(connection, later).await?;
            raw_sql("COMMIT").execute(&mut *connection).await?;
        }
        Ok(())
    }
}

/// Begins, and notes the message. Both are one text, which costs as much as one statement.
fn begin_statement(entry: Option<&InboxEntry>) -> SqlStr {
    let Some(entry) = entry else { return "BEGIN IMMEDIATE".into_sql_str() };
    let mut statement =
        "BEGIN IMMEDIATE; INSERT INTO postrider_inbox (actor, id, content, handled_at) VALUES (".to_owned();
    let _ = write!(statement, "{}, X'", entry.actor.0);
    for byte in &entry.id {
        let _ = write!(statement, "{byte:02x}");
    }
    let _ = write!(statement, "', {}, unixepoch())", entry.content);
    AssertSqlSafe(statement).into_sql_str()
}

fn insert_rows(rows: usize) -> String {
    let mut statement =
        "INSERT INTO postrider_outbox (namespace, address, version, envelope, written_at) VALUES ".to_owned();
    for row in 0..rows {
        statement.push_str(if row == 0 { "" } else { ", " });
        statement.push_str("(?, ?, ?, ?, unixepoch('subsec'))");
    }
    statement
}

type Query<'a> = sqlx::query::Query<'a, Sqlite, sqlx::sqlite::SqliteArguments>;

fn bind_rows<'a>(mut query: Query<'a>, namespace: &'a str, rows: &'a [OutboxRow]) -> Query<'a> {
    for row in rows {
        query = query.bind(namespace).bind(&row.address).bind(row.version).bind(&row.envelope);
    }
    query
}

/// What the inbox knows of a message.
async fn known(
    connection: &mut SqliteConnection,
    store: &str,
    entry: &InboxEntry,
) -> Result<Option<Begun>, StoreError> {
    let look = "SELECT content, answer FROM postrider_inbox WHERE actor = ? AND id = ?";
    let row = sqlx::query(look).bind(entry.actor.0).bind(&entry.id[..]).fetch_optional(connection).await;
    let read = row.and_then(|row| {
        let Some(row) = row else { return Ok(None) };
        let content: i64 = row.try_get(0)?;
        let answer: Option<&[u8]> = row.try_get(1)?;
        Ok(Some(if content == entry.content { Begun::Known(StoredAnswer::decode(answer)) } else { Begun::OtherContent }))
    });
    read.map_err(|error| failed(store, Failed::Working, &error))
}

impl Session for SqliteSession {
    fn begin<'a>(
        &'a mut self,
        access: Access,
        entry: Option<&'a InboxEntry>,
        limits: TransactionLimits,
    ) -> BoxFuture<'a, Result<Begun, StoreError>> {
        Box::pin(async move {
            match access {
                Access::Read => self.begin_reading().await,
                Access::Write => self.begin_writing(entry, limits).await,
            }
        })
    }

    fn commit<'a>(
        &'a mut self,
        answer: &'a StoredAnswer,
        rows: &'a [OutboxRow],
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            match self.held.take() {
                Some(Held::Writer(mut writer)) => {
                    let committed = self.commit_writing(&mut writer, answer, rows).await;
                    if committed.is_err() {
                        writer.close();
                    }
                    committed
                }
                Some(Held::Reader(mut reader)) => {
                    let ended = Transactions::rollback(&mut reader).await;
                    ended.map_err(|error| self.failed(Failed::Working, &error))?;
                    self.reader = Some(reader);
                    // A query reads; what it sends leaves all the same.
                    if rows.is_empty() { Ok(()) } else { self.write(None, rows, TransactionLimits::default()).await.map(drop) }
                }
                None => Err(StoreError::Ended { reason: "it is not open".into() }),
            }
        })
    }

    fn roll_back(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            match self.held.take() {
                Some(Held::Writer(mut writer)) => {
                    // A statement of a handler that was dropped may still run.
                    writer.interrupt(true);
                    let rolled_back = match writer.open() {
                        Some(connection) => raw_sql("ROLLBACK").execute(connection).await.map(drop),
                        None => Ok(()),
                    };
                    writer.interrupt(false);
                    writer.ends();
                    if rolled_back.is_err() || !writer.is_in_order() {
                        writer.close();
                    }
                    Ok(())
                }
                Some(Held::Reader(mut reader)) => {
                    if all_the_way_back(&mut reader).await.is_ok() {
                        self.reader = Some(reader);
                    }
                    Ok(())
                }
                None => Ok(()),
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
            let mut writer = self.lock(limits).await?;
            let connection = writer.connection().await?;
            let Err(error) = self.write_at_once(connection, entry, rows).await else { return Ok(Begun::New) };
            let found = match entry.filter(|_| is_there_already(&error)) {
                Some((entry, _)) if raw_sql("ROLLBACK").execute(&mut *connection).await.is_ok() => {
                    known(connection, &self.store, entry).await?
                }
                _ => None,
            };
            found.ok_or_else(|| {
                writer.close();
                self.failed(Failed::Working, &error)
            })
        })
    }

    fn known<'a>(&'a mut self, entry: &'a InboxEntry) -> BoxFuture<'a, Result<Option<Begun>, StoreError>> {
        Box::pin(async move {
            let mut writer = self.lock(TransactionLimits::default()).await?;
            known(writer.connection().await?, &self.store, entry).await
        })
    }

    fn forget<'a>(&'a mut self, entry: &'a InboxEntry) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut writer = self.lock(TransactionLimits::default()).await?;
            let delete = sqlx::query("DELETE FROM postrider_inbox WHERE actor = ? AND id = ?");
            let deleted =
                delete.bind(entry.actor.0).bind(&entry.id[..]).execute(writer.connection().await?).await;
            deleted.map(drop).map_err(|error| self.failed(Failed::Working, &error))
        })
    }

    fn connection(&mut self) -> Option<&mut dyn Any> {
        match self.held.as_mut()? {
            Held::Writer(writer) => writer.open().map(|connection| connection as &mut dyn Any),
            Held::Reader(reader) => Some(&mut **reader as &mut dyn Any),
        }
    }
}

/// Also ends transactions that the handler began inside its own and did not end.
async fn all_the_way_back(connection: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    while Transactions::get_transaction_depth(connection) > 0 {
        Transactions::rollback(connection).await?;
    }
    Ok(())
}

impl Drop for SqliteSession {
    fn drop(&mut self) {
        // Nobody has ended the transaction, so its connection must not be used again.
        if let Some(Held::Writer(writer)) = &mut self.held {
            writer.close();
        }
    }
}
