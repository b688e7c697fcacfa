//! The exchanges and queues of the in-process broker. Every method leaves the state consistent, and none waits.

use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use foldhash::HashMap;
use foldhash::fast::RandomState;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::adapter::amqp::{
    Binding, Declaration, DeclaredQueue, Destination, Exchange, Routed, Way, inequivalent_exchange,
};
use crate::adapter::in_process::queue::{Evicted, Message, QueueState};
use crate::adapter::in_process::routing::{ExchangeState, Exchanges, queues_for};
use crate::broker::{BrokerError, Publication};
use crate::message::{Headers, Value, is_logged};

/// How often a message may be dead-lettered in one go. Beyond that, the queues are assumed to form a circle.
const MAX_DEAD_LETTER_HOPS: usize = 16;
/// The maximum number of cached routes.
const MOST_ROUTES: usize = 4_096;

/// The queues for an exchange and a routing key.
#[derive(Clone)]
struct Route {
    way: Arc<Way>,
    queues: Arc<[Arc<str>]>,
}

impl Route {
    fn is_of(&self, way: &Way) -> bool {
        let same = |a: &Arc<str>, b: &Arc<str>| Arc::ptr_eq(a, b) || a == b;
        same(&self.way.exchange, &way.exchange) && same(&self.way.routing_key, &way.routing_key)
    }
}

#[derive(Default)]
pub(super) struct State {
    exchanges: Exchanges,
    /// Cached routes, by a hash of exchange and routing key. Cleared when exchanges, queues or bindings change.
    routes: HashMap<u64, Route>,
    hasher: RandomState,
    pub(super) queues: HashMap<String, QueueState>,
    next_id: u64,
    /// Set once a fault may have silenced a queue. Until then publications skip that check.
    pub(super) troubled: bool,
    /// When the next message may expire or the next hold may end.
    expiry: Option<Instant>,
    /// Wakes the tasks that wait for `expiry` when it moves earlier.
    pub(super) earlier: Arc<Notify>,
}

impl State {
    pub(super) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn declare(&mut self, topology: &Declaration, session: u64) -> Result<(), BrokerError> {
        self.forget_routes();
        for exchange in &topology.exchanges {
            self.declare_exchange(exchange)?;
        }
        for queue in &topology.queues {
            self.declare_queue(queue, session)?;
        }
        for binding in &topology.bindings {
            self.bind(binding)?;
        }
        Ok(())
    }

    pub(super) fn has_exchange(&self, name: &str) -> bool {
        self.exchanges.contains_key(name)
    }

    fn declare_exchange(&mut self, exchange: &Exchange) -> Result<(), BrokerError> {
        let Some(standing) = self.exchanges.get(&exchange.name) else {
            let state = ExchangeState { declared: exchange.clone(), bindings: BTreeSet::new() };
            self.exchanges.insert(exchange.name.clone(), state);
            return Ok(());
        };
        let reason = if standing.declared.kind == exchange.kind {
            difference(&exchange.arguments, &standing.declared.arguments)
        } else {
            Some(format!(
                "type: received {:?} but current is {:?}",
                exchange.kind.as_str(),
                standing.declared.kind.as_str()
            ))
        };
        match reason {
            None => Ok(()),
            Some(reason) => Err(inequivalent_exchange(exchange, reason)),
        }
    }

    pub(super) fn declare_queue(&mut self, queue: &DeclaredQueue, session: u64) -> Result<(), BrokerError> {
        let Some(standing) = self.queues.get(&queue.name) else {
            if queue.standing {
                return Err(absent(format!("no queue {:?}", queue.name)));
            }
            let owner = queue.exclusive.then_some(session);
            self.queues.insert(queue.name.clone(), QueueState::new(queue.clone(), owner));
            // Like RabbitMQ, every queue is bound to the default exchange by its name. That binding is not stored.
            return Ok(());
        };
        let what = format!("queue {:?}", queue.name);
        if standing.owner.is_some_and(|owner| owner != session) {
            return Err(BrokerError::Locked { what, reason: "it is exclusive".into() });
        }
        match difference(&queue.arguments, &standing.declared.arguments).filter(|_| !queue.standing) {
            None => Ok(()),
            Some(reason) => Err(BrokerError::Inequivalent { what, reason }),
        }
    }

    fn bind(&mut self, binding: &Binding) -> Result<(), BrokerError> {
        let missing = match &binding.destination {
            Destination::Queue(queue) => (!self.queues.contains_key(queue)).then(|| format!("no queue {queue:?}")),
            Destination::Exchange(name) => {
                (!self.exchanges.contains_key(name)).then(|| format!("no exchange {name:?}"))
            }
        };
        if let Some(reason) = missing {
            return Err(absent(reason));
        }
        let Some(source) = self.exchanges.get_mut(&binding.source) else {
            return Err(absent(format!("no exchange {:?}", binding.source)));
        };
        source.bindings.insert((binding.routing_key.clone(), binding.destination.clone()));
        Ok(())
    }

