//! `Tx` gives a handler the transaction in which its message is handled.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::rc::Rc;

use crate::handler::{Context, Failure, Work};
use crate::store::{Database, Hindrance, JudgeError, Session};

/// The transaction in which a message is handled: `async fn pay(&mut self, pay: Pay, tx: &mut Tx<Sqlite>)`.
///
/// What the handler writes on [`Tx::conn`], what it sends, and that the message was handled are committed together when it
/// succeeds, or not at all. The handler cannot end the transaction; it may begin further ones inside of it.
pub struct Tx<Db: Database> {
    any: AnyTx,
    database: PhantomData<Db>,
}

impl<Db: Database> Tx<Db> {
    /// The database client's connection, on which the transaction is open.
    ///
    /// From the first call on, [`Context::request`] is an error until the handler has ended: rows would stay locked while it
    /// waits.
    ///
    /// # Panics
    /// Never: a `Tx` is only made from a session of this database.
    pub fn conn(&mut self) -> &mut Db::Connection {
        #[allow(clippy::expect_used, reason = "the type of the connection was looked at when the value was made")]
        self.any.conn_of::<Db>().expect("a session of this database")
    }

    pub(super) fn take(context: &Context) -> Result<Self, Failure> {
        let mut any = AnyTx::take(context)?;
        if any.connection::<Db>().is_some() {
            return Ok(Self { any, database: PhantomData });
        }
        // The app checks stores before it starts, so this is a handler that is called in another way.
        Err(Failure::permanent(format!("there is no transaction of {} here", Db::NAME)))
    }
}

/// [`Tx`] for a service that runs on several databases: its store decides which one it is.
pub struct AnyTx {
    session: Option<Box<dyn Session>>,
    work: Rc<Work>,
}

impl AnyTx {
    /// The database client's connection, if the service's store is of this database. See [`Tx::conn`].
    pub fn conn_of<Db: Database>(&mut self) -> Option<&mut Db::Connection> {
        if let Some(lent) = self.work.lent.get() {
            lent.holds_up_others.set(true);
        }
        self.connection::<Db>()
    }

    fn connection<Db: Database>(&mut self) -> Option<&mut Db::Connection> {
        self.session.as_mut()?.connection()?.downcast_mut()
    }

    pub(super) fn take(context: &Context) -> Result<Self, Failure> {
        let work = &context.work;
        match work.take_back() {
            Some(session) => Ok(Self { session: Some(session), work: Rc::clone(work) }),
            // The app checks stores before it starts, so this is a handler that is called in another way.
            None => Err(Failure::permanent("there is no transaction here")),
        }
    }
}

impl Drop for AnyTx {
    fn drop(&mut self) {
        // Also when the handler is dropped: whoever began the transaction ends it.
        if let Some(lent) = self.work.lent.get() {
            *lent.session.borrow_mut() = self.session.take();
        }
    }
}

/// What kept a handler from its work, and what the database said.
pub type Hindered = (Hindrance, String);

/// An open transaction that a handler is to get.
pub struct Lending {
    /// The transaction.
    pub session: Box<dyn Session>,
    /// Whether others wait for it from the beginning.
    pub holds_up_others: bool,
    /// Whether other messages are committed with it.
    pub shared: bool,
}

/// A transaction that was lent to a handler, and what it has done with it.
pub(super) struct Lent {
    /// The open transaction, while neither the handler nor its caller holds it.
    pub(super) session: RefCell<Option<Box<dyn Session>>>,
    /// Whether others wait for its locks.
    pub(super) holds_up_others: Cell<bool>,
    /// Whether other messages are committed with it.
    pub(super) shared: bool,
    /// Tells whether an error is not the handler's doing.
    pub(super) judge_error: JudgeError,
    /// What such an error said.
    pub(super) hindered: RefCell<Option<Hindered>>,
}

impl Lent {
    pub(super) fn new(lending: Lending) -> Self {
        let Lending { session, holds_up_others, shared } = lending;
        let judge_error = session.judge_error();
        Self {
            session: RefCell::new(Some(session)),
            holds_up_others: Cell::new(holds_up_others),
            shared,
            judge_error,
            hindered: RefCell::default(),
        }
    }
}
