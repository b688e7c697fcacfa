use serde::{Deserialize, Serialize};

use crate::message::{Headers, Value};

/// How an exchange routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ExchangeKind {
    /// To bindings with the same key.
    Direct,
    /// To bindings whose pattern matches the key.
    Topic,
    /// To all bindings.
    Fanout,
}

impl ExchangeKind {
    /// The word for it on the network.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Topic => "topic",
            Self::Fanout => "fanout",
        }
    }
}

/// A durable exchange.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Arguments such as `alternate-exchange`.
    pub arguments: Headers,
}

impl Exchange {
    /// An exchange without arguments.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: ExchangeKind) -> Self {
        Self { name: name.into(), kind, arguments: Headers::new() }
    }

    /// The same with one more argument.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.arguments.set(name, value);
        self
    }
}

/// A queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Belongs to one connection and ends with it.
    pub exclusive: bool,
    /// Is used as it stands and never declared, because its arguments are not known.
    pub standing: bool,
    /// Arguments such as `x-queue-type`, fixed when the queue is first declared.
    pub arguments: Headers,
}

impl Queue {
    /// A durable, replicated queue; `x-delivery-limit` is out of the way, as our own attempts decide.
    #[must_use]
    pub fn quorum(name: impl Into<String>) -> Self {
        Self { name: name.into(), exclusive: false, standing: false, arguments: Headers::new() }
            .with("x-queue-type", "quorum")
            .with("x-delivery-limit", 1_000_000_i32)
    }

    /// A durable classic queue.
    #[must_use]
    pub fn classic(name: impl Into<String>) -> Self {
        Self { name: name.into(), exclusive: false, standing: false, arguments: Headers::new() }
            .with("x-queue-type", "classic")
    }

    /// A queue that ends with its last consumer, or with its connection.
    #[must_use]
    pub fn exclusive(name: impl Into<String>) -> Self {
        Self { exclusive: true, ..Self::classic(name) }
    }

    /// A queue that stands already, whatever its arguments.
    #[must_use]
    pub fn standing(name: impl Into<String>) -> Self {
        Self { name: name.into(), exclusive: false, standing: true, arguments: Headers::new() }
    }

    /// Whether the broker counts the deliveries of its messages: quorum queues do. One whose arguments are not known may.
    #[must_use]
    pub fn counts_deliveries(&self) -> bool {
        self.standing || self.arguments.text("x-queue-type") == Some("quorum")
    }

    /// The same with one more argument.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.arguments.set(name, value);
        self
    }
}

/// Where a binding leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Destination {
    /// To a queue.
    Queue(String),
    /// To another exchange.
    Exchange(String),
}

/// A way from an exchange to a queue or another exchange.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Binding {
    /// The exchange it starts at.
    pub source: String,
    /// The key or pattern.
    pub routing_key: String,
    /// Where it leads.
    pub destination: Destination,
}

impl Binding {
    /// A binding to a queue.
    #[must_use]
    pub fn to_queue(source: impl Into<String>, routing_key: impl Into<String>, queue: impl Into<String>) -> Self {
        Self { source: source.into(), routing_key: routing_key.into(), destination: Destination::Queue(queue.into()) }
    }

    /// A binding to another exchange.
    #[must_use]
    pub fn to_exchange(source: impl Into<String>, routing_key: impl Into<String>, exchange: impl Into<String>) -> Self {
        let destination = Destination::Exchange(exchange.into());
        Self { source: source.into(), routing_key: routing_key.into(), destination }
    }
}

/// Exchanges, queues and bindings as a value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Topology {
    /// The exchanges, claims first.
    pub exchanges: Vec<Exchange>,
    /// The queues.
    pub queues: Vec<Queue>,
    /// The bindings.
    pub bindings: Vec<Binding>,
}

impl Topology {
    /// Adds everything of another topology that is not in this one.
    pub fn extend(&mut self, other: Self) {
        for exchange in other.exchanges {
            if !self.exchanges.contains(&exchange) {
                self.exchanges.push(exchange);
            }
        }
        for queue in other.queues {
            if !self.queues.contains(&queue) {
                self.queues.push(queue);
            }
        }
        for binding in other.bindings {
            if !self.bindings.contains(&binding) {
                self.bindings.push(binding);
            }
        }
    }
}
