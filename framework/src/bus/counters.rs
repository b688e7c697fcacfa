//! Counts what has happened since the app started: attempts, sends, confirms, reconnects.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What happened since the app started, counted as it happens.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: AtomicU64),* }

        /// A snapshot of the counters.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
        #[non_exhaustive]
        pub struct Stats { $($(#[$doc])* pub $name: u64),* }

        impl Counters {
            /// What has been counted so far.
            #[must_use]
            pub fn snapshot(&self) -> Stats {
                Stats { $($name: self.$name.load(Ordering::Relaxed)),* }
            }
        }
    };
}

counters! {
    /// Deliveries whose handler succeeded.
    handled,
    /// Deliveries whose handler rejected them.
    rejected,
    /// Attempts that failed for good.
    failed_permanent,
    /// Attempts that failed and may succeed later.
    failed_transient,
    /// Attempts that panicked.
    panicked,
    /// Attempts that took too long.
    timed_out,
    /// Attempts that did not count because something of ours failed.
    infrastructure,
    /// Deliveries whose payload could not be decoded.
    undecodable,
    /// Deliveries with a key that no handler of this build takes.
    no_handler,
    /// Attempts that followed a failed one.
    retried,
    /// Messages put into a dead-letter queue.
    dead_lettered,
    /// Messages put aside for a later attempt.
    delayed,
    /// Messages dropped in the end, as their policy says.
    discarded,
    /// Messages published when their delay was over.
    due,
    /// Events that no queue took.
    unrouted,
    /// Replies that came when nobody waited any more, or twice.
    late_replies,
    /// Replies that could not be sent: the address was made up, say, or the broker was gone for too long.
    lost_replies,
    /// Messages dropped because nobody waits for their answer any more.
    expired,
    /// Messages that were not for this service or instance.
    skipped,
    /// Deliveries given back to their queue.
    given_back,
    /// Deliveries dropped before their handler because their channel had closed; the broker sends them again.
    stale,
    /// Deliveries that took the outcome of another delivery of the same message.
    joined,
    /// Times that what a handler sent was sent again, because it was refused or not known to have arrived.
    resent,
    /// Messages sent and accepted by the broker.
    sent,
    /// Deliveries held right now.
    in_flight,
    /// Deliveries that may still be taken right now.
    permits,
    /// Times a consumer was opened again because its queue had messages that were not delivered.
    stalls,
    /// Times a consumer was opened.
    consumers_opened,
}

impl Counters {
    /// Counts one more.
    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one less.
    pub fn sub(counter: &AtomicU64) {
        counter.fetch_sub(1, Ordering::Relaxed);
    }
}
