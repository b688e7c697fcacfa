//! One queue of the in-process broker: its ready messages, its consumers, and the rules from its arguments.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use futures::task::AtomicWaker;
use tokio::time::Instant;

use crate::adapter::amqp::{DeclaredQueue, Way};
use crate::message::Envelope;

/// A message in a queue.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) way: Arc<Way>,
    pub(super) envelope: Arc<Envelope>,
    pub(super) redelivered: bool,
    pub(super) given_back: u32,
    /// Its position in its queue, kept when it is requeued.
    pub(super) place: u64,
    pub(super) expires: Option<Instant>,
}

/// A consumer of a queue, as the queue sees it.
pub(super) struct Subscriber {
    pub(super) id: u64,
    /// The session it belongs to.
    pub(super) session: u64,
    pub(super) prefetch: usize,
    pub(super) next_tag: u64,
    pub(super) unsettled: HashMap<u64, Message>,
    /// Tags that were assigned but not yet pulled.
    pub(super) outbox: VecDeque<u64>,
    pub(super) wake: Arc<AtomicWaker>,
    pub(super) cancelled: bool,
    /// A fault: gets no more messages, and no error.
    pub(super) mute: bool,
    /// A fault: the next poll for a delivery panics.
    pub(super) panics: bool,
}

/// A queue's rules, read from its arguments.
struct Rules {
    counts_deliveries: bool,
    delivery_limit: Option<usize>,
    max_length: Option<usize>,
    /// Rejects new messages when full, instead of dropping the oldest.
    refuses: bool,
    ttl: Option<Duration>,
    single_active: bool,
}

impl Rules {
    fn of(queue: &DeclaredQueue) -> Self {
        let arguments = &queue.arguments;
        let limit =
            |argument: &str| arguments.get(argument)?.as_integer().and_then(|limit| usize::try_from(limit).ok());
        Self {
            counts_deliveries: arguments.text("x-queue-type") == Some("quorum"),
            delivery_limit: limit("x-delivery-limit"),
            max_length: limit("x-max-length"),
            refuses: arguments.text("x-overflow") == Some("reject-publish"),
            ttl: limit("x-message-ttl").map(|millis| Duration::from_millis(millis as u64)),
            single_active: arguments.get("x-single-active-consumer") == Some(&true.into()),
        }
    }
}

/// The present faults of a queue.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Troubles {
    /// Confirms and delivers nothing until it is resumed.
    pub(super) suspended: bool,
    /// Rejects messages until it is resumed.
    pub(super) filled: bool,
    pub(super) silent_until: Option<Instant>,
    pub(super) full_until: Option<Instant>,
}

impl Troubles {
    pub(super) fn is_full(&self) -> bool {
        self.filled || self.full_until.is_some_and(|until| until > Instant::now())
    }

    /// For how long the queue confirms nothing.
    pub(super) fn silence(&self) -> Silence {
        if self.suspended {
            return Silence::UntilResumed;
        }
        self.silent_until.filter(|until| *until > Instant::now()).map_or(Silence::None, Silence::Until)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Silence {
    None,
    Until(Instant),
    UntilResumed,
}

pub(super) struct QueueState {
    pub(super) name: Arc<str>,
    pub(super) declared: DeclaredQueue,
    rules: Rules,
    /// The session that owns an exclusive queue.
    pub(super) owner: Option<u64>,
    pub(super) ready: VecDeque<Message>,
    pub(super) subscribers: Vec<Subscriber>,
    /// A fault: no deliveries until then.
    pub(super) held_until: Option<Instant>,
    /// Faults: it is silent, suspended or full.
    pub(super) troubles: Troubles,
    next_subscriber: usize,
    next_place: u64,
}

/// A message that left a queue without being consumed, and why.
pub(super) struct Evicted {
    pub(super) message: Message,
    pub(super) reason: &'static str,
}

impl QueueState {
    pub(super) fn new(declared: DeclaredQueue, owner: Option<u64>) -> Self {
        Self {
            name: declared.name.as_str().into(),
            rules: Rules::of(&declared),
            declared,
            owner,
            ready: VecDeque::new(),
            subscribers: Vec::new(),
            held_until: None,
            troubles: Troubles::default(),
            next_subscriber: 0,
            next_place: 0,
        }
    }

    pub(super) fn counts_deliveries(&self) -> bool {
        self.rules.counts_deliveries
    }

    /// Whether no message is ready and no hold has to end.
    pub(super) fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.held_until.is_none()
    }

    /// Whether the queue rejects another message.
    pub(super) fn is_full(&self) -> bool {
        self.troubles.is_full()
            || self.rules.refuses && self.rules.max_length.is_some_and(|most| self.ready.len() >= most)
    }

    /// Appends a message. Returns the oldest messages if the queue is now too long.
    pub(super) fn push(&mut self, mut message: Message) -> Vec<Evicted> {
        let own = message.envelope.expiration;
        message.expires = own.into_iter().chain(self.rules.ttl).min().map(|ttl| Instant::now() + ttl);
        message.place = self.next_place;
        self.next_place += 1;
        self.ready.push_back(message);
        let mut evicted = Vec::new();
        while self.rules.max_length.is_some_and(|most| self.ready.len() > most) {
            let Some(message) = self.ready.pop_front() else { break };
            evicted.push(Evicted { message, reason: "maxlen" });
        }
        evicted
    }

    /// Removes expired messages from the head.
    pub(super) fn expire(&mut self) -> Vec<Evicted> {
        let mut evicted = Vec::new();
        while self.ready.front().is_some_and(|message| message.expires.is_some_and(|at| at <= Instant::now())) {
            let Some(message) = self.ready.pop_front() else { break };
            evicted.push(Evicted { message, reason: "expired" });
        }
        evicted
    }

    /// When the message at the head expires or the hold ends, whichever comes first.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.ready.front().and_then(|message| message.expires).into_iter().chain(self.held_until).min()
    }

