//! The one connection of this process that writes a SQLite file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, Sqlite, SqliteConnection, raw_sql};
use sqlx_core::transaction::TransactionManager;

use crate::adapter::sqlite::errors::{Failed, failed};
use crate::store::StoreError;

/// How many steps of SQLite's machine pass between two looks at whether a statement is to end.
pub(super) const STEPS_BETWEEN_LOOKS: i32 = 10_000;

/// Whose transaction is open: nobody's that must be watched.
const NOBODY: u8 = 0;
/// A handler's. Whatever commits now would commit a part of its work: the handler itself, or a statement after a rollback.
const HANDLER: u8 = 1;
/// A handler's, which is being committed.
const COMMITTING: u8 = 2;
/// A handler's, which was committed.
const COMMITTED: u8 = 3;
/// A handler's, which was rolled back: by SQLite after an error, or by the handler.
const ROLLED_BACK: u8 = 4;

type Transactions = <Sqlite as sqlx::Database>::TransactionManager;

/// The writing connection. It is opened when it is needed, and again after a transaction whose end is not certain.
pub(super) struct Writer {
    options: SqliteConnectOptions,
    store: Arc<str>,
    open: Option<SqliteConnection>,
    /// Whose transaction is open. SQLite asks before every commit.
    turn: Arc<AtomicU8>,
    /// Set while a running statement is to end.
    interrupt: Arc<AtomicBool>,
}

impl Writer {
    pub(super) fn new(options: SqliteConnectOptions, store: Arc<str>) -> Self {
        Self { options, store, open: None, turn: Arc::default(), interrupt: Arc::default() }
    }

    /// The connection; opened if it is not open.
    pub(super) async fn connection(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        if self.open.is_none() {
            self.open = Some(self.connect().await.map_err(|error| failed(&self.store, Failed::Opening, &error))?);
        }
        self.open.as_mut().ok_or_else(|| self::not_open(&self.store))
    }

    async fn connect(&self) -> Result<SqliteConnection, sqlx::Error> {
        let mut connection = SqliteConnection::connect_with(&self.options).await?;
        let mut handle = connection.lock_handle().await?;
        let turn = Arc::clone(&self.turn);
        handle.set_commit_hook(move || {
            let taken = turn.compare_exchange(COMMITTING, COMMITTED, Ordering::AcqRel, Ordering::Acquire);
            !matches!(taken, Err(HANDLER | ROLLED_BACK))
        });
        let turn = Arc::clone(&self.turn);
        handle.set_rollback_hook(move || {
            let watched = |now| [HANDLER, COMMITTING].contains(&now).then_some(ROLLED_BACK);
            let _ = turn.fetch_update(Ordering::AcqRel, Ordering::Acquire, watched);
        });
        let interrupt = Arc::clone(&self.interrupt);
        handle.set_progress_handler(STEPS_BETWEEN_LOOKS, move || !interrupt.load(Ordering::Acquire));
        drop(handle);
        // From now on the client counts one open transaction, so that a `begin` of a handler makes a savepoint. We begin and commit
        // with statements of our own, since they can do more in one change of thread.
        Transactions::begin(&mut connection, None).await?;
        raw_sql("ROLLBACK").execute(&mut connection).await?;
        Ok(connection)
    }

    /// The connection, if it is open.
    pub(super) fn open(&mut self) -> Option<&mut SqliteConnection> {
        self.open.as_mut()
    }

    /// A handler's transaction begins: from now on nothing is committed but by [`Writer::commits`].
    pub(super) fn begins(&self) {
        self.turn.store(HANDLER, Ordering::Release);
    }

    /// The handler's transaction may be committed now, unless it was rolled back.
    pub(super) fn commits(&self) {
        let _ = self.turn.compare_exchange(HANDLER, COMMITTING, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The handler's transaction has ended. Returns whether it was committed.
    pub(super) fn ends(&self) -> bool {
        self.turn.swap(NOBODY, Ordering::AcqRel) == COMMITTED
    }

    /// Whether the client still counts one open transaction. If not, the handler has left one open, or ended ours.
    pub(super) fn is_in_order(&self) -> bool {
        self.open.as_ref().is_some_and(|connection| Transactions::get_transaction_depth(connection) == 1)
    }

    /// Whether a running statement is to end.
    pub(super) fn interrupt(&self, interrupt: bool) {
        self.interrupt.store(interrupt, Ordering::Release);
    }

    /// Closes the connection, which also ends a running statement and an open transaction. The next user opens another one.
    pub(super) fn close(&mut self) {
        self.turn = Arc::default();
        // The closed connection keeps its flag: its statement ends, and those of the next connection do not.
        self.interrupt(true);
        self.interrupt = Arc::default();
        self.open = None;
    }
}

fn not_open(store: &str) -> StoreError {
    StoreError::Unavailable { store: store.to_owned(), reason: "the connection was closed".into() }
}
