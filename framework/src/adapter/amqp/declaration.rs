//! Exchanges, queues with their arguments, and bindings as values: RabbitMQ's form of the port's topology.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::broker::{BrokerError, Durability, OwnDeclaration, OwnSubscription, OwnWords, Queue, WhenFull};
use crate::message::{Headers, Value};

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ExchangeKind {
    /// To bindings whose key equals the routing key.
    Direct,
    /// To bindings whose pattern matches the routing key.
    Topic,
    /// To all bindings.
    Fanout,
}

impl ExchangeKind {
    /// Its name in the AMQP protocol.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Topic => "topic",
            Self::Fanout => "fanout",
        }
    }
}

/// A durable exchange.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Exchange {
    /// Its name.
    pub(crate) name: String,
    /// How it routes.
    pub(crate) kind: ExchangeKind,
    /// Arguments such as `alternate-exchange`.
    pub(crate) arguments: Headers,
}

impl Exchange {
    /// An exchange without arguments.
    pub(crate) fn new(name: impl Into<String>, kind: ExchangeKind) -> Self {
        Self { name: name.into(), kind, arguments: Headers::new() }
    }

    /// The same with one more argument.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.arguments.set(name, value);
        self
    }
}

/// A queue with its arguments.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DeclaredQueue {
    /// Its name.
    pub(crate) name: String,
    /// Belongs to one connection and ends with it.
    pub(crate) exclusive: bool,
    /// Already exists with unknown arguments, so it is used and never declared.
    pub(crate) standing: bool,
    /// Arguments such as `x-queue-type`, fixed when the queue is first declared.
    pub(crate) arguments: Headers,
}

impl DeclaredQueue {
    /// RabbitMQ's form of the port's queue.
    pub(crate) fn of(queue: &Queue) -> Self {
        let mut declared = Self {
            name: queue.name.clone(),
            exclusive: queue.durability == Durability::Connection,
            standing: queue.durability == Durability::Standing,
            arguments: Headers::new(),
        };
        match queue.durability {
            Durability::Standing => return declared,
            Durability::Replicated => {
                declared = declared
                    .with("x-queue-type", "quorum")
                    .with("x-delivery-limit", i32::try_from(queue.delivery_limit).unwrap_or(i32::MAX));
            }
            Durability::OneNode | Durability::Connection => declared = declared.with("x-queue-type", "classic"),
        }
        if let Some(last_resort) = &queue.last_resort {
            declared =
                declared.with("x-dead-letter-exchange", "").with("x-dead-letter-routing-key", last_resort.as_str());
        }
        if queue.one_active_consumer {
            declared = declared.with("x-single-active-consumer", true);
        }
        if let Some(limit) = queue.limit {
            declared = declared.with("x-max-length", number(limit.messages));
            match limit.when_full {
                // `drop-head` is the broker's default. Only tap queues state it, as they always have.
                WhenFull::DropOldest if declared.exclusive => declared = declared.with("x-overflow", "drop-head"),
                WhenFull::DropOldest => {}
                WhenFull::Refuse => declared = declared.with("x-overflow", "reject-publish"),
            }
        }
        if let Some(time) = queue.unused_for {
            declared = declared.with("x-expires", number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
        }
        declared
    }

    /// A durable, replicated queue for the adapter's own use.
    pub(crate) fn replicated(name: impl Into<String>) -> Self {
        Self::of(&Queue::replicated(name))
    }

    /// The port's queue that would be declared with these arguments.
    pub(crate) fn asked(name: &str, arguments: &Headers) -> Queue {
        let number = |name: &str| arguments.get(name).and_then(Value::as_integer).and_then(|n| u64::try_from(n).ok());
        let mut queue = match arguments.text("x-queue-type") {
            Some("quorum") => Queue::replicated(name),
            _ => Queue::on_one_node(name),
        };
        if let Some(times) = number("x-delivery-limit") {
            queue = queue.with_delivery_limit(u32::try_from(times).unwrap_or(u32::MAX));
        }
        if let Some(last_resort) = arguments.text("x-dead-letter-routing-key") {
            queue = queue.with_last_resort(last_resort);
        }
        if arguments.get("x-single-active-consumer") == Some(&Value::Bool(true)) {
            queue = queue.with_one_active_consumer();
        }
        if let Some(messages) = number("x-max-length") {
            let refuses = arguments.text("x-overflow") == Some("reject-publish");
            queue = queue.with_limit(messages, if refuses { WhenFull::Refuse } else { WhenFull::DropOldest });
        }
        match number("x-expires") {
            Some(millis) => queue.removed_when_unused_for(Duration::from_millis(millis)),
            None => queue,
        }
    }

    /// The same with one more argument.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.arguments.set(name, value);
        self
    }
}

