//! The one connection of this process that writes a SQLite file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Connection, SqliteConnection};

use crate::adapter::sqlite::errors::{Failed, failed};
use crate::store::StoreError;

/// How many steps of SQLite's machine pass between two looks at whether a statement is to end.
const STEPS_BETWEEN_LOOKS: i32 = 10_000;

/// Whose transaction is open: nobody's that must be watched.
const NOBODY: u8 = 0;
/// A handler's. Whatever commits now would commit a part of its work: a statement after a rollback, or the handler itself.
const HANDLER: u8 = 1;
/// A handler's, which is being committed.
const COMMITTING: u8 = 2;
/// A handler's, which was committed.
const COMMITTED: u8 = 3;

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
            taken != Err(HANDLER)
        });
        let interrupt = Arc::clone(&self.interrupt);
        handle.set_progress_handler(STEPS_BETWEEN_LOOKS, move || !interrupt.load(Ordering::Acquire));
        drop(handle);
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

    /// The handler's transaction may be committed now.
    pub(super) fn commits(&self) {
        self.turn.store(COMMITTING, Ordering::Release);
    }

    /// The handler's transaction has ended. Whether it was committed: SQLite reports success as well if it was rolled back before.
    pub(super) fn ends(&self) -> bool {
        self.turn.swap(NOBODY, Ordering::AcqRel) == COMMITTED
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
