//! Sessions for transactions outside of handlers.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::{Handle, Id};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::store::{Session, Store, StoreError};

/// A session that is kept for the next transaction, and the runtime that serves its socket.
type Idle = (Id, Box<dyn Session>);

/// The sessions of a process beside those of its handlers. A session is used on the runtime that opened it.
#[derive(Clone)]
pub(super) struct Pool {
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Idle>>>,
}

impl Pool {
    pub(super) fn new(most: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(most)), idle: Arc::default() }
    }

    /// A session; waits while as many are out as there may be.
    pub(super) async fn take(&self, store: &dyn Store) -> Result<PooledSession, StoreError> {
        let closed = |_| StoreError::Unavailable { store: store.describe().to_owned(), reason: "it was closed".into() };
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(closed)?;
        let runtime = Handle::current().id();
        let kept = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let place = idle.iter().position(|(of, _)| *of == runtime);
            place.map(|place| idle.swap_remove(place).1)
        };
        let session = match kept {
            Some(session) => session,
            None => store.session().await?,
        };
        Ok(PooledSession { session, runtime, idle: Arc::clone(&self.idle), _permit: permit })
    }
}

/// A session of the pool. Dropping it closes it, which ends its transaction.
pub struct PooledSession {
    session: Box<dyn Session>,
    runtime: Id,
    idle: Arc<Mutex<Vec<Idle>>>,
    _permit: OwnedSemaphorePermit,
}

impl PooledSession {
    /// The session.
    pub fn get(&mut self) -> &mut dyn Session {
        &mut *self.session
    }

    /// Keeps the session, whose transaction has ended, for the next one.
    pub fn keep(self) {
        let Self { session, runtime, idle, _permit } = self;
        if session.is_usable() {
            idle.lock().unwrap_or_else(PoisonError::into_inner).push((runtime, session));
        }
    }
}
