//! Which handlers take part in shared commits, and how many messages such a commit may have.

use std::cell::{Cell, RefCell};
use std::time::Duration;

/// How long messages wait for those behind them in a shared commit. A handler that ran longer is committed alone.
pub(super) const SHARED_FOR: Duration = Duration::from_millis(20);

/// What is known of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Known {
    /// It has not run alone yet.
    #[default]
    Nothing,
    /// It was quick and asked nobody.
    Shares,
    /// It was slow the last time.
    Slow,
    /// It asks other handlers while its neighbours' rows would stay locked, or it has ended a transaction itself.
    Alone,
}

/// What one actor has learned about its handlers.
#[derive(Debug)]
pub(super) struct Sharing {
    /// The most messages of one commit.
    most: usize,
    /// The most messages of the next commit: less for a while after one of them has failed.
    next: Cell<usize>,
    /// By the handler's place in the table.
    handlers: RefCell<Vec<Known>>,
}

impl Sharing {
    pub(super) fn new(most: usize) -> Self {
        Self { most, next: Cell::new(most), handlers: RefCell::default() }
    }

    /// The most messages that may be committed together now.
    pub(super) fn limit(&self) -> usize {
        self.next.get()
    }

    /// Whether messages of this handler may be committed with others.
    pub(super) fn shares(&self, handler: usize) -> bool {
        self.handlers.borrow().get(handler) == Some(&Known::Shares)
    }

    /// Notes how a handler ran.
    pub(super) fn learn(&self, handler: usize, took: Duration, asked: bool) {
        self.note(handler, |known| match known {
            Known::Alone => Known::Alone,
            _ if asked => Known::Alone,
            _ if took >= SHARED_FOR => Known::Slow,
            _ => Known::Shares,
        });
    }

    /// From now on the handler's messages are committed alone.
    pub(super) fn never(&self, handler: usize) {
        self.note(handler, |_| Known::Alone);
    }

    fn note(&self, handler: usize, next: impl FnOnce(Known) -> Known) {
        let mut handlers = self.handlers.borrow_mut();
        if handlers.len() <= handler {
            handlers.resize(handler + 1, Known::default());
        }
        handlers[handler] = next(handlers[handler]);
    }

    /// A shared commit took place.
    pub(super) fn succeeded(&self) {
        self.next.set((2 * self.next.get()).min(self.most));
    }

    /// A shared commit did not take place: the next ones are smaller, so that less is handled twice.
    pub(super) fn failed(&self) {
        self.next.set(2.min(self.most));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_millis(1);

    #[test]
    fn a_handler_shares_after_it_was_quick_alone_and_one_that_asks_never_does() {
        let sharing = Sharing::new(32);
        assert!(!sharing.shares(3), "it has not run");
        sharing.learn(3, QUICK, false);
        assert!(sharing.shares(3));
        assert!(!sharing.shares(2));
        sharing.learn(3, SHARED_FOR, false);
        assert!(!sharing.shares(3), "it was slow");
        sharing.learn(3, QUICK, false);
        assert!(sharing.shares(3), "it is quick again");
        sharing.learn(3, QUICK, true);
        sharing.learn(3, QUICK, false);
        assert!(!sharing.shares(3), "it asked once");
    }

    #[test]
    fn after_a_failure_commits_are_small_and_grow_again() {
        let sharing = Sharing::new(32);
        sharing.failed();
        let limits = std::iter::repeat_with(|| {
            let limit = sharing.limit();
            sharing.succeeded();
            limit
        });
        assert_eq!(limits.take(6).collect::<Vec<_>>(), [2, 4, 8, 16, 32, 32]);
        let alone = Sharing::new(1);
        alone.succeeded();
        assert_eq!(alone.limit(), 1);
        alone.failed();
        assert_eq!(alone.limit(), 1);
    }
}
