//! Where messages wait that are due to be published: those whose delay is over.

use crate::broker::{Names, Queue, Source, Subscription, Target, Topology};

/// The queue of what is due.
#[must_use]
pub fn due_queue(names: &Names) -> Queue {
    // Only as a last resort: our own attempts decide.
    Queue::replicated(names.due()).with_last_resort(names.dead_queue(&names.due()))
}

/// The queue of what is due, that of its dead letters, and what goes into it.
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