    pub(super) fn remove(&mut self, topology: &Declaration) {
        self.forget_routes();
        for binding in &topology.bindings {
            if let Some(source) = self.exchanges.get_mut(&binding.source) {
                source.bindings.remove(&(binding.routing_key.clone(), binding.destination.clone()));
            }
        }
        for queue in &topology.queues {
            self.delete_queue(&queue.name);
        }
        topology.exchanges.iter().for_each(|exchange| self.delete_exchange(&exchange.name));
    }

    pub(super) fn delete_exchange(&mut self, name: &str) {
        self.forget_routes();
        self.exchanges.remove(name);
        let gone = Destination::Exchange(name.to_owned());
        self.exchanges.values_mut().for_each(|other| other.bindings.retain(|(_, to)| *to != gone));
    }

    pub(super) fn delete_queue(&mut self, name: &str) {
        let Some(queue) = self.queues.remove(name) else { return };
        self.forget_routes();
        queue.subscribers.iter().for_each(|subscriber| subscriber.wake.wake());
        let gone = Destination::Queue(name.to_owned());
        self.exchanges.values_mut().for_each(|exchange| exchange.bindings.retain(|(_, to)| *to != gone));
    }

    /// Sorted, so that a run can be repeated exactly.
    pub(super) fn queue_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.queues.keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// Ends all consumers of a session and requeues their unacknowledged messages.
    pub(super) fn close_session(&mut self, session: u64) {
        for name in self.queue_names() {
            let Some(queue) = self.queues.get_mut(&name) else { continue };
            let mut evicted = Vec::new();
            for id in queue.subscribers_of(session) {
                evicted.extend(queue.remove_subscriber(id));
            }
            self.settle_evicted(&name, evicted, 0);
            self.dispatch(&name);
        }
    }

    pub(super) fn publish(&mut self, routed: Routed) -> Result<Publication, BrokerError> {
        let Routed { way, mandatory, envelope, .. } = routed;
        if !way.exchange.is_empty() && !self.exchanges.contains_key(&*way.exchange) {
            return Err(absent(format!("no exchange {:?}", way.exchange)));
        }
        let Route { way, queues } = self.route(&way);
        if queues.is_empty() {
            return Ok(if mandatory { Publication::Returned } else { Publication::Confirmed });
        }
        let message = Message { way, envelope, redelivered: false, given_back: 0, place: 0, expires: None };
        let mut taken = true;
        if let Some((last, others)) = queues.split_last() {
            for name in others {
                taken &= self.enqueue(name, message.clone(), 0, true);
            }
            taken &= self.enqueue(last, message, 0, true);
        }
        // Like RabbitMQ: one full queue rejects the message, although the other queues have taken it.
        Ok(if taken { Publication::Confirmed } else { Publication::Rejected })
    }

    /// The queues that a message goes to.
    pub(super) fn targets(&mut self, message: &Routed) -> Arc<[Arc<str>]> {
        self.route(&message.way).queues
    }

    fn route(&mut self, way: &Way) -> Route {
        let named = |name: &str| self.queues.get(name).map(|queue| Arc::clone(&queue.name));
        if way.exchange.is_empty() {
            return Route { way: Arc::new(way.clone()), queues: named(&way.routing_key).into_iter().collect() };
        }
        // If two ways have the same hash, the later one replaces the earlier.
        let hash = self.hasher.hash_one(way);
        if let Some(route) = self.routes.get(&hash).filter(|route| route.is_of(way)) {
            return route.clone();
        }
        let queues = queues_for(&self.exchanges, &way.exchange, &way.routing_key);
        let route = Route { way: Arc::new(way.clone()), queues: queues.into_iter().filter_map(named).collect() };
        if self.routes.len() >= MOST_ROUTES {
            self.forget_routes();
        }
        self.routes.insert(hash, route.clone());
        route
    }

    fn forget_routes(&mut self) {
        self.routes.clear();
    }

    /// Puts a message into a queue. Returns `false` only if the queue is full and `may_refuse` is set.
    fn enqueue(&mut self, name: &str, message: Message, hops: usize, may_refuse: bool) -> bool {
        let Some(queue) = self.queues.get_mut(name) else { return true };
        if may_refuse && queue.is_full() {
            return false;
        }
        let evicted = queue.push(message);
        let newest = queue.ready.back().and_then(|message| message.expires);
        if newest.is_some_and(|at| self.expiry.is_none_or(|expiry| at < expiry)) {
            self.expiry = newest;
            self.earlier.notify_waiters();
        }
        if evicted.is_empty() && newest.is_none() && queue.ready.len() == 1 {
            queue.dispatch();
            return true;
        }
        self.settle_evicted(name, evicted, hops);
        self.dispatch(name);
        true
    }

    /// Evicts expired messages and hands out ready ones.
    pub(super) fn dispatch(&mut self, name: &str) {
        let Some(queue) = self.queues.get_mut(name).filter(|queue| !queue.is_idle()) else { return };
        let expired = queue.expire();
        queue.dispatch();
        self.settle_evicted(name, expired, 0);
    }

