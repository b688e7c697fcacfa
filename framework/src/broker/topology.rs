//! What exists at a broker: domain owners, queues and subscriptions. Each is described by its purpose; an adapter
//! translates it for its broker.

use std::cmp::Ordering;
use std::time::Duration;

use crate::message::Kind;

/// A domain and the service that owns it: no other service may handle its commands and queries, or publish its events.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claim {
    /// The domain.
    pub domain: String,
    /// Its owner.
    pub service: String,
}

/// Where a queue is stored and how long it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// On several nodes: it survives the loss of one of them, and its deliveries are counted.
    Replicated,
    /// On one node; it survives a restart of that node.
    OneNode,
    /// Owned by one connection; it ends with the connection.
    Connection,
    /// It already exists with whatever arguments; it is used and never declared.
    Standing,
}

/// What happens to a message for which a queue has no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhenFull {
    /// The queue drops its oldest message.
    DropOldest,
    /// The queue rejects the new message.
    Refuse,
}

/// How many messages a queue holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct QueueLimit {
    /// The most messages.
    pub messages: u64,
    /// What happens when the limit is exceeded.
    pub when_full: WhenFull,
}

/// A queue, described by its purpose.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Where it is stored and how long it lives.
    pub durability: Durability,
    /// Whether only one of its consumers receives messages at a time. If that consumer ends, another takes over.
    pub one_active_consumer: bool,
    /// The limit on its messages, if there is one.
    pub limit: Option<QueueLimit>,
    /// The queue for messages that the broker itself gives up.
    pub last_resort: Option<String>,
    /// It is removed after this time without use.
    pub unused_for: Option<Duration>,
    /// How often a message may be requeued before the broker gives it up. For our queues our own attempts give up long
    /// before.
    pub delivery_limit: u32,
}

/// No message is requeued this often.
const NEVER: u32 = 1_000_000;

impl Queue {
    fn new(name: impl Into<String>, durability: Durability) -> Self {
        Self {
            name: name.into(),
            durability,
            one_active_consumer: false,
            limit: None,
            last_resort: None,
            unused_for: None,
            delivery_limit: NEVER,
        }
    }

    /// A durable queue on several nodes.
    #[must_use]
    pub fn replicated(name: impl Into<String>) -> Self {
        Self::new(name, Durability::Replicated)
    }

    /// A durable queue on one node.
    #[must_use]
    pub fn on_one_node(name: impl Into<String>) -> Self {
        Self::new(name, Durability::OneNode)
    }

    /// A queue that ends with its last consumer, or with its connection.
    #[must_use]
    pub fn of_connection(name: impl Into<String>) -> Self {
        Self::new(name, Durability::Connection)
    }

    /// A queue that already exists, with whatever arguments.
    #[must_use]
    pub fn standing(name: impl Into<String>) -> Self {
        Self::new(name, Durability::Standing)
    }

    /// The same with one active consumer.
    #[must_use]
    pub fn with_one_active_consumer(mut self) -> Self {
        self.one_active_consumer = true;
        self
    }

    /// The same with a limit on the number of messages.
    #[must_use]
    pub fn with_limit(mut self, messages: u64, when_full: WhenFull) -> Self {
        self.limit = Some(QueueLimit { messages, when_full });
        self
    }

    /// The same with a queue for messages that the broker itself gives up.
    #[must_use]
    pub fn with_last_resort(mut self, queue: impl Into<String>) -> Self {
        self.last_resort = Some(queue.into());
        self
    }

    /// The same, removed after this time without use.
    #[must_use]
    pub fn removed_when_unused_for(mut self, time: Duration) -> Self {
        self.unused_for = Some(time);
        self
    }

    /// The same with another limit on how often a message may be requeued.
    #[must_use]
    pub fn with_delivery_limit(mut self, times: u32) -> Self {
        self.delivery_limit = times;
        self
    }

    /// Whether the broker counts deliveries of its messages. For an existing queue of unknown type it may.
    #[must_use]
    pub fn counts_deliveries(&self) -> bool {
        matches!(self.durability, Durability::Replicated | Durability::Standing)
    }
}

/// The messages that a subscription selects from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Messages of a kind.
    Kind(Kind),
    /// Copies of all kinds, for wire taps.
    Taps,
    /// Messages whose delay has passed; the pattern is the queue for which they were delayed.
    Delays,
    /// Messages that are due to be published.
    Due,
}

impl Source {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kind(kind) => kind.as_str(),
            Self::Taps => "tap",
            Self::Delays => "delay",
            Self::Due => "due",
        }
    }
}

/// Ordered by their words, as records have always been.
impl Ord for Source {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for Source {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Where a subscription leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// Into a queue.
    Queue(String),
    /// To the wire taps, as a copy.
    Taps,
}

/// A subscription: messages of a kind whose key matches a pattern go to a queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subscription {
    /// The source of the messages.
    pub source: Source,
    /// The key that messages must have; for events a pattern with `*` and `#`. A key for one service by name has
    /// `service:` in front.
    pub pattern: String,
    /// Where they go.
    pub target: Target,
}

impl Subscription {
    /// Messages of a kind into a queue.
    #[must_use]
    pub fn new(kind: Kind, pattern: impl Into<String>, queue: impl Into<String>) -> Self {
        Self { source: Source::Kind(kind), pattern: pattern.into(), target: Target::Queue(queue.into()) }
    }

    /// Messages of a kind to the wire taps.
    #[must_use]
    pub fn to_taps(kind: Kind, pattern: impl Into<String>) -> Self {
        Self { source: Source::Kind(kind), pattern: pattern.into(), target: Target::Taps }
    }

    /// The queue it leads to, if it leads to one.
    #[must_use]
    pub fn queue(&self) -> Option<&str> {
        if let Target::Queue(queue) = &self.target { Some(queue) } else { None }
    }
}

/// Claims, sources, queues and subscriptions as a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    /// Domain owners. They come first, so that a service that is refused leaves nothing behind.
    pub claims: Vec<Claim>,
    /// The sources of the subscriptions. They must exist before the first message is sent.
    pub sources: Vec<Source>,
    /// The queues.
    pub queues: Vec<Queue>,
    /// The subscriptions of the queues and taps.
    pub subscriptions: Vec<Subscription>,
}

impl Topology {
    /// A topology of only these queues.
    #[must_use]
    pub fn of_queues(queues: impl IntoIterator<Item = Queue>) -> Self {
        Self { queues: queues.into_iter().collect(), ..Self::default() }
    }

    /// Adds everything of another topology that is not in this one.
    pub fn extend(&mut self, other: Self) {
        fn add<T: PartialEq>(all: &mut Vec<T>, more: Vec<T>) {
            for one in more {
                if !all.contains(&one) {
                    all.push(one);
                }
            }
        }
        add(&mut self.claims, other.claims);
        add(&mut self.sources, other.sources);
        add(&mut self.queues, other.queues);
        add(&mut self.subscriptions, other.subscriptions);
    }
}
