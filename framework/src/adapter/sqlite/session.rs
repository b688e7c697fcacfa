//! Transactions of handlers on a SQLite file.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::future::BoxFuture;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Row, Sqlite, SqliteConnection, raw_sql};
use sqlx_core::transaction::TransactionManager;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

use crate::adapter::sqlite::errors::{
    Failed, failed, is_refused_commit, is_there_already, is_without_transaction, judge, judge_reading,
};
use crate::adapter::sqlite::reader::Reader;
use crate::adapter::sqlite::statements::{Notes, begin_and_look_statement, begin_statement, finish, write_at_once};
use crate::adapter::sqlite::writer::Writer;
use crate::store::{
    Access, Begun, FaultPoint, InboxEntry, JudgeError, OutboxRow, Session, StoreError, StoredAnswer, TransactionLimits,
    reach,
};

type Transactions = <Sqlite as sqlx::Database>::TransactionManager;

/// Why a transaction can be over before its commit.
const ROLLED_BACK: &str =
    "a statement failed so that SQLite rolled it back, the handler ended it itself, or it dropped a `begin` half way";

/// What a session works on while its transaction is open.
enum Held {
    /// The file's one writing connection. Whoever asks first gets it first.
    Writer(OwnedMutexGuard<Writer>),
    /// A reading connection, which waits for nobody.
    Reader(Reader),
}

/// A session on a SQLite file.
pub(super) struct SqliteSession {
    names: Names,
    writer: Arc<Mutex<Writer>>,
    reading: SqliteConnectOptions,
    reader: Option<Reader>,
    /// Kept here from before the begin until after the end: if a future is dropped half way, dropping the session closes the
    /// connection.
    held: Option<Held>,
    entry: Option<InboxEntry>,
}

/// The file in errors, and the namespace of the rows.
#[derive(Clone)]
pub(super) struct Names {
    pub(super) store: Arc<str>,
    pub(super) namespace: Arc<str>,
}

impl Names {
    fn failed(&self, doing: Failed, error: &sqlx::Error) -> StoreError {
        failed(&self.store, doing, error)
    }

    async fn begin(&self, writer: &mut Writer, entry: Option<&InboxEntry>) -> Result<Begun, StoreError> {
        writer.connection().await?;
        writer.begins();
        let connection = writer.connection().await?;
        let Err(error) = raw_sql(begin_statement(entry)).execute(&mut *connection).await else {
            return Ok(Begun::New);
        };
        self.known_after(error, connection, entry).await
    }

    async fn begin_together(&self, writer: &mut Writer, entries: &[InboxEntry]) -> Result<Vec<Begun>, StoreError> {
        writer.connection().await?;
        writer.begins();
        let connection = writer.connection().await?;
        let looked = raw_sql(begin_and_look_statement(entries)).fetch_all(connection).await.and_then(|found| {
            let mut begun = vec![Begun::New; entries.len()];
            for row in &found {
                let id: &[u8] = row.try_get(0)?;
                if let Some(place) = entries.iter().position(|entry| entry.id == id) {
                    begun[place] = entries[place].is_known(row.try_get(1)?, row.try_get(2)?);
                }
            }
            Ok(begun)
        });
        looked.map_err(|error| self.failed(Failed::Working, &error))
    }

    /// What the inbox knows, if that is why a transaction failed. The transaction is rolled back.
    async fn known_after(
        &self,
        error: sqlx::Error,
        connection: &mut SqliteConnection,
        entry: Option<&InboxEntry>,
    ) -> Result<Begun, StoreError> {
        let failed = self.failed(Failed::Working, &error);
        let Some(entry) = entry.filter(|_| is_there_already(&error)) else { return Err(failed) };
        let rolled_back = raw_sql("ROLLBACK").execute(&mut *connection).await;
        rolled_back.map_err(|error| self.failed(Failed::Working, &error))?;
        self.known(connection, entry).await?.ok_or(failed)
    }

