//! Whether the caller of a request is still there. If an ordinary reply queue is gone, the broker returns messages to it. It
//! returns every message sent to a direct reply-to address (<https://www.rabbitmq.com/docs/direct-reply-to>), so that address is
//! inspected instead.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use tokio::time::Instant;

use crate::broker::Broker;

/// How long a caller that was found is not inspected again. Each inspection takes a channel.
const LOOKED_FOR_EVERY: Duration = Duration::from_secs(1);
/// The most addresses remembered per actor. Above this number all are forgotten and inspected again.
const MOST_REMEMBERED: usize = 1_024;

/// The direct addresses at which a caller was found a moment ago.
#[derive(Default)]
pub(super) struct Callers(RefCell<HashMap<Arc<str>, Instant>>);

impl Callers {
    /// Whether a caller is at a direct address. If the broker does not answer, because another caller's address has cost the
    /// connection, it is asked once more. If it still does not answer, the caller counts as gone: a needless dead letter costs
    /// less than silence.
    pub(super) async fn are_at(&self, address: &Arc<str>, broker: &dyn Broker) -> bool {
        if self.were_at(address) {
            return true;
        }
        let state = match broker.inspect(address).await {
            Err(_) => broker.inspect(address).await,
            state => state,
        };
        let there = matches!(state, Ok(Some(_)));
        if there {
            self.found(Arc::clone(address));
        }
        there
    }

    fn were_at(&self, address: &str) -> bool {
        self.0.borrow().get(address).is_some_and(|at| at.elapsed() < LOOKED_FOR_EVERY)
    }

    fn found(&self, address: Arc<str>) {
        let mut known = self.0.borrow_mut();
        if known.len() >= MOST_REMEMBERED {
            known.clear();
        }
        known.insert(address, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_looked_for_again_and_only_so_many_are_remembered() {
        let callers = Callers::default();
        assert!(!callers.were_at("a"));
        for number in 0..2 * MOST_REMEMBERED {
            callers.found(number.to_string().into());
            assert!(callers.were_at(&number.to_string()) && callers.0.borrow().len() <= MOST_REMEMBERED);
        }
        let long_ago = Instant::now().checked_sub(LOOKED_FOR_EVERY).unwrap();
        callers.0.borrow_mut().insert("gone".into(), long_ago);
        assert!(!callers.were_at("gone"));
    }
}
