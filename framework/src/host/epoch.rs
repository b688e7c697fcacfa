//! Whether the channel of a delivery is still open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_util::sync::CancellationToken;

/// One channel of a lane, as its deliveries see it.
#[derive(Debug)]
pub struct Epoch {
    live: AtomicBool,
    ended: CancellationToken,
}

impl Epoch {
    /// An epoch that ends at the latest when running handlers are dropped.
    #[must_use]
    pub fn begin(abandon: &CancellationToken) -> Arc<Self> {
        Arc::new(Self { live: AtomicBool::new(true), ended: abandon.child_token() })
    }

    /// The channel has closed: what was not begun is not to begin, and who listens stops.
    pub fn end(&self) {
        self.live.store(false, Ordering::Release);
        self.ended.cancel();
    }

    /// What was not begun is not to begin; what runs goes on.
    pub fn begin_nothing_more(&self) {
        self.live.store(false, Ordering::Release);
    }

    /// Fires when the channel has closed.
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
