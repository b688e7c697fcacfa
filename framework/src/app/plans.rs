//! Computes the topology of an app's services. Pure: nothing is declared here.

use crate::app::builder::App;
use crate::app::config::Config;
use crate::app::entry::Entry;
use crate::broker::{Broker, Topology};
use crate::bus::Identity;
use crate::inbound::{ActorPlan, plan, shared_sources};
use crate::message::Name;

/// The identity under which a service of the app sends.
pub(crate) fn identity(app: &App, service: &str, instance: &str, config: &Config, broker: &dyn Broker) -> Identity {
    let of_service = app.entries.iter().filter(|entry| entry.attributes.service == service);
    let mut domains: Vec<String> =
        of_service.flat_map(|entry| entry.attributes.domains).map(|domain| (*domain).to_owned()).collect();
    if domains.is_empty() {
        domains.push(service.to_owned());
    }
    Identity {
        service: Name::from_wire(service),
        instance: Name::from_wire(instance),
        domains: domains.into(),
        names: config.namespace.clone(),
        media_type: app.media_type.clone(),
        limits: config.limits,
        delays: broker.capabilities().delays,
        propagate: app.propagate.clone().into(),
        hooks: app.hooks.clone().into(),
    }
}

/// The plan of an actor. One actor of each service answers pings: the one without a queue of its own, or else the
/// first.
pub(crate) fn plan_of(app: &App, entry: &Entry, config: &Config, instance: &str) -> ActorPlan {
    let mut of_service = app.entries.iter().filter(|other| other.attributes.service == entry.attributes.service);
    let first = of_service.clone().next().map(Entry::name);
    let main = of_service.find(|other| other.attributes.queue.is_none()).map(Entry::name);
    let answers_ping = main.or(first).as_deref() == Some(entry.name().as_str());
    plan(&entry.attributes, &entry.specs(), &config.namespace, instance, answers_ping, config.query_queue)
}

/// The topology that must exist before anything is sent. Claims come first, so that a refused service leaves nothing
/// behind.
pub(crate) fn combined(plans: &[ActorPlan]) -> Topology {
    let mut combined = shared_sources();
    for plan in plans {
        combined.extend(plan.topology.clone());
    }
    combined
}
