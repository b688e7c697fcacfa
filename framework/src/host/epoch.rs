//! Tells deliveries whether their channel is still open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

/// One channel of a lane, as its deliveries see it.
#[derive(Debug)]
pub struct Epoch {
    live: AtomicBool,
    /// Whether its deliveries must begin in their order.
    pub(super) ordered: bool,
    ended: CancellationToken,
}

impl Epoch {
    /// An epoch with an open channel. [`Epoch::ended`] fires at the latest when running handlers are dropped.
    #[must_use]
    pub fn begin(abandon: &CancellationToken, ordered: bool) -> Arc<Self> {
        Arc::new(Self { live: AtomicBool::new(true), ordered, ended: abandon.child_token() })
    }

    /// The channel has closed. Deliveries that have not begun do not begin, and [`Epoch::ended`] fires.
    pub fn end(&self) {
        self.live.store(false, Ordering::Release);
        self.ended.cancel();
    }

    /// Deliveries that have not begun do not begin; running ones go on.
    pub fn begin_nothing_more(&self) {
        self.live.store(false, Ordering::Release);
    }

    /// Fires when the channel has closed, or when running handlers are dropped.
    #[must_use]
    pub fn ended(&self) -> &CancellationToken {
        &self.ended
    }

    /// Whether deliveries may still begin.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live.load(Ordering::Acquire)
    }
}