    async fn known(&self, connection: &mut SqliteConnection, entry: &InboxEntry) -> Result<Option<Begun>, StoreError> {
        let look = "SELECT content, answer FROM postrider_inbox WHERE actor = ? AND id = ?";
        let row = sqlx::query(look).bind(entry.actor.0).bind(&entry.id[..]).fetch_optional(connection).await;
        let read = row.and_then(|row| {
            let Some(row) = row else { return Ok(None) };
            Ok(Some(entry.is_known(row.try_get(0)?, row.try_get(1)?)))
        });
        read.map_err(|error| self.failed(Failed::Working, &error))
    }

    async fn commit(&self, writer: &mut Writer, notes: Notes<'_>, rows: &[OutboxRow]) -> Result<(), StoreError> {
        let ended = || StoreError::Ended { reason: ROLLED_BACK.into() };
        reach(FaultPoint::Written);
        writer.commits();
        let connection = writer.open().ok_or_else(ended)?;
        let committed = finish(connection, &self.namespace, notes, rows).await;
        let is_committed = writer.ends();
        match committed {
            Ok(()) if is_committed => Ok(()),
            Ok(()) => Err(ended()),
            Err(error) if is_refused_commit(&error) || is_without_transaction(&error) => Err(ended()),
            Err(error) => Err(self.failed(Failed::Committing, &error)),
        }
    }
}

impl SqliteSession {
    pub(super) fn new(names: Names, writer: Arc<Mutex<Writer>>, reading: SqliteConnectOptions) -> Self {
        Self { names, writer, reading, reader: None, held: None, entry: None }
    }

    /// Waits for the writing connection, and holds it.
    async fn lock(&mut self, limits: TransactionLimits) -> Result<(), StoreError> {
        let waiting = timeout(limits.handler, Arc::clone(&self.writer).lock_owned());
        let writer = waiting.await.map_err(|_| StoreError::Locked {
            store: self.names.store.to_string(),
            reason: format!(
                "other transactions of this process held the file for {:?}; SQLite has one writer: shorten the handlers, or use PostgreSQL",
                limits.handler
            ),
        })?;
        self.held = Some(Held::Writer(writer));
        Ok(())
    }

    /// Lets the writing connection go. It is closed if the transaction on it may be open.
    fn release(&mut self, in_order: bool) {
        if let Some(Held::Writer(writer)) = &mut self.held
            && !(in_order && writer.is_in_order())
        {
            writer.close();
        }
        self.held = None;
        self.entry = None;
    }

