//! Counts what has happened since the app started: attempts, sends, confirms, reconnects.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Counters since the app started, updated live.
        #[derive(Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: AtomicU64),* }

        /// A snapshot of the counters.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
        #[non_exhaustive]
        pub struct Stats { $($(#[$doc])* pub $name: u64),* }

        impl Counters {
            /// A snapshot of the present values.
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
    /// Attempts that rejected the message, and requests rejected because they would wait for themselves.
    rejected,
    /// Attempts that failed for good.
    failed_permanent,
    /// Attempts that failed and may succeed later.
    failed_transient,
    /// Attempts that panicked.
    panicked,
    /// Attempts that took too long.
    timed_out,
    /// Attempts that do not count, because Postrider or the broker failed.
    infrastructure,
    /// Deliveries whose payload could not be decoded.
    undecodable,
    /// Deliveries whose key no handler of this build takes.
    no_handler,
    /// Retries in place after a failed attempt.
    retried,
    /// Messages put into a dead-letter queue.
    dead_lettered,
    /// Messages put aside for a later attempt.
    delayed,
    /// Messages dropped because their policy discards the failure.
    discarded,
    /// Messages published when their delay was over.
    due,
    /// Events that no queue took.
    unrouted,
    /// Replies that arrived after the caller had stopped waiting, or a second time.
    late_replies,
    /// Replies that could not be sent, for example because the address was made up or the broker was away too long.
    lost_replies,
    /// Messages dropped because the caller no longer waits for the answer.
    expired,
    /// Messages that were not for this service or instance, and redelivered queries that were already answered.
    skipped,
    /// Deliveries given back to their queue.
    given_back,
    /// Deliveries dropped before their handler ran, because their channel had closed; the broker sends them again.
    stale,
    /// Redeliveries that took the outcome of another delivery of the same message, or waited for it.
    joined,
    /// Messages that the inbox knew: they were handled before, and were only answered again.
    duplicates,
    /// Transactions of handlers that were committed. A shared commit counts once.
    commits,
    /// Times a handler's message was sent again, because the broker rejected it or may not have it.
    resent,
    /// Messages sent and accepted by the broker.
    sent,
    /// Messages that the relay sent from the outbox.
    relayed,
    /// Messages of the outbox that were put aside because they cannot be sent.
    parked,
    /// Deliveries held right now.
    in_flight,
    /// Free permits: deliveries that may still be taken right now.
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
