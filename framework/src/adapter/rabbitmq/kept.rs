//! What is to stand at the broker as long as this process lives: what it has declared, and the bindings of what it consumes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::broker::{Binding, ConsumerSpec, Destination, Topology};

/// Shared by all connections of a process.
#[derive(Default)]
pub(super) struct Kept(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    lasting: Topology,
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
    pub(super) fn add(&self, topology: &Topology) {
        self.inner().lasting.extend(topology.clone());
    }

    /// This is consumed from now on. Queues that last are declared by whoever consumes them.
    pub(super) fn consumes(self: &Arc<Self>, spec: &ConsumerSpec) -> Option<Living> {
        let mut inner = self.inner();
        let Topology { exchanges, bindings, .. } = spec.topology.clone();
        if !spec.queue.exclusive {
            inner.lasting.extend(Topology { exchanges, queues: Vec::new(), bindings });
            return None;
        }
        inner.lasting.extend(Topology { exchanges, ..Topology::default() });
        let number = inner.next;
        inner.next += 1;
        inner.living.insert(number, bindings);
        Some(Living { kept: Arc::clone(self), number })
    }

    /// This was removed on purpose.
    pub(super) fn remove(&self, topology: &Topology) {
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
    pub(super) fn exchanges(&self) -> Topology {
        let inner = self.inner();
        let joins = |binding: &&Binding| matches!(binding.destination, Destination::Exchange(_));
        let bindings = inner.lasting.bindings.iter().filter(joins).cloned().collect();
        Topology { exchanges: inner.lasting.exchanges.clone(), queues: Vec::new(), bindings }
    }

    /// All of it.
    pub(super) fn all(&self) -> Topology {
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
    use crate::broker::{Exchange, ExchangeKind, Queue};

    fn spec(queue: Queue) -> ConsumerSpec {
        let bindings = vec![Binding::to_queue("e", "k", &queue.name)];
        let exchanges = vec![Exchange::new("e", ExchangeKind::Direct)];
        let topology = Topology { exchanges, queues: Vec::new(), bindings };
        ConsumerSpec { queue, topology, prefetch: 1, answers: false }
    }

    #[test]
    fn bindings_of_exclusive_queues_are_kept_while_these_are_consumed_and_others_for_good() {
        let kept = Arc::<Kept>::default();
        assert!(kept.consumes(&spec(Queue::quorum("lasts"))).is_none());
        let living = kept.consumes(&spec(Queue::exclusive("mine")));
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
        kept.add(&Topology { exchanges, queues: vec![Queue::quorum("q")], bindings });
        kept.remove(&Topology { queues: vec![Queue::standing("q")], ..Topology::default() });
        assert_eq!(kept.all().bindings, [Binding::to_exchange("e", "#", "f")]);
        kept.remove(&Topology { exchanges: vec![Exchange::new("e", ExchangeKind::Topic)], ..Topology::default() });
        assert_eq!((kept.all().bindings.len(), kept.all().exchanges.len()), (0, 1));
    }
}