/// An `i32` if it fits, else an `i64`. The broker accepts either, but a comparison with recorded arguments depends on the type.
fn number(number: u64) -> Value {
    match i32::try_from(number) {
        Ok(number) => number.into(),
        Err(_) => i64::try_from(number).unwrap_or(i64::MAX).into(),
    }
}

/// Where a binding leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Destination {
    /// To a queue.
    Queue(String),
    /// To another exchange.
    Exchange(String),
}

/// A route from an exchange to a queue or to another exchange.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Binding {
    /// The exchange it starts at.
    pub(crate) source: String,
    /// The key or pattern.
    pub(crate) routing_key: String,
    /// Where it leads.
    pub(crate) destination: Destination,
}

impl Binding {
    /// A binding to a queue.
    pub(crate) fn to_queue(
        source: impl Into<String>,
        routing_key: impl Into<String>,
        queue: impl Into<String>,
    ) -> Self {
        Self { source: source.into(), routing_key: routing_key.into(), destination: Destination::Queue(queue.into()) }
    }

    /// A binding to another exchange.
    pub(crate) fn to_exchange(
        source: impl Into<String>,
        routing_key: impl Into<String>,
        exchange: impl Into<String>,
    ) -> Self {
        let destination = Destination::Exchange(exchange.into());
        Self { source: source.into(), routing_key: routing_key.into(), destination }
    }
}

/// Exchanges, queues and bindings as a value.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Declaration {
    /// The exchanges, claims first.
    pub(crate) exchanges: Vec<Exchange>,
    /// The queues.
    pub(crate) queues: Vec<DeclaredQueue>,
    /// The bindings.
    pub(crate) bindings: Vec<Binding>,
}

impl Declaration {
    /// Adds everything from `other` that is not in `self` yet.
    pub(crate) fn extend(&mut self, other: Self) {
        fn add<T: PartialEq>(all: &mut Vec<T>, more: Vec<T>) {
            for one in more {
                if !all.contains(&one) {
                    all.push(one);
                }
            }
        }
        add(&mut self.exchanges, other.exchanges);
        add(&mut self.queues, other.queues);
        add(&mut self.bindings, other.bindings);
    }
}

/// The error for an exchange that exists with other arguments: another service has claimed the domain, or it is a plain mistake.
pub(crate) fn inequivalent_exchange(exchange: &Exchange, reason: impl Into<String>) -> BrokerError {
    let reason = reason.into();
    let claim = exchange.name.split_once(".domain.").zip(exchange.arguments.text("alternate-exchange"));
    match claim.and_then(|((_, domain), owner)| Some((domain, owner.split_once(".owner.")?.1))) {
        Some((domain, claimant)) => {
            BrokerError::DomainOwned { domain: domain.to_owned(), claimant: claimant.to_owned(), reason }
        }
        None => BrokerError::Inequivalent { what: format!("exchange {:?}", exchange.name), reason },
    }
}

impl Declaration {
    /// The declaration in RabbitMQ's terms, for people to read.
    pub(crate) fn in_own_words(&self) -> OwnWords {
        let source = |exchange: &Exchange| OwnDeclaration {
            name: exchange.name.clone(),
            kind: exchange.kind.as_str(),
            arguments: exchange.arguments.clone(),
        };
        let queue = |queue: &DeclaredQueue| OwnDeclaration {
            name: queue.name.clone(),
            kind: if queue.exclusive { "exclusive" } else { "durable" },
            arguments: queue.arguments.clone(),
        };
        let subscription = |binding: &Binding| OwnSubscription {
            line: binding.to_string(),
            // Cannot fail: a binding consists of texts only.
            json: serde_json::to_string(binding).unwrap_or_default(),
        };
        OwnWords {
            sources: self.exchanges.iter().map(source).collect(),
            queues: self.queues.iter().map(queue).collect(),
            subscriptions: self.bindings.iter().map(subscription).collect(),
        }
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exchange {} --{}--> ", self.source, self.routing_key)?;
        match &self.destination {
            Destination::Queue(queue) => write!(f, "queue {queue}"),
            Destination::Exchange(exchange) => write!(f, "exchange {exchange}"),
        }
    }
}
