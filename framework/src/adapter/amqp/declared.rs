//! The topology that this process has declared at the broker. It is declared again on a new connection, and when it was deleted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::adapter::amqp::{Binding, Declaration, DeclaredQueue, Destination};

/// All declarations of a process. Its connections share them.
#[derive(Default)]
pub(in crate::adapter) struct Declared(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    lasting: Declaration,
    /// Bindings of exclusive queues. They stay here while the queue is consumed.
    of_consumers: BTreeMap<u64, Vec<Binding>>,
    next: u64,
    /// Exchanges that a new connection had to declare again.
    found_missing: Vec<String>,
}

/// The bindings of an exclusive queue that is consumed. Dropping it forgets them.
pub(in crate::adapter) struct ConsumedBindings {
    declared: Arc<Declared>,
    number: u64,
}

impl Drop for ConsumedBindings {
    fn drop(&mut self) {
        self.declared.inner().of_consumers.remove(&self.number);
    }
}

impl Declared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a declaration.
    pub(in crate::adapter) fn add(&self, topology: &Declaration) {
        self.inner().lasting.extend(topology.clone());
    }

    /// Notes the topology that a consumer needs beside its queue. The consumer declares the queue itself each time it opens.
    /// Bindings of an exclusive queue are forgotten when the returned value is dropped.
    pub(in crate::adapter) fn consumes(
        self: &Arc<Self>,
        queue: &DeclaredQueue,
        needs: &Declaration,
    ) -> Option<ConsumedBindings> {
        let mut inner = self.inner();
        let Declaration { exchanges, bindings, .. } = needs.clone();
        if !queue.exclusive {
            inner.lasting.extend(Declaration { exchanges, queues: Vec::new(), bindings });
            return None;
        }
        inner.lasting.extend(Declaration { exchanges, ..Declaration::default() });
        let number = inner.next;
        inner.next += 1;
        inner.of_consumers.insert(number, bindings);
        Some(ConsumedBindings { declared: Arc::clone(self), number })
    }

    /// Forgets a topology that was removed on purpose.
    pub(in crate::adapter) fn remove(&self, topology: &Declaration) {
        let exchange_gone = |name: &str| topology.exchanges.iter().any(|gone| gone.name == name);
        let queue_gone = |name: &str| topology.queues.iter().any(|gone| gone.name == name);
        let ends = |declared: &Binding| match &declared.destination {
            Destination::Queue(queue) => queue_gone(queue),
            Destination::Exchange(exchange) => exchange_gone(exchange),
        };
        let lasting = &mut self.inner().lasting;
        lasting.exchanges.retain(|declared| !exchange_gone(&declared.name));
        lasting.queues.retain(|declared| !queue_gone(&declared.name));
        lasting.bindings.retain(|declared| {
            !topology.bindings.contains(declared) && !ends(declared) && !exchange_gone(&declared.source)
        });
    }

    /// The exchanges, and the bindings between them: all that publishing needs.
    pub(in crate::adapter) fn exchanges(&self) -> Declaration {
        let inner = self.inner();
        let joins = |binding: &&Binding| matches!(binding.destination, Destination::Exchange(_));
        let bindings = inner.lasting.bindings.iter().filter(joins).cloned().collect();
        Declaration { exchanges: inner.lasting.exchanges.clone(), queues: Vec::new(), bindings }
    }

    /// All declarations.
    pub(in crate::adapter) fn all(&self) -> Declaration {
        let inner = self.inner();
        let mut all = inner.lasting.clone();
        all.bindings.extend(inner.of_consumers.values().flatten().cloned());
        all
    }

    /// Notes exchanges that a new connection found missing. It declares them again, but not their bindings to queues.
    #[cfg_attr(not(feature = "rabbitmq"), expect(dead_code, reason = "in process there are no reconnects"))]
    pub(in crate::adapter) fn found_missing(&self, exchanges: Vec<String>) {
        self.inner().found_missing.extend(exchanges);
    }

    /// Takes the exchanges that were found missing since the last call.
    #[cfg_attr(not(feature = "rabbitmq"), expect(dead_code, reason = "in process there are no reconnects"))]
    pub(in crate::adapter) fn take_missing(&self) -> Vec<String> {
        std::mem::take(&mut self.inner().found_missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::amqp::{Exchange, ExchangeKind};
    use crate::broker::Queue;

    fn consumed(declared: &Arc<Declared>, queue: &Queue) -> Option<ConsumedBindings> {
        let bindings = vec![Binding::to_queue("e", "k", &queue.name)];
        let exchanges = vec![Exchange::new("e", ExchangeKind::Direct)];
        declared.consumes(&DeclaredQueue::of(queue), &Declaration { exchanges, queues: Vec::new(), bindings })
    }

    #[test]
    fn bindings_of_exclusive_queues_are_kept_while_these_are_consumed_and_others_for_good() {
        let declared = Arc::<Declared>::default();
        assert!(consumed(&declared, &Queue::replicated("lasts")).is_none());
        let living = consumed(&declared, &Queue::of_connection("mine"));
        assert_eq!((declared.all().bindings.len(), declared.all().exchanges.len()), (2, 1));
        drop(living);
        assert_eq!(declared.all().bindings, [Binding::to_queue("e", "k", "lasts")]);
        assert!(declared.exchanges().bindings.is_empty(), "a queue may not stand yet");
    }

    #[test]
    fn what_is_removed_on_purpose_is_not_declared_again() {
        let declared = Arc::<Declared>::default();
        let exchanges = vec![Exchange::new("e", ExchangeKind::Topic), Exchange::new("f", ExchangeKind::Topic)];
        let bindings = vec![Binding::to_queue("e", "#", "q"), Binding::to_exchange("e", "#", "f")];
        declared.add(&Declaration { exchanges, queues: vec![DeclaredQueue::replicated("q")], bindings });
        declared
            .remove(&Declaration { queues: vec![DeclaredQueue::of(&Queue::standing("q"))], ..Declaration::default() });
        assert_eq!(declared.all().bindings, [Binding::to_exchange("e", "#", "f")]);
        declared.remove(&Declaration {
            exchanges: vec![Exchange::new("e", ExchangeKind::Topic)],
            ..Declaration::default()
        });
        assert_eq!((declared.all().bindings.len(), declared.all().exchanges.len()), (0, 1));
    }
}
