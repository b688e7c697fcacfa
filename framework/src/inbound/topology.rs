//! Plans claims, queues and subscriptions from what an actor handles. Pure, without I/O.

use std::str::FromStr;

use crate::broker::{Claim, ConsumerSpec, Names, Queue, Source, Subscription, Topology};
use crate::bus::channel_key;
use crate::handler::{Attributes, Guarantee, HandlerSpec, Lane};
use crate::message::Kind;

/// The kind of queue that queries use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueryQueue {
    /// On one node of a cluster; fast. While that node is down nobody answers.
    #[default]
    Classic,
    /// On several nodes; most of them write each query to disk.
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
    /// Its lanes: those with at least one key to handle.
    pub lanes: Vec<LanePlan>,
    /// What exists beside the lanes' own queues: claims, sources, copies for taps, the dead-letter queue.
    pub topology: Topology,
}

/// What one lane needs at the broker.
#[derive(Debug, Clone)]
pub struct LanePlan {
    /// Which lane.
    pub lane: Lane,
    /// Whether a delivery is acknowledged when it takes its permit.
    pub ack_on_receipt: bool,
    queue: Queue,
    /// The kinds and keys that it handles.
    keys: Vec<(Kind, String)>,
}

impl LanePlan {
    /// What to consume in one epoch. The queue of an instance has a new name in each.
    #[must_use]
    pub fn consumer(&self, prefetch: u16, epoch: u64) -> ConsumerSpec {
        let mut queue = self.queue.clone();
        if self.lane == Lane::Instance {
            queue.name = format!("{}.{epoch}", queue.name);
        }
        let subscribe = |(kind, key): &(Kind, String)| Subscription::new(*kind, key, &queue.name);
        let subscriptions = self.keys.iter().map(subscribe).collect();
        ConsumerSpec {
            queue,
            topology: Topology { subscriptions, ..Topology::default() },
            prefetch,
            answers: self.lane == Lane::Query,
        }
    }

    /// The name of the queue, without an instance's epoch.
    #[must_use]
    pub fn queue_name(&self) -> &str {
        &self.queue.name
    }

    /// Queue and subscriptions, if they outlive the process.
    #[must_use]
    pub fn lasting(&self) -> Option<(Queue, Vec<Subscription>)> {
        if self.lane == Lane::Instance {
            return None;
        }
        let spec = self.consumer(1, 0);
        Some((spec.queue, spec.topology.subscriptions))
    }
}

/// The topology that all services share: the sources of all kinds, and copies of all events for taps.
#[must_use]
pub fn shared_sources() -> Topology {
    let kinds = [Kind::Command, Kind::Query, Kind::Event, Kind::Channel].map(Source::Kind);
    Topology {
        sources: kinds.into_iter().chain([Source::Taps]).collect(),
        subscriptions: vec![Subscription::to_taps(Kind::Event, "#")],
        ..Topology::default()
    }
}

/// Plans an actor. `answers_ping` is true for one actor per service.
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
    let mut topology = claims(attributes);
    topology.extend(shared_sources());
    topology.queues.push(Queue::replicated(&dead_queue));
    let mut lanes = Vec::new();
    for lane in Lane::ALL {
        let of_lane = handlers.iter().filter(|spec| spec.lane() == lane);
        let mut keys: Vec<_> = of_lane.flat_map(|spec| keys(spec, service)).collect();
        if lane == Lane::Query && answers_ping {
            keys.push((Kind::Query, channel_key(service, "ping")));
        }
        if keys.is_empty() {
            continue;
        }
        tap(&keys, &mut topology);
        let queue = lane_queue(lane, attributes, &queue, names, instance, queries);
        let ack_on_receipt = lane == Lane::Durable && attributes.guarantee == Guarantee::AtMostOnce;
        lanes.push(LanePlan { lane, ack_on_receipt, queue, keys });
    }
    ActorPlan { queue, dead_queue, lanes, topology }
}

fn claims(attributes: &Attributes) -> Topology {
    let claim = |domain: &&str| Claim { domain: (*domain).to_owned(), service: attributes.service.to_owned() };
    Topology { claims: attributes.domains.iter().map(claim).collect(), ..Topology::default() }
}

fn keys(spec: &HandlerSpec, service: &str) -> Vec<(Kind, String)> {
    let (own, by_name) = ((spec.kind, spec.key.to_owned()), (spec.kind, channel_key(service, spec.key)));
    match spec.kind {
        Kind::Command | Kind::Query => vec![own, by_name],
        Kind::Channel => vec![by_name],
        Kind::Event | Kind::Reply => vec![own],
    }
}

/// Taps get copies of exactly the keys that the owner's queue gets, so that a message without an owner is still returned.
fn tap(keys: &[(Kind, String)], topology: &mut Topology) {
    for (kind, key) in keys.iter().filter(|(kind, _)| *kind != Kind::Event) {
        topology.subscriptions.push(Subscription::to_taps(*kind, key));
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
        (Lane::Instance, _) => Queue::of_connection(format!("{queue}.instance.{instance}")),
        (Lane::Durable, guarantee) => durable_queue(names, queue, guarantee, attributes.ordered),
    }
}

/// The query queue of this name.
#[must_use]
pub fn query_queue(queue: &str, queries: QueryQueue) -> Queue {
    match queries {
        QueryQueue::Classic => Queue::on_one_node(queue),
        QueryQueue::Quorum => Queue::replicated(queue),
    }
}

/// The durable queue of an actor, with its guarantee and order.
#[must_use]
pub fn durable_queue(names: &Names, queue: &str, guarantee: Guarantee, ordered: bool) -> Queue {
    if guarantee == Guarantee::AtMostOnce {
        return Queue::on_one_node(queue);
    }
    let durable = Queue::replicated(queue).with_last_resort(names.dead_queue(queue));
    if ordered { durable.with_one_active_consumer() } else { durable }
}
