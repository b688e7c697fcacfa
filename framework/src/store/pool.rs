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
    most: usize,
}

impl Pool {
    pub(super) fn new(most: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(most)), idle: Arc::default(), most }
    }

    /// A session; waits while as many are out as there may be.
    pub(super) async fn take(&self, store: &dyn Store) -> Result<PooledSession, StoreError> {
        let closed = |_| StoreError::Unavailable { store: store.describe().to_owned(), reason: "it was closed".into() };
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(closed)?;
        let runtime = Handle::current().id();
        let kept = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let place = idle.iter().position(|(of, _)| *of == runtime);
            place.map(|place| idle.remove(place).1)
        };
        let session = match kept {
            Some(session) => session,
            None => store.session().await?,
        };
        Ok(PooledSession { session, runtime, idle: Arc::clone(&self.idle), most: self.most, _permit: permit })
    }
}

/// A session of the pool. Dropping it closes it, which ends its transaction.
pub struct PooledSession {
    session: Box<dyn Session>,
    runtime: Id,
    idle: Arc<Mutex<Vec<Idle>>>,
    most: usize,
    _permit: OwnedSemaphorePermit,
}

impl PooledSession {
    /// The session.
    pub fn get(&mut self) -> &mut dyn Session {
        &mut *self.session
    }

    /// Keeps the session, whose transaction has ended, for the next one.
    pub fn keep(self) {
        let Self { session, runtime, idle, most, _permit } = self;
        if !session.is_usable() {
            return;
        }
        let mut idle = idle.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of a runtime that has ended are used no more. They are the oldest.
        if idle.len() >= most {
            idle.remove(0);
        }
        idle.push((runtime, session));
    }
}
