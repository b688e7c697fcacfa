//! The queue for delayed messages that are due to be published.

use crate::broker::{Names, Queue, Source, Subscription, Target, Topology};

/// The queue of due messages.
#[must_use]
pub fn due_queue(names: &Names) -> Queue {
    // Only a last resort: our own attempts decide when to give up.
    Queue::replicated(names.due()).with_last_resort(names.dead_queue(&names.due()))
}

/// The queue of due messages, its dead-letter queue and its subscription.
#[must_use]
pub fn due_topology(names: &Names) -> Topology {
    let target = Target::Queue(names.due());
    Topology {
        sources: vec![Source::Due],
        queues: vec![due_queue(names), Queue::replicated(names.dead_queue(&names.due()))],
        subscriptions: vec![Subscription { source: Source::Due, pattern: String::new(), target }],
        ..Topology::default()
    }
}
