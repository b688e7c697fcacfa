//! The orders that a process understands, and its reports.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::app::builder::App;
use crate::app::config::Config;
use crate::app::entry::Entry;
use crate::broker::{Broker, OwnWords, Queue, Subscription, Topology};
use crate::inbound::{ActorPlan, LaneState};
use crate::message::{Headers, Value};

/// The action that an order asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wanted {
    /// Only the report.
    About,
    Pause,
    Resume,
    Restart,
}

impl Wanted {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::About => "about",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Restart => "restart",
        }
    }
}

/// An order as it is sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) order: Wanted,
    /// The actor, as `service` or `service.queue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) actor: Option<String>,
    /// The instance; absent for all instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instance: Option<String>,
}

/// A running process's report on one of its services.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessReport {
    /// The service.
    pub service: String,
    /// The running instance.
    pub instance: String,
    /// The version of Postrider it was built with.
    pub version: String,
    /// Whether it can do its work, as `/ready` says.
    pub ready: bool,
    /// The actors of the service.
    pub actors: Vec<ActorReport>,
    /// The lanes of the whole process.
    pub lanes: Vec<LaneState>,
    /// How many seconds ago it last declared its topology; absent if it does not look after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound_seconds: Option<u64>,
    /// Why the order was not carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// A process's report on one of its actors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ActorReport {
    /// `service`, or `service.queue` for another actor of the same service.
    pub name: String,
    /// Whether it is paused in this process.
    pub paused: bool,
    /// `at_most_once`, `at_least_once` or `effectively_once`.
    pub guarantee: String,
    /// The domains that its service owns.
    pub domains: Vec<String>,
    /// Its dead-letter queue.
    pub dead_queue: String,
    /// The largest number of attempts among its handlers.
    pub most_attempts: u32,
    /// Its queues that outlive the process.
    pub queues: Vec<QueueReport>,
}

/// A queue and its subscriptions, as an actor declares them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct QueueReport {
    /// Its name.
    pub name: String,
    /// The arguments it was declared with, in the broker's own words.
    pub arguments: BTreeMap<String, Json>,
    /// Its subscriptions, in the broker's own words.
    pub bindings: Vec<Json>,
}

impl QueueReport {
    fn of(broker: &dyn Broker, (queue, subscriptions): (Queue, Vec<Subscription>)) -> Self {
        let name = queue.name.clone();
        let topology = Topology { queues: vec![queue], subscriptions, ..Topology::default() };
        let OwnWords { queues, subscriptions, .. } = broker.in_own_words(&topology);
        let arguments = queues.iter().flat_map(|queue| queue.arguments.iter());
        Self {
            name,
            arguments: arguments.map(|(name, value)| (name.to_owned(), to_json(value))).collect(),
            bindings: subscriptions.iter().filter_map(|one| serde_json::from_str(&one.json).ok()).collect(),
        }
    }

    /// The queue, ready to be declared as its actor declares it.
    pub(crate) fn queue(&self, broker: &dyn Broker) -> Queue {
        let mut arguments = Headers::new();
        for (name, value) in &self.arguments {
            if let Some(value) = from_json(value) {
                arguments.set(name, value);
            }
        }
        broker.recorded_queue(&self.name, &arguments)
    }
}

/// Queue arguments are texts, numbers and flags only.
fn to_json(value: &Value) -> Json {
    match value {
        Value::Bool(flag) => Json::from(*flag),
        Value::Text(text) => Json::from(&**text),
        other => other.as_integer().map_or(Json::Null, Json::from),
    }
}

fn from_json(value: &Json) -> Option<Value> {
    match value {
        Json::Bool(flag) => Some(Value::from(*flag)),
        Json::String(text) => Some(Value::from(text.as_str())),
        Json::Number(number) => {
            let number = number.as_i64()?;
            Some(i32::try_from(number).map_or(Value::I64(number), Value::I32))
        }
        _ => None,
    }
}

impl ActorReport {
    pub(super) fn of(broker: &dyn Broker, entry: &Entry, plan: &ActorPlan, config: &Config) -> Self {
        let attributes = &entry.attributes;
        let policies = entry.policies(config).ok();
        let attempts = policies.iter().flat_map(|policies| &policies.of_handlers);
        let lasting = plan.lanes.iter().filter_map(|lane| lane.lasting());
        Self {
            name: entry.name(),
            paused: false,
            guarantee: attributes.guarantee.to_string(),
            domains: attributes.domains.iter().map(|domain| (*domain).to_owned()).collect(),
            dead_queue: plan.dead_queue.clone(),
            most_attempts: attempts.map(|policy| policy.retry.most_attempts()).max().unwrap_or(1),
            queues: lasting.map(|queue| QueueReport::of(broker, queue)).collect(),
        }
    }

    /// The actors of an app, by service.
    pub(super) fn all(broker: &dyn Broker, app: &App, plans: &[ActorPlan], config: &Config) -> Vec<(String, Self)> {
        let of = |(entry, plan): (&Entry, &ActorPlan)| {
            (entry.attributes.service.to_owned(), Self::of(broker, entry, plan, config))
        };
        app.entries.iter().zip(plans).map(of).collect()
    }
}
