//! A store as the actors of a process share it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::store::pool::Pool;
use crate::store::{PooledSession, Store, StoreError};

/// A service's store, and what its users in this process tell each other. Clones share it.
#[derive(Clone)]
pub struct StoreHandle {
    store: Arc<dyn Store>,
    wake: Arc<Notify>,
    problem: Arc<Mutex<Option<String>>>,
    /// Why messages of the outbox wait for too long.
    alarm: Arc<Mutex<Option<String>>>,
    lock_timeout: Duration,
    pool: Pool,
    /// The statements with which the process has prepared it.
    prepared: Arc<Mutex<Vec<String>>>,
}

impl StoreHandle {
    /// A handle on an open store. `lock_timeout` is how long a transaction waits for another one, `connections` how many
    /// transactions outside of handlers there may be at once.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, lock_timeout: Duration, connections: usize) -> Self {
        let pool = Pool::new(connections);
        Self {
            store,
            wake: Arc::default(),
            problem: Arc::default(),
            alarm: Arc::default(),
            lock_timeout,
            pool,
            prepared: Arc::default(),
        }
    }

    /// A session for a transaction outside of a handler.
    ///
    /// # Errors
    /// When the store does not do its work.
    pub async fn pooled_session(&self) -> Result<PooledSession, StoreError> {
        self.pool.take(&*self.store).await
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Runs statements of the service's own, once in this process.
    ///
    /// # Errors
    /// When the database refuses them or does not do its work.
    pub async fn prepare(&self, statements: &str) -> Result<(), StoreError> {
        let of = |prepared: &Mutex<Vec<String>>| prepared.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if of(&self.prepared).iter().any(|known| known == statements) {
            return Ok(());
        }
        self.store.prepare(statements).await?;
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner).push(statements.to_owned());
        Ok(())
    }

    /// How long a transaction waits for another one.
    #[must_use]
    pub fn lock_timeout(&self) -> Duration {
        self.lock_timeout
    }

    /// Tells the relay that rows were committed.
    pub fn wake_relay(&self) {
        self.wake.notify_one();
    }

    /// Waits until [`StoreHandle::wake_relay`] was called since the last wait.
    pub async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Notes that the store does not do its work, or does it again. Shown to people until it does.
    pub fn note(&self, error: Option<&StoreError>) {
        let mut problem = self.problem.lock().unwrap_or_else(PoisonError::into_inner);
        // Nearly always there is none, before and after.
        if problem.is_some() || error.is_some() {
            *problem = error.map(ToString::to_string);
        }
    }

    /// Notes that messages of the outbox wait for too long, or no longer do.
    pub fn note_outbox(&self, alarm: Option<String>) {
        *self.alarm.lock().unwrap_or_else(PoisonError::into_inner) = alarm;
    }

    /// Why the store does not do its work right now, or what waits in it for too long.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let of = |text: &Mutex<Option<String>>| text.lock().unwrap_or_else(PoisonError::into_inner).clone();
        of(&self.problem).or_else(|| of(&self.alarm))
    }
}
