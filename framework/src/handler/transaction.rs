//! `Tx` gives a handler the transaction in which its message is handled.

use std::any::Any;
use std::marker::PhantomData;
use std::rc::Rc;

use crate::handler::{Context, Failure, Work};
use crate::store::{Database, Session};

/// The transaction in which a message is handled: `async fn pay(&mut self, pay: Pay, tx: &mut Tx<Sqlite>)`.
///
/// What the handler writes on [`Tx::conn`], what it sends, and that the message was handled are committed together when it
/// succeeds, or not at all. The handler cannot end the transaction; it may begin further ones inside of it.
pub struct Tx<Db: Database> {
    session: Option<Box<dyn Session>>,
    work: Rc<Work>,
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
        self.work.transaction.set(TransactionUse::Touched);
        let connection = self.session.as_mut().and_then(|session| session.connection());
        let connection = connection.and_then(<dyn Any>::downcast_mut);
        #[allow(clippy::expect_used, reason = "the type of the connection was looked at when the value was made")]
        connection.expect("a session of this database")
    }

    pub(super) fn take(context: &Context) -> Result<Self, Failure> {
        let work = &context.work;
        let session = work.session.borrow_mut().take();
        let mut tx = Self { session, work: Rc::clone(work), database: PhantomData };
        let connection = tx.session.as_mut().and_then(|session| session.connection());
        if connection.is_some_and(|connection| connection.is::<Db::Connection>()) {
            return Ok(tx);
        }
        // The app checks stores before it starts, so this is a handler that is called in another way.
        Err(Failure::permanent(format!("there is no transaction of {} here", Db::NAME)))
    }
}

impl<Db: Database> Drop for Tx<Db> {
    fn drop(&mut self) {
        // Also when the handler is dropped: whoever began the transaction ends it.
        *self.work.session.borrow_mut() = self.session.take();
    }
}

/// What a handler has done with its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TransactionUse {
    /// It has none.
    #[default]
    None,
    /// It is open. Nothing was done on it, and others wait for nothing.
    Open,
    /// It is open, and whoever writes to the same store waits for it.
    OpenAlone,
    /// The handler has used it.
    Touched,
}
