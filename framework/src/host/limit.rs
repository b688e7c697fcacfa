//! Limits how many handlers run at once on a lane. The limit can change meanwhile.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::{Notify, watch};

/// The slots of one lane. Lock order: take the state lock before a slot. A task that holds a slot must not wait for the lock.
#[derive(Clone)]
pub(super) struct Slots {
    most: watch::Receiver<usize>,
    shared: Rc<Shared>,
}

struct Shared {
    running: Cell<usize>,
    freed: Notify,
}

/// One slot; dropping it frees it.
pub(super) struct Slot(Rc<Shared>);

impl Slots {
    pub(super) fn new(most: watch::Receiver<usize>) -> Self {
        Self { most, shared: Rc::new(Shared { running: Cell::new(0), freed: Notify::new() }) }
    }

    /// Takes a slot; waits until one is free.
    pub(super) async fn take(&mut self) -> Slot {
        loop {
            let running = self.shared.running.get();
            if running < (*self.most.borrow_and_update()).max(1) {
                self.shared.running.set(running + 1);
                return Slot(Rc::clone(&self.shared));
            }
            tokio::select! {
                biased;
                () = self.shared.freed.notified() => {}
                Ok(()) = self.most.changed() => {}
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.running.set(self.0.running.get() - 1);
        self.0.freed.notify_one();
    }
}
