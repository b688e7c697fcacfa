//! A transaction outside of a handler: what a web handler or a batch job writes, and what it sends, are committed together.

use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::bus::one_way_calls::{defaults, one_way_calls};
use crate::bus::pending_sends::PendingSends;
use crate::bus::{Address, Bus, Options, Outgoing, Payload, SendError, stamp};
use crate::message::{Command, Contract, Event, Kind, MessageId};
use crate::store::{
    Access, Database, OutboxRow, PooledSession, StoreError, StoreHandle, StoredAnswer, TransactionLimits,
};

/// A transaction of the service's store, with the calls to send in it. Its messages leave once it is committed, in the order of the
/// calls; if it is dropped, nothing was written and nothing leaves.
///
/// ```no_run
/// # #[cfg(feature = "sqlite")]
/// # async fn place(bus: &postrider::Bus) -> Result<(), Box<dyn std::error::Error>> {
/// use postrider::{Payload, Sqlite, sqlx};
///
/// let mut tx = bus.transaction::<Sqlite>().await?;
/// sqlx::query("INSERT INTO orders (id) VALUES (?)").bind(7).execute(tx.conn()).await?;
/// tx.send_key("invoice.create", Payload::json(&7))?;
/// tx.commit().await?; // the order is placed exactly if its message leaves
/// # Ok(())
/// # }
/// ```
pub struct Transaction<Db = AnyDatabase> {
    session: PooledSession,
    bus: Bus,
    /// A lock only so that it can be shared between threads; nobody else has it.
    held: Mutex<PendingSends>,
    database: PhantomData<fn() -> Db>,
}

/// Stands for a database that is known only while the service runs; see [`Bus::any_transaction`].
#[derive(Debug)]
pub enum AnyDatabase {}

impl Bus {
    /// Begins a transaction of the service's store. It waits while as many are open as the process may have
    /// ([`StoreSettings::connections`](crate::app::StoreSettings::connections)), and on SQLite until no other one writes.
    ///
    /// # Errors
    /// When the service has no store or one of another database, or the store does not do its work.
    pub async fn transaction<Db: Database>(&self) -> Result<Transaction<Db>, StoreError> {
        let (ours, theirs) = (self.own_store()?.store().database(), Db::NAME);
        if ours != theirs {
            let reason = format!("it is of {ours}, and the transaction of {theirs}");
            return Err(StoreError::Address { store: self.identity.service.to_string(), reason });
        }
        self.begin_transaction().await
    }

    /// [`Bus::transaction`] on whichever database the service's store is.
    ///
    /// # Errors
    /// As [`Bus::transaction`].
    pub async fn any_transaction(&self) -> Result<Transaction, StoreError> {
        self.begin_transaction().await
    }

    /// Runs statements of the service's own in its store.
    pub(crate) async fn prepare_store(&self, statements: &str) -> Result<(), StoreError> {
        self.own_store()?.prepare(statements).await
    }

    fn own_store(&self) -> Result<&StoreHandle, StoreError> {
        let service = &self.identity.service;
        self.store.as_ref().ok_or_else(|| StoreError::Address {
            store: service.to_string(),
            reason: format!("the service has none; set POSTRIDER_STORE, or service.{service}.store"),
        })
    }

    async fn begin_transaction<Db>(&self) -> Result<Transaction<Db>, StoreError> {
        let store = self.own_store()?;
        let mut session = store.pooled_session().await?;
        let limits = TransactionLimits { lock: store.lock_timeout(), ..TransactionLimits::default() };
        session.get().begin(Access::Write, None, limits).await?;
        Ok(Transaction { session, bus: self.clone(), held: Mutex::default(), database: PhantomData })
    }
}

impl Transaction {
    /// The database client's connection, if the service's store is of this database.
    pub fn conn_of<Db: Database>(&mut self) -> Option<&mut Db::Connection> {
        self.session.get().connection()?.downcast_mut()
    }
}

impl<Db: Database> Transaction<Db> {
    /// The database client's connection, on which the transaction is open.
    ///
    /// # Panics
    /// Never: a transaction is only begun on a store of this database.
    pub fn conn(&mut self) -> &mut Db::Connection {
        let connection = self.session.get().connection();
        #[allow(clippy::expect_used, reason = "the store's database was looked at when the transaction began")]
        connection.and_then(|connection| connection.downcast_mut()).expect("a session of this database")
    }
}

impl<Db> Transaction<Db> {
    /// Sends a command to its owner.
    ///
    /// # Errors
    /// [`SendError`], when it cannot be encoded or may not be sent. Whether a service handles it shows when it leaves; see
    /// `docs/stores.md`.
    pub fn send<M: Command + Serialize>(&self, command: &M) -> Result<MessageId, SendError> {
        self.send_with(command, defaults)
    }

    /// [`Transaction::send`] with options.
    ///
    /// # Errors
    /// As [`Transaction::send`].
    pub fn send_with<M: Command + Serialize>(
        &self,
        command: &M,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<MessageId, SendError> {
        self.typed(command, options)
    }

    /// Publishes an event to its subscribers, however many there are.
    ///
    /// # Errors
    /// [`SendError`]; `NotOwner` when this service does not own the event's domain.
    pub fn publish<M: Event + Serialize>(&self, event: &M) -> Result<MessageId, SendError> {
        self.publish_with(event, defaults)
    }

    /// [`Transaction::publish`] with options.
    ///
    /// # Errors
    /// As [`Transaction::publish`].
    pub fn publish_with<M: Event + Serialize>(
        &self,
        event: &M,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<MessageId, SendError> {
        self.typed(event, options)
    }

    one_way_calls!("Transaction", ". Both show when it leaves, after the commit.");

    /// Commits what was written and sent.
    ///
    /// # Errors
    /// When nothing was committed; with [`StoreError::Unknown`] that is not known.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let rows: Vec<OutboxRow> = held.iter().map(|envelope| OutboxRow::of(envelope)).collect();
        self.session.get().commit(&StoredAnswer::Nothing, &rows).await?;
        self.session.keep();
        if let Some(store) = self.bus.store.as_ref().filter(|_| !rows.is_empty()) {
            store.wake_relay();
        }
        Ok(())
    }

    /// Ends the transaction without its effects, as dropping it does, and keeps the connection for the next one.
    ///
    /// # Errors
    /// When the database does not answer. The transaction has no effects all the same.
    pub async fn roll_back(mut self) -> Result<(), StoreError> {
        self.session.get().roll_back().await?;
        self.session.keep();
        Ok(())
    }

    fn typed<M: Contract + Serialize>(
        &self,
        message: &M,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<MessageId, SendError> {
        self.hold(self.bus.identity.typed(message, options(Options::default()), Options::UNUSED_TIMEOUT)?)
    }

    fn by_key(
        &self,
        address: Address<'_>,
        payload: Payload,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<MessageId, SendError> {
        self.hold(self.bus.identity.keyed(&address, payload, options(Options::default()), Options::UNUSED_TIMEOUT)?)
    }

    fn hold(&self, outgoing: Outgoing) -> Result<MessageId, SendError> {
        let envelope = stamp(outgoing, &self.bus.identity, None)?;
        let id = envelope.id.clone();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.push(envelope, self.bus.held_limits)?;
        Ok(id)
    }
}
