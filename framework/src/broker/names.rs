//! The names of queues, the same for all adapters.

use std::sync::Arc;

use postrider_grammar::{NameError, check_word};

use crate::message::Kind;

/// The names of queues in one namespace. Adapters add names for the rest of their broker's topology. See
/// `docs/wire.md`, "Names".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    namespace: Arc<str>,
    /// The namespace with each kind behind it; nothing for replies.
    kinds: Arc<[Arc<str>; Kind::ALL.len()]>,
}

impl Default for Names {
    fn default() -> Self {
        Self::of_namespace("postrider")
    }
}

impl Names {
    /// The names in the namespace `postrider` or another word.
    ///
    /// # Errors
    /// When the namespace is not one word `[a-z][a-z0-9-]*` of at most 60 bytes.
    pub fn new(namespace: &str) -> Result<Self, NameError> {
        check_word("namespace", namespace)?;
        Ok(Self::of_namespace(namespace))
    }

    fn of_namespace(namespace: &str) -> Self {
        let of_kind = |kind: Kind| match kind {
            Kind::Reply => "".into(),
            kind => format!("{namespace}.{kind}").into(),
        };
        Self { namespace: namespace.into(), kinds: Arc::new(Kind::ALL.map(of_kind)) }
    }

    /// The first word of every name.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The queue of a service's main actor, or of another of its actors.
    #[must_use]
    pub fn queue(&self, service: &str, queue: Option<&str>) -> String {
        match queue {
            None => self.of(service),
            Some(queue) => format!("{}.{service}.{queue}", self.namespace),
        }
    }

    /// The query queue that belongs to an actor's queue.
    #[must_use]
    pub fn query_queue(&self, queue: &str) -> String {
        format!("{queue}.query")
    }

    /// The dead-letter queue that belongs to an actor's queue.
    #[must_use]
    pub fn dead_queue(&self, queue: &str) -> String {
        format!("{queue}.dead")
    }

    /// Whether a queue holds dead letters: an actor's dead-letter queue, or one beside it for letters that are edited
    /// or moved.
    #[must_use]
    pub fn is_dead_queue(queue: &str) -> bool {
        // The first two words are the namespace and the service, which may have any name.
        queue.split('.').skip(2).any(|word| word == "dead")
    }

    /// The queue of one instance in one of its epochs.
    #[must_use]
    pub fn instance_queue(&self, queue: &str, instance: &str, epoch: u64) -> String {
        format!("{queue}.instance.{instance}.{epoch}")
    }

    /// The queue of one wire tap.
    #[must_use]
    pub fn tap_queue(&self, id: &str) -> String {
        self.of(&format!("tap.{id}"))
    }

    /// The queue that holds a service's last topology.
    #[must_use]
    pub fn topology(&self, service: &str) -> String {
        self.of(&format!("topology.{service}"))
    }

    /// The queue with one message for each time that deleted shared topology was declared again.
    #[must_use]
    pub fn generation(&self) -> String {
        self.of("generation")
    }

    /// The queue of messages that are due to be published.
    #[must_use]
    pub fn due(&self) -> String {
        self.of("due")
    }

    /// The queue that lists the claims of all domains.
    #[must_use]
    pub fn claims(&self) -> String {
        self.of("domain.claims")
    }

    /// The namespace and a kind; nothing for replies.
    pub(crate) fn kind(&self, kind: Kind) -> &Arc<str> {
        &self.kinds[kind as usize]
    }

    pub(crate) fn of(&self, name: &str) -> String {
        format!("{}.{name}", self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_of_dead_letters_are_known_whatever_a_service_is_called() {
        for queue in ["postrider.invoice.dead", "postrider.invoice.audit.dead", "postrider.due.dead", "dead.dead.dead"]
        {
            assert!(Names::is_dead_queue(queue), "{queue}");
        }
        assert!(Names::is_dead_queue("postrider.invoice.dead.kept"));
        for queue in
            ["postrider.invoice", "postrider.dead", "postrider.dead.query", "dead.dead", "postrider.deadline.x"]
        {
            assert!(!Names::is_dead_queue(queue), "{queue}");
        }
    }
}
