//! The capabilities of a broker and its adapter. Code checks these values and never a broker's name.

use std::fmt;
use std::time::Duration;

use postrider_grammar::show_duration;

/// How deliveries are settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settles {
    /// Each on its own, in any order.
    Each,
    /// Only all up to a given one.
    UpTo,
}

/// Who matches an event's key against the queues' patterns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patterns {
    /// The broker.
    ByBroker,
    /// The adapter, by dropping deliveries outside the pattern.
    ByAdapter,
}

/// The messages that a tap can receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taps {
    /// All.
    All,
    /// Only events.
    Events,
    /// None.
    No,
}

/// The size limits of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimits {
    /// Bytes of a payload.
    pub payload: usize,
    /// Bytes of properties and headers.
    pub properties: usize,
    /// Bytes of a key or a queue's name.
    pub name: usize,
}

/// The capabilities of a broker. An adapter starts from [`Capabilities::none`] and sets the ones it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Queues and persistent messages outlive the broker's process.
    pub survives_restart: bool,
    /// How deliveries are settled.
    pub settles: Settles,
    /// A delivery says how often it was requeued.
    pub counts_deliveries: bool,
    /// The sender of a command, a query or a channel message learns when no service handles its key.
    pub returns_keys: bool,
    /// The sender of an event learns when its key has no subscriber.
    pub returns_events: bool,
    /// Who matches an event's key against the queues' patterns; `None` without patterns.
    pub patterns: Option<Patterns>,
    /// The longest delay; `None` without delays.
    pub delays: Option<Duration>,
    /// Of several consumers of a queue, only one can be active, so that its order is kept.
    pub one_active_consumer: bool,
    /// Messages of one key keep their order while several instances consume.
    pub order_by_key: bool,
    /// A sender can wait for a reply.
    pub replies: bool,
    /// A queue can end with its consumer.
    pub instance_queues: bool,
    /// A full queue can refuse messages.
    pub full_queues_refuse: bool,
    /// A full queue can drop its oldest messages.
    pub full_queues_drop_oldest: bool,
    /// A message can expire in a queue.
    pub expires: bool,
    /// Events can be consumed again from an earlier time.
    pub replays: bool,
    /// The messages that a tap can receive.
    pub taps: Taps,
    /// A queue's messages can be read without being taken.
    pub looks_without_taking: bool,
    /// A domain can be claimed by one service and by no other.
    pub claims: bool,
    /// The size limits of a message.
    pub limits: MessageLimits,
}

impl Capabilities {
    /// The capabilities of a broker that can only take messages and deliver them one after the other.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            survives_restart: false,
            settles: Settles::UpTo,
            counts_deliveries: false,
            returns_keys: false,
            returns_events: false,
            patterns: None,
            delays: None,
            one_active_consumer: false,
            order_by_key: false,
            replies: false,
            instance_queues: false,
            full_queues_refuse: false,
            full_queues_drop_oldest: false,
            expires: false,
            replays: false,
            taps: Taps::No,
            looks_without_taking: false,
            claims: false,
            limits: MessageLimits { payload: 0, properties: 0, name: 0 },
        }
    }

    /// Whether a need is met.
    #[must_use]
    pub fn meet(&self, need: Need) -> bool {
        match need {
            Need::SettleEach => self.settles == Settles::Each,
            Need::CountDeliveries => self.counts_deliveries,
            Need::ReturnKeys => self.returns_keys,
            Need::Patterns => self.patterns.is_some(),
            Need::Delays(longest) => self.delays.is_some_and(|most| longest <= most),
            Need::OneActiveConsumer => self.one_active_consumer,
            Need::Replies => self.replies,
            Need::InstanceQueues => self.instance_queues,
            Need::RefuseWhenFull => self.full_queues_refuse,
            Need::DropOldest => self.full_queues_drop_oldest,
            Need::Expiry => self.expires,
            Need::Taps => self.taps == Taps::All,
            Need::Claims => self.claims,
        }
    }

    /// Each capability and its value, for people.
    #[must_use]
    pub fn rows(&self) -> Vec<(&'static str, String)> {
        let yes = |has: bool| if has { "yes" } else { "no" }.to_owned();
        let limits = self.limits;
        let most = |bytes: usize| if bytes == usize::MAX { "no limit".to_owned() } else { bytes.to_string() };
        vec![
            ("survives a restart of the broker", yes(self.survives_restart)),
            ("settles each delivery by itself", yes(self.settles == Settles::Each)),
            ("counts how often a delivery was given back", yes(self.counts_deliveries)),
            ("tells who sends to a key that nobody handles", yes(self.returns_keys)),
            ("tells who sends an event that nobody has subscribed to", yes(self.returns_events)),
            (
                "patterns of keys",
                match self.patterns {
                    Some(Patterns::ByBroker) => "by the broker".into(),
                    Some(Patterns::ByAdapter) => "by the adapter".into(),
                    None => "no".into(),
                },
            ),
            (
                "delays",
                self.delays
                    .map_or_else(|| "no".into(), |most| format!("up to {} days", most.as_secs() / (24 * 60 * 60))),
            ),
            ("one active consumer of several (`ordered`)", yes(self.one_active_consumer)),
            ("order by key over several consumers", yes(self.order_by_key)),
            ("replies", yes(self.replies)),
            ("queues that end with their instance", yes(self.instance_queues)),
            ("a full queue refuses", yes(self.full_queues_refuse)),
            ("a full queue drops its oldest messages", yes(self.full_queues_drop_oldest)),
            ("messages expire", yes(self.expires)),
            ("events can be replayed", yes(self.replays)),
            (
                "taps",
                match self.taps {
                    Taps::All => "all messages".into(),
                    Taps::Events => "events".into(),
                    Taps::No => "no".into(),
                },
            ),
            ("messages can be looked at without taking them", yes(self.looks_without_taking)),
            ("claims of domains", yes(self.claims)),
            ("the most bytes of a payload", most(limits.payload)),
            ("the most bytes of properties and headers", limits.properties.to_string()),
            ("the most bytes of a key or a queue's name", limits.name.to_string()),
        ]
    }
}

/// A capability that an actor, or a scenario of the conformance suite, needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// Deliveries are settled each on its own.
    SettleEach,
    /// A delivery says how often it was requeued.
    CountDeliveries,
    /// The sender to a key that no service handles is told.
    ReturnKeys,
    /// Patterns in event subscriptions.
    Patterns,
    /// Delays up to this long.
    Delays(Duration),
    /// Only one of several consumers is active.
    OneActiveConsumer,
    /// Callers get replies.
    Replies,
    /// Queues that end with their instance.
    InstanceQueues,
    /// A full queue refuses messages.
    RefuseWhenFull,
    /// A full queue drops its oldest messages.
    DropOldest,
    /// Messages expire.
    Expiry,
    /// All messages can be tapped.
    Taps,
    /// Domains are claimed.
    Claims,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SettleEach => "deliveries that are settled each by itself",
            Self::CountDeliveries => "counts of deliveries",
            Self::ReturnKeys => "returns of what nobody handles",
            Self::Patterns => "subscriptions by pattern",
            Self::Delays(longest) => return write!(f, "delays of up to {}", show_duration(*longest)),
            Self::OneActiveConsumer => "one active consumer of several",
            Self::Replies => "replies",
            Self::InstanceQueues => "queues that end with their instance",
            Self::RefuseWhenFull => "queues that refuse when they are full",
            Self::DropOldest => "queues that drop their oldest messages",
            Self::Expiry => "messages that expire",
            Self::Taps => "taps of all messages",
            Self::Claims => "claims of domains",
        })
    }
}