    async fn begin_reading(&mut self) -> Result<Begun, StoreError> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => {
                let connected = Reader::connect(&self.reading).await;
                connected.map_err(|error| self.names.failed(Failed::Opening, &error))?
            }
        };
        let begun = Transactions::begin(&mut reader.connection, None).await;
        begun.map_err(|error| self.names.failed(Failed::Working, &error))?;
        self.held = Some(Held::Reader(reader));
        Ok(Begun::New)
    }

    async fn end_reading(&mut self, mut reader: Reader) -> Result<(), StoreError> {
        // A statement of a handler that was dropped may still run.
        reader.interrupt.store(true, Ordering::Release);
        // Also transactions that the handler began inside its own and did not end.
        while Transactions::get_transaction_depth(&reader.connection) > 0 {
            let ended = Transactions::rollback(&mut reader.connection).await;
            ended.map_err(|error| self.names.failed(Failed::Working, &error))?;
        }
        reader.interrupt.store(false, Ordering::Release);
        self.reader = Some(reader);
        Ok(())
    }

    async fn begin_writing(
        &mut self,
        entry: Option<&InboxEntry>,
        limits: TransactionLimits,
    ) -> Result<Begun, StoreError> {
        self.lock(limits).await?;
        let Some(Held::Writer(writer)) = &mut self.held else { return Err(self.gone()) };
        let begun = self.names.begin(writer, entry).await;
        if begun == Ok(Begun::New) {
            self.entry = entry.cloned();
        } else {
            writer.ends();
            self.release(begun.is_ok());
        }
        begun
    }

    /// Unreachable, since the connection was locked just before.
    fn gone(&self) -> StoreError {
        StoreError::Unavailable { store: self.names.store.to_string(), reason: "the connection was closed".into() }
    }
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
            match &mut self.held {
                Some(Held::Writer(writer)) => {
                    let notes = Notes::Answer(self.entry.as_ref(), answer);
                    let committed = self.names.commit(writer, notes, rows).await;
                    self.release(committed.is_ok());
                    committed
                }
                Some(Held::Reader(_)) => {
                    self.roll_back().await?;
                    // A query reads; what it sends leaves all the same.
                    if rows.is_empty() {
                        return Ok(());
                    }
                    self.write(None, rows, TransactionLimits::default()).await.map(drop)
                }
                None => Err(StoreError::Ended { reason: "it is not open".into() }),
            }
        })
    }

    fn begin_together<'a>(
        &'a mut self,
        entries: &'a [InboxEntry],
        limits: TransactionLimits,
    ) -> BoxFuture<'a, Result<Vec<Begun>, StoreError>> {
        Box::pin(async move {
            self.lock(limits).await?;
            let Some(Held::Writer(writer)) = &mut self.held else { return Err(self.gone()) };
            let begun = self.names.begin_together(writer, entries).await;
            if begun.is_err() {
                writer.ends();
                self.release(false);
            }
            begun
        })
    }

    fn commit_together<'a>(
        &'a mut self,
        handled: &'a [(InboxEntry, StoredAnswer)],
        rows: &'a [OutboxRow],
    ) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let Some(Held::Writer(writer)) = &mut self.held else {
                return Err(StoreError::Ended { reason: "it is not open".into() });
            };
            let committed = self.names.commit(writer, Notes::All(handled), rows).await;
            self.release(committed.is_ok());
            committed
        })
    }

    fn roll_back(&mut self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move {
            match self.held.take() {
                Some(Held::Reader(reader)) => return self.end_reading(reader).await,
                held => self.held = held,
            }
            if let Some(Held::Writer(writer)) = &mut self.held {
                // A statement of a handler that was dropped may still run.
                writer.interrupt(true);
                let rolled_back = match writer.open() {
                    Some(connection) => raw_sql("ROLLBACK").execute(connection).await.is_ok(),
                    None => true,
                };
                writer.interrupt(false);
                writer.ends();
                self.release(rolled_back);
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
            self.lock(limits).await?;
            let Some(Held::Writer(writer)) = &mut self.held else { return Err(self.gone()) };
            let connection = match writer.connection().await {
                Ok(connection) => connection,
                Err(error) => {
                    self.release(false);
                    return Err(error);
                }
            };
            let written = match write_at_once(connection, &self.names.namespace, entry, rows).await {
                Ok(()) => Ok(Begun::New),
                Err(error) => self.names.known_after(error, connection, entry.map(|(entry, _)| entry)).await,
            };
            self.release(written.is_ok());
            written
        })
    }

    fn known<'a>(&'a mut self, entry: &'a InboxEntry) -> BoxFuture<'a, Result<Option<Begun>, StoreError>> {
        Box::pin(async move {
            let mut writer = self.writer.lock().await;
            self.names.known(writer.connection().await?, entry).await
        })
    }

    fn forget<'a>(&'a mut self, entry: &'a InboxEntry) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut writer = self.writer.lock().await;
            let delete = sqlx::query("DELETE FROM postrider_inbox WHERE actor = ? AND id = ?");
            let deleted = delete.bind(entry.actor.0).bind(&entry.id[..]).execute(writer.connection().await?).await;
            deleted.map(drop).map_err(|error| self.names.failed(Failed::Working, &error))
        })
    }

    fn is_usable(&self) -> bool {
        // The connection behind it is opened again when it must be.
        true
    }

    fn judge_error(&self) -> JudgeError {
        match self.held {
            Some(Held::Reader(_)) => |error| error.downcast_ref().and_then(judge_reading),
            _ => |error| error.downcast_ref().and_then(judge),
        }
    }

    fn connection(&mut self) -> Option<&mut dyn Any> {
        match self.held.as_mut()? {
            Held::Writer(writer) => writer.open().map(|connection| connection as &mut dyn Any),
            Held::Reader(reader) => Some(&mut *reader.connection as &mut dyn Any),
        }
    }
}

impl Drop for SqliteSession {
    fn drop(&mut self) {
        // Nobody has ended the transaction.
        self.release(false);
    }
}
