//! From what an actor handles to exchanges, queues and bindings: pure.

use std::str::FromStr;

use crate::broker::{Binding, ConsumerSpec, Exchange, ExchangeKind, Names, Queue, Topology};
use crate::bus::channel_key;
use crate::handler::{Attributes, Guarantee, HandlerSpec, Lane};
use crate::message::Kind;

/// What a queue of queries is at the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueryQueue {
    /// On one node of a cluster; fast. While that node is gone nobody answers.
    #[default]
    Classic,
    /// On several nodes; each query is written to disk by most of them.
    Quorum,
}

impl FromStr for QueryQueue {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "classic" => Ok(Self::Classic),
            "quorum" => Ok(Self::Quorum),
            _ => Err(format!("{text:?} is no kind of queue; write \"classic\" or \"quorum\"")),
        }
    }
}

/// What an actor needs at the broker.
#[derive(Debug, Clone)]
pub struct ActorPlan {
    /// The name of its queue.
    pub queue: String,
    /// The name of its dead-letter queue.
    pub dead_queue: String,
    /// Its lanes that have a handler.
    pub lanes: Vec<LanePlan>,
    /// What stands beside the lanes' own queues: exchanges, claims, tap, the dead-letter queue.
    pub topology: Topology,
}

/// What one lane needs at the broker.
#[derive(Debug, Clone)]
pub struct LanePlan {
    /// Which lane.
    pub lane: Lane,
    /// Whether a delivery is acked when its permit is taken.
    pub ack_on_receipt: bool,
    queue: Queue,
    sources: Vec<(String, String)>,
}

impl LanePlan {
    /// What to consume in one epoch. The queue of an instance has a new name in each.
    #[must_use]
    pub fn consumer(&self, prefetch: u16, epoch: u64) -> ConsumerSpec {
        let mut queue = self.queue.clone();
        if self.lane == Lane::Instance {
            queue.name = format!("{}.{epoch}", queue.name);
        }
        let bindings = self.sources.iter().map(|(source, key)| Binding::to_queue(source, key, &queue.name)).collect();
        ConsumerSpec {
            queue,
            topology: Topology { bindings, ..Topology::default() },
            prefetch,
            answers: self.lane == Lane::Query,
        }
    }

    /// The name of the queue, without an instance's epoch.
    #[must_use]
    pub fn queue_name(&self) -> &str {
        &self.queue.name
    }

    /// Queue and bindings, if they outlive a process.
    #[must_use]
    pub fn lasting(&self) -> Option<(Queue, Vec<Binding>)> {
        if self.lane == Lane::Instance {
            return None;
        }
        let spec = self.consumer(1, 0);
        Some((spec.queue, spec.topology.bindings))
    }
}

/// The exchanges that every service uses.
#[must_use]
pub fn shared_exchanges(names: &Names) -> Topology {
    let exchange = |kind, route| Exchange::new(&*names.exchange(kind), route);
    Topology {
        exchanges: vec![
            exchange(Kind::Command, ExchangeKind::Direct),
            exchange(Kind::Query, ExchangeKind::Direct),
            exchange(Kind::Event, ExchangeKind::Topic),
            exchange(Kind::Channel, ExchangeKind::Direct),
            Exchange::new(names.tap(), ExchangeKind::Topic),
        ],
        queues: Vec::new(),
        bindings: vec![Binding::to_exchange(&*names.exchange(Kind::Event), "#", names.tap())],
    }
}

/// What an actor needs. `answers_ping` for one actor per service.
#[must_use]
pub fn plan(
    attributes: &Attributes,
    handlers: &[HandlerSpec],
    names: &Names,
    instance: &str,
    answers_ping: bool,
    queries: QueryQueue,
) -> ActorPlan {
    let service = attributes.service;
    let queue = names.queue(service, attributes.queue);
    let dead_queue = names.dead_queue(&queue);
    let mut topology = claims(attributes, names);
    topology.extend(shared_exchanges(names));
    topology.queues.push(Queue::quorum(&dead_queue));
    let mut lanes = Vec::new();
    for lane in Lane::ALL {
        let mut sources: Vec<_> =
            handlers.iter().filter(|spec| spec.lane() == lane).flat_map(|spec| sources(spec, service, names)).collect();
        if lane == Lane::Query && answers_ping {
            sources.push((names.exchange(Kind::Query).to_string(), channel_key(service, "ping")));
        }
        if sources.is_empty() {
            continue;
        }
        tap(&sources, names, &mut topology);
        let queue = lane_queue(lane, attributes, &queue, names, instance, queries);
        let ack_on_receipt = lane == Lane::Durable && attributes.guarantee == Guarantee::AtMostOnce;
        lanes.push(LanePlan { lane, ack_on_receipt, queue, sources });
    }
    ActorPlan { queue, dead_queue, lanes, topology }
}

/// The claim of a domain is an exchange that only its owner can declare, because its arguments name the owner.
fn claims(attributes: &Attributes, names: &Names) -> Topology {
    let claim = |domain: &&str| {
        Exchange::new(names.domain(domain), ExchangeKind::Fanout)
            .with("alternate-exchange", names.owner(attributes.service))
    };
    Topology { exchanges: attributes.domains.iter().map(claim).collect(), ..Topology::default() }
}

fn sources(spec: &HandlerSpec, service: &str, names: &Names) -> Vec<(String, String)> {
    let exchange = names.exchange(spec.kind).to_string();
    match spec.kind {
        Kind::Command | Kind::Query => {
            vec![(exchange.clone(), spec.key.to_owned()), (exchange, channel_key(service, spec.key))]
        }
        Kind::Channel => vec![(exchange, channel_key(service, spec.key))],
        Kind::Event | Kind::Reply => vec![(exchange, spec.key.to_owned())],
    }
}

/// The tap is bound with the same exact keys as the owner's queue, so that a message nobody owns is still returned.
fn tap(sources: &[(String, String)], names: &Names, topology: &mut Topology) {
    let events = names.exchange(Kind::Event);
    for (source, key) in sources.iter().filter(|(source, _)| **source != *events) {
        topology.bindings.push(Binding::to_exchange(source, key, names.tap()));
    }
}

fn lane_queue(
    lane: Lane,
    attributes: &Attributes,
    queue: &str,
    names: &Names,
    instance: &str,
    queries: QueryQueue,
) -> Queue {
    match (lane, attributes.guarantee) {
        (Lane::Query, _) => query_queue(&names.query_queue(queue), queries),
        (Lane::Instance, _) => Queue::exclusive(format!("{queue}.instance.{instance}")),
        (Lane::Durable, guarantee) => durable_queue(names, queue, guarantee, attributes.ordered),
    }
}

/// The query queue of this name.
#[must_use]
pub fn query_queue(queue: &str, queries: QueryQueue) -> Queue {
    match queries {
        QueryQueue::Classic => Queue::classic(queue),
        QueryQueue::Quorum => Queue::quorum(queue),
    }
}

/// The queue of an actor, as its guarantee and its order want it.
#[must_use]
pub fn durable_queue(names: &Names, queue: &str, guarantee: Guarantee, ordered: bool) -> Queue {
    if guarantee == Guarantee::AtMostOnce {
        return Queue::classic(queue);
    }
    let durable = Queue::quorum(queue)
        .with("x-dead-letter-exchange", "")
        .with("x-dead-letter-routing-key", names.dead_queue(queue));
    if ordered { durable.with("x-single-active-consumer", true) } else { durable }
}
