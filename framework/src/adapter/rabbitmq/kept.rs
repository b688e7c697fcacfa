//! What is to stand at the broker as long as this process lives: what it has declared, and the bindings of what it consumes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::adapter::amqp::{Binding, Declaration, DeclaredQueue, Destination};

/// Shared by all connections of a process.
#[derive(Default)]
pub(super) struct Kept(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    lasting: Declaration,
    /// Bindings of exclusive queues, as long as these are consumed.
    living: HashMap<u64, Vec<Binding>>,
    next: u64,
    /// Exchanges that were gone when a connection was new.
    found_missing: Vec<String>,
}

/// While it lives the bindings of an exclusive queue are kept.
pub(super) struct Living {
    kept: Arc<Kept>,
    number: u64,
}

impl Drop for Living {
    fn drop(&mut self) {
        self.kept.inner().living.remove(&self.number);
    }
}

impl Kept {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This was declared.
    pub(super) fn add(&self, topology: &Declaration) {
        self.inner().lasting.extend(topology.clone());
    }

    /// A queue is consumed from now on, with what it needs beside it. Queues that last are declared by whoever consumes them.
    pub(super) fn consumes(self: &Arc<Self>, queue: &DeclaredQueue, needs: &Declaration) -> Option<Living> {
        let mut inner = self.inner();
        let Declaration { exchanges, bindings, .. } = needs.clone();
        if !queue.exclusive {
            inner.lasting.extend(Declaration { exchanges, queues: Vec::new(), bindings });
            return None;
        }
        inner.lasting.extend(Declaration { exchanges, ..Declaration::default() });
        let number = inner.next;
        inner.next += 1;
        inner.living.insert(number, bindings);
        Some(Living { kept: Arc::clone(self), number })
    }

    /// This was removed on purpose.
    pub(super) fn remove(&self, topology: &Declaration) {
        let exchange_gone = |name: &str| topology.exchanges.iter().any(|gone| gone.name == name);
        let queue_gone = |name: &str| topology.queues.iter().any(|gone| gone.name == name);
        let ends = |kept: &Binding| match &kept.destination {
            Destination::Queue(queue) => queue_gone(queue),
            Destination::Exchange(exchange) => exchange_gone(exchange),
        };
        let lasting = &mut self.inner().lasting;
        lasting.exchanges.retain(|kept| !exchange_gone(&kept.name));
        lasting.queues.retain(|kept| !queue_gone(&kept.name));
        lasting
            .bindings
            .retain(|kept| !topology.bindings.contains(kept) && !ends(kept) && !exchange_gone(&kept.source));
    }

    /// What must stand before anything is published: exchanges, and what joins them.
    pub(super) fn exchanges(&self) -> Declaration {
        let inner = self.inner();
        let joins = |binding: &&Binding| matches!(binding.destination, Destination::Exchange(_));
        let bindings = inner.lasting.bindings.iter().filter(joins).cloned().collect();
        Declaration { exchanges: inner.lasting.exchanges.clone(), queues: Vec::new(), bindings }
    }

    /// All of it.
    pub(super) fn all(&self) -> Declaration {
        let inner = self.inner();
        let mut all = inner.lasting.clone();
        all.bindings.extend(inner.living.values().flatten().cloned());
        all
    }

    /// These were gone, and a new connection declares them again, without their bindings to queues.
    pub(super) fn found_missing(&self, exchanges: Vec<String>) {
        self.inner().found_missing.extend(exchanges);
    }

    /// What was found missing since this was asked last.
    pub(super) fn take_missing(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().found_missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::amqp::{Exchange, ExchangeKind};
    use crate::broker::Queue;

    fn consumed(kept: &Arc<Kept>, queue: &Queue) -> Option<Living> {
        let bindings = vec![Binding::to_queue("e", "k", &queue.name)];
        let exchanges = vec![Exchange::new("e", ExchangeKind::Direct)];
        kept.consumes(&DeclaredQueue::of(queue), &Declaration { exchanges, queues: Vec::new(), bindings })
    }

    #[test]
    fn bindings_of_exclusive_queues_are_kept_while_these_are_consumed_and_others_for_good() {
        let kept = Arc::<Kept>::default();
        assert!(consumed(&kept, &Queue::replicated("lasts")).is_none());
        let living = consumed(&kept, &Queue::of_connection("mine"));
        assert_eq!((kept.all().bindings.len(), kept.all().exchanges.len()), (2, 1));
        drop(living);
        assert_eq!(kept.all().bindings, [Binding::to_queue("e", "k", "lasts")]);
        assert!(kept.exchanges().bindings.is_empty(), "a queue may not stand yet");
    }

    #[test]
    fn what_is_removed_on_purpose_is_not_declared_again() {
        let kept = Arc::<Kept>::default();
        let exchanges = vec![Exchange::new("e", ExchangeKind::Topic), Exchange::new("f", ExchangeKind::Topic)];
        let bindings = vec![Binding::to_queue("e", "#", "q"), Binding::to_exchange("e", "#", "f")];
        kept.add(&Declaration { exchanges, queues: vec![DeclaredQueue::replicated("q")], bindings });
        kept.remove(&Declaration { queues: vec![DeclaredQueue::of(&Queue::standing("q"))], ..Declaration::default() });
        assert_eq!(kept.all().bindings, [Binding::to_exchange("e", "#", "f")]);
        kept.remove(&Declaration {
            exchanges: vec![Exchange::new("e", ExchangeKind::Topic)],
            ..Declaration::default()
        });
        assert_eq!((kept.all().bindings.len(), kept.all().exchanges.len()), (0, 1));
    }
}
