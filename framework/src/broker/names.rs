use std::sync::Arc;

use postrider_grammar::{NameError, check_word};

use crate::message::Kind;

/// The names of exchanges and queues in one namespace. See `docs/wire.md`, "Names".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    namespace: Arc<str>,
    /// By kind.
    exchanges: Arc<[Arc<str>; Kind::ALL.len()]>,
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
        let exchange = |kind: Kind| match kind {
            Kind::Reply => "".into(),
            kind => format!("{namespace}.{kind}").into(),
        };
        Self { namespace: namespace.into(), exchanges: Arc::new(Kind::ALL.map(exchange)) }
    }

    /// The word in front of every name.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The exchange for messages of a kind; replies use the default exchange.
    #[must_use]
    pub fn exchange(&self, kind: Kind) -> Arc<str> {
        Arc::clone(&self.exchanges[kind as usize])
    }

    /// The kind that an exchange tells, if it is one of ours.
    #[must_use]
    pub fn kind_of(&self, exchange: &str) -> Option<Kind> {
        Kind::from_word(exchange.strip_prefix(&*self.namespace)?.strip_prefix('.')?).filter(|kind| *kind != Kind::Reply)
    }

    /// The exchange of the wire tap.
    #[must_use]
    pub fn tap(&self) -> String {
        self.of("tap")
    }

    /// The queue of a service's main actor, or of another actor of it.
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

    /// Whether a queue is one of dead letters.
    #[must_use]
    pub fn is_dead_queue(queue: &str) -> bool {
        queue.ends_with(".dead")
    }

    /// The queue of one instance, in one of its epochs.
    #[must_use]
    pub fn instance_queue(&self, queue: &str, instance: &str, epoch: u64) -> String {
        format!("{queue}.instance.{instance}.{epoch}")
    }

    /// The queue of one wire tap.
    #[must_use]
    pub fn tap_queue(&self, id: &str) -> String {
        self.of(&format!("tap.{id}"))
    }

    /// The exchange whose declaration claims a domain.
    #[must_use]
    pub fn domain(&self, domain: &str) -> String {
        self.of(&format!("domain.{domain}"))
    }

    /// The alternate exchange that names the owner in a claim. It never exists.
    #[must_use]
    pub fn owner(&self, service: &str) -> String {
        self.of(&format!("owner.{service}"))
    }

    /// The queue that holds a service's last topology.
    #[must_use]
    pub fn topology(&self, service: &str) -> String {
        self.of(&format!("topology.{service}"))
    }

    /// The queue with one message for each time that exchanges were declared again because somebody had deleted them.
    #[must_use]
    pub fn generation(&self) -> String {
        self.of("generation")
    }

    /// The exchange and the queue of one level of delays.
    #[must_use]
    pub fn delay_level(&self, level: u32) -> String {
        self.of(&format!("delay.{level}"))
    }

    /// The exchange where all delays end.
    #[must_use]
    pub fn delay_out(&self) -> String {
        self.of("delay.out")
    }

    /// The exchange and the queue of what is due to be published.
    #[must_use]
    pub fn due(&self) -> String {
        self.of("due")
    }

    /// Whether a message that was published to this exchange comes from a delay.
    #[must_use]
    pub fn is_delay(&self, exchange: &str) -> bool {
        let rest = exchange.strip_prefix(&*self.namespace).and_then(|rest| rest.strip_prefix('.'));
        rest.is_some_and(|rest| rest == "due" || rest.starts_with("delay."))
    }

    fn of(&self, name: &str) -> String {
        format!("{}.{name}", self.namespace)
    }
}