    /// Stops a queue's deliveries until then.
    pub(super) fn hold(&mut self, name: &str, until: Instant) {
        let Some(queue) = self.queues.get_mut(name) else { return };
        queue.held_until = queue.held_until.max(Some(until));
        if self.expiry.is_none_or(|expiry| until < expiry) {
            self.expiry = Some(until);
            self.earlier.notify_waiters();
        }
    }

    /// Drops or dead-letters expired messages. Returns when to check again.
    pub(super) fn expire(&mut self) -> Option<Instant> {
        if self.expiry.is_some_and(|expiry| expiry <= Instant::now()) {
            for name in self.queue_names() {
                self.dispatch(&name);
            }
            self.expiry = self.queues.values().filter_map(QueueState::next_expiry).min();
        }
        self.expiry
    }

    /// Sends evicted messages to the queue's dead-letter exchange. Without one they are dropped.
    pub(super) fn settle_evicted(&mut self, name: &str, evicted: Vec<Evicted>, hops: usize) {
        if evicted.is_empty() {
            return;
        }
        let Some(queue) = self.queues.get(name) else { return };
        let arguments = &queue.declared.arguments;
        let Some(exchange) = arguments.text("x-dead-letter-exchange").map(Arc::<str>::from) else { return };
        let key = arguments.text("x-dead-letter-routing-key").map(Arc::<str>::from);
        for Evicted { mut message, reason } in evicted {
            let routing_key = key.clone().unwrap_or_else(|| message.way.routing_key.clone());
            let envelope = Arc::make_mut(&mut message.envelope);
            envelope.expiration = None;
            if let Some(foreign) = &mut envelope.foreign {
                foreign.expiration = None;
            }
            note_death(&mut envelope.headers, &message.way, name, reason);
            message.given_back = 0;
            if hops >= MAX_DEAD_LETTER_HOPS {
                if is_logged("queues dead-letter in a circle", name) {
                    tracing::error!(queue = name, "queues dead-letter in a circle; a message is dropped");
                }
                continue;
            }
            let Route { way, queues } = self.route(&Way { exchange: Arc::clone(&exchange), routing_key });
            message.way = way;
            for target in &*queues {
                self.enqueue(target, message.clone(), hops + 1, false);
            }
        }
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.queues.values().filter(|queue| !is_tap(&queue.declared)).all(|queue| {
            let settled = queue.subscribers.iter().all(|subscriber| subscriber.unsettled.is_empty());
            settled && (queue.subscribers.is_empty() || queue.ready.is_empty())
        })
    }
}

/// Writes RabbitMQ's headers: the latest death first in `x-death`, the first death in headers of its own.
fn note_death(headers: &mut Headers, way: &Way, queue: &str, reason: &str) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let death = [
        ("count", Value::from(1_i64)),
        ("reason", reason.into()),
        ("queue", queue.into()),
        ("time", Value::Timestamp(now)),
        ("exchange", Arc::clone(&way.exchange).into()),
        ("routing-keys", vec![Value::from(Arc::clone(&way.routing_key))].into()),
    ];
    let mut deaths = vec![Value::Table(death.into_iter().collect())];
    let is_first = match headers.remove("x-death") {
        Some(Value::List(before)) => {
            // Like RabbitMQ: one entry per queue and reason.
            deaths.extend(before.into_iter().filter(|entry| !is_death_in(entry, queue, reason)));
            false
        }
        _ => true,
    };
    headers.set("x-death", deaths);
    if is_first {
        headers.set("x-first-death-reason", reason);
        headers.set("x-first-death-queue", queue);
        headers.set("x-first-death-exchange", Arc::clone(&way.exchange));
    }
}

fn is_death_in(entry: &Value, queue: &str, reason: &str) -> bool {
    matches!(entry, Value::Table(entry) if entry.text("queue") == Some(queue) && entry.text("reason") == Some(reason))
}

/// The error for an exchange or a queue that does not exist.
fn absent(reason: String) -> BrokerError {
    BrokerError::Absent { what: "an exchange or a queue".into(), reason }
}

/// Whether the queue is a tap's. A tap only listens, so its unread messages are not pending work.
fn is_tap(queue: &DeclaredQueue) -> bool {
    queue.exclusive && queue.arguments.get("x-max-length").is_some()
}

/// The first argument that differs between a declaration and the existing object, in RabbitMQ's words.
fn difference(received: &Headers, current: &Headers) -> Option<String> {
    let names: BTreeSet<&str> = received.iter().chain(current.iter()).map(|(name, _)| name).collect();
    let same = |name: &str| match (received.get(name), current.get(name)) {
        // Like RabbitMQ: the width of a number makes no difference.
        (Some(a), Some(b)) => a == b || (a.as_integer().is_some() && a.as_integer() == b.as_integer()),
        (a, b) => a == b,
    };
    names.into_iter().find(|name| !same(name)).map(|name| {
        let (received, current) = (shown(received, name), shown(current, name));
        format!("inequivalent arg '{name}': received {received} but current is {current}")
    })
}

fn shown(arguments: &Headers, name: &str) -> String {
    match arguments.get(name) {
        None => "none".into(),
        Some(value) => value.as_text().map_or_else(|| format!("{value:?}"), |text| format!("'{text}'")),
    }
}
