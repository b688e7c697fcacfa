//! An actor's state behind its lock, and how the factory replaces it.

use std::cell::{Cell, RefCell};
use std::panic::AssertUnwindSafe;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::handler::{Failure, State};
use crate::message::is_logged;
use crate::supervise::Backoff;

/// Makes the state of an actor: at the start, and again after a panic or a time-out of an exclusive handler.
pub type Factory = Rc<dyn Fn() -> LocalBoxFuture<'static, Result<State, Failure>>>;

/// The first pause after a factory failed. Each pause doubles, up to `LAST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two tries of a factory.
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// The locked state: shared for `&self` handlers, exclusive for `&mut self`.
pub(super) enum Guard {
    /// Several handlers of one batch share it.
    Shared(Rc<OwnedRwLockReadGuard<Option<State>>>),
    Exclusive(OwnedRwLockWriteGuard<Option<State>>),
}

impl Guard {
    /// Another handle on shared state.
    pub(super) fn share(&self) -> Option<Self> {
        match self {
            Self::Shared(guard) => Some(Self::Shared(Rc::clone(guard))),
            Self::Exclusive(_) => None,
        }
    }
}

/// The state behind a fair lock, which is granted in the order of the requests.
pub(super) struct StateCell {
    /// An `Arc`, because owned guards need one; it never leaves its thread.
    lock: Arc<RwLock<Option<State>>>,
    /// The shared guards: at most one for each running handler, and some that are dropped already.
    shared: RefCell<Vec<Weak<OwnedRwLockReadGuard<Option<State>>>>>,
    broken: Cell<bool>,
    /// How many tasks wait for exclusive state.
    writers: Rc<Cell<usize>>,
    factory: Factory,
    actor: &'static str,
}

impl StateCell {
    #[allow(clippy::arc_with_non_send_sync, reason = "tokio's owned guards take an Arc; state stays on its arbiter")]
    pub(super) fn new(state: State, factory: Factory, actor: &'static str) -> Self {
        Self {
            lock: Arc::new(RwLock::new(Some(state))),
            shared: RefCell::default(),
            broken: Cell::new(false),
            writers: Rc::default(),
            factory,
            actor,
        }
    }

    /// The state can no longer be trusted. The next handler that takes the lock replaces it.
    pub(super) fn mark_broken(&self) {
        self.broken.set(true);
    }

    /// Whether the state is to be replaced.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// The lock, if it is free and the state is not broken.
    pub(super) fn try_lock(&self, exclusive: bool) -> Option<Guard> {
        if self.broken.get() {
            return None;
        }
        let guard = if exclusive {
            Guard::Exclusive(Arc::clone(&self.lock).try_write_owned().ok().filter(|state| state.is_some())?)
        } else {
            self.share(Arc::clone(&self.lock).try_read_owned().ok().filter(|state| state.is_some())?)
        };
        Some(guard)
    }

    fn share(&self, guard: OwnedRwLockReadGuard<Option<State>>) -> Guard {
        let (guard, mut shared) = (Rc::new(guard), self.shared.borrow_mut());
        shared.retain(|other| other.strong_count() > 0);
        shared.push(Rc::downgrade(&guard));
        Guard::Shared(guard)
    }

    /// How many tasks wait for exclusive state.
    pub(super) fn writers(&self) -> Rc<Cell<usize>> {
        Rc::clone(&self.writers)
    }

    /// The shared state, if a handler shares it right now.
    pub(super) fn shared(&self) -> Option<Guard> {
        self.shared.borrow().iter().find_map(Weak::upgrade).map(Guard::Shared)
    }

    /// Takes the lock, in the order of the calls. Rebuilds the state if it is broken.
    pub(super) async fn lock(&self, exclusive: bool) -> Guard {
        if !exclusive && !self.broken.get() {
            let guard = Arc::clone(&self.lock).read_owned().await;
            if !self.broken.get() && guard.is_some() {
                return self.share(guard);
            }
        }
        let waits = Writer::waits(&self.writers);
        let mut guard = Arc::clone(&self.lock).write_owned().await;
        drop(waits);
        if self.broken.get() || guard.is_none() {
            self.rebuild(&mut guard).await;
        }
        if exclusive { Guard::Exclusive(guard) } else { self.share(guard.downgrade()) }
    }

    /// Rebuilds the state, for as long as it takes: without state the actor can do nothing. The pause between tries is bounded,
    /// and stopping the app drops this future.
    async fn rebuild(&self, slot: &mut Option<State>) {
        let old = slot.take();
        if std::panic::catch_unwind(AssertUnwindSafe(|| drop(old))).is_err()
            && is_logged("dropping the broken state panicked", self.actor)
        {
            tracing::error!(actor = self.actor, "dropping the broken state panicked");
        }
        let mut backoff = Backoff::new(FIRST_PAUSE, LAST_PAUSE);
        while slot.is_none() {
            match AssertUnwindSafe((self.factory)()).catch_unwind().await {
                Ok(Ok(state)) => *slot = Some(state),
                Ok(Err(failure)) => {
                    tracing::error!(actor = self.actor, error = %failure, pause = ?backoff.pause(), "the state cannot be made; trying again")
                }
                Err(_) => {
                    tracing::error!(actor = self.actor, pause = ?backoff.pause(), "making the state panicked; trying again")
                }
            }
            if slot.is_none() {
                tokio::time::sleep(backoff.pause()).await;
                backoff.grow();
            }
        }
        self.broken.set(false);
        if is_logged("the state was made again", self.actor) {
            tracing::info!(actor = self.actor, "the state was made again");
        }
    }
}

/// Counts one task that waits for exclusive state, until dropped.
struct Writer(Rc<Cell<usize>>);

impl Writer {
    fn waits(writers: &Rc<Cell<usize>>) -> Self {
        writers.set(writers.get() + 1);
        Self(Rc::clone(writers))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