    /// Hands ready messages to subscribers that have room, one after the other.
    pub(super) fn dispatch(&mut self) {
        if self.troubles.suspended || self.held_until.is_some_and(|until| until > Instant::now()) {
            return;
        }
        self.held_until = None;
        while !self.ready.is_empty() {
            let Some(index) = self.subscriber_with_room() else { return };
            let Some(message) = self.ready.pop_front() else { return };
            let subscriber = &mut self.subscribers[index];
            subscriber.next_tag += 1;
            subscriber.outbox.push_back(subscriber.next_tag);
            subscriber.unsettled.insert(subscriber.next_tag, message);
            subscriber.wake.wake();
        }
    }

    fn subscriber_with_room(&mut self) -> Option<usize> {
        let count = self.subscribers.len();
        let has_room = |subscriber: &Subscriber| {
            !subscriber.cancelled && !subscriber.mute && subscriber.unsettled.len() < subscriber.prefetch
        };
        if self.rules.single_active {
            let active = self.subscribers.iter().position(|subscriber| !subscriber.cancelled)?;
            return has_room(&self.subscribers[active]).then_some(active);
        }
        let turn = (0..count)
            .map(|step| (self.next_subscriber + step) % count)
            .find(|&index| has_room(&self.subscribers[index]))?;
        self.next_subscriber = (turn + 1) % count;
        Some(turn)
    }

    pub(super) fn subscriber(&mut self, id: u64) -> Option<&mut Subscriber> {
        self.subscribers.iter_mut().find(|subscriber| subscriber.id == id)
    }

    /// Requeues a message. Returns it if it exceeds the delivery limit.
    pub(super) fn take_back(&mut self, mut message: Message) -> Option<Evicted> {
        message.redelivered = true;
        message.given_back += 1;
        let too_often = |limit| message.given_back as usize > limit;
        if self.counts_deliveries() && self.rules.delivery_limit.is_some_and(too_often) {
            return Some(Evicted { message, reason: "delivery_limit" });
        }
        // Like RabbitMQ: at its old position, behind older messages.
        let place = self.ready.partition_point(|other| other.place < message.place);
        self.ready.insert(place, message);
        None
    }

    /// The subscribers of one session.
    pub(super) fn subscribers_of(&self, session: u64) -> Vec<u64> {
        self.subscribers
            .iter()
            .filter(|subscriber| subscriber.session == session)
            .map(|subscriber| subscriber.id)
            .collect()
    }

    /// Removes a subscriber and requeues its unacknowledged messages in order. Returns those that exceed the delivery limit.
    pub(super) fn remove_subscriber(&mut self, id: u64) -> Vec<Evicted> {
        let Some(index) = self.subscribers.iter().position(|subscriber| subscriber.id == id) else { return Vec::new() };
        let subscriber = self.subscribers.remove(index);
        self.next_subscriber = 0;
        subscriber.wake.wake();
        let mut unsettled: Vec<(u64, Message)> = subscriber.unsettled.into_iter().collect();
        unsettled.sort_unstable_by_key(|(tag, _)| std::cmp::Reverse(*tag));
        unsettled.into_iter().filter_map(|(_, message)| self.take_back(message)).collect()
    }
}
