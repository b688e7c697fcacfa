//! What a service declared last, kept at the broker, so that subscriptions of handlers that have disappeared can be found;
//! and which domains are claimed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::app::builder::App;
use crate::app::config::Config;
use crate::app::plans::combined;
use crate::broker::{Broker, BrokerError, Claim, Names, Queue, Subscription, Topology, WhenFull};
use crate::bus::Outlet;
use crate::inbound::ActorPlan;
use crate::inbound::records::{peek, write};

/// The most claims that are remembered.
const MAX_CLAIMS: u16 = 10_000;

/// The subscriptions of a service, as they are recorded: in the broker's own words.
#[derive(Debug, Clone, Deserialize)]
struct Record {
    bindings: Vec<Json>,
}

/// A claim as it is recorded.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct RecordedClaim {
    domain: String,
    service: String,
}

/// Subscriptions that outlive a process.
pub(crate) type Subscriptions = BTreeSet<Subscription>;

fn record_queue(names: &Names, service: &str) -> Queue {
    Queue::replicated(names.topology(service)).with_limit(1, WhenFull::DropOldest)
}

fn claims_queue(names: &Names) -> Queue {
    Queue::replicated(names.claims()).with_limit(MAX_CLAIMS.into(), WhenFull::DropOldest)
}

/// The lasting subscriptions of one service in an app.
pub(crate) fn present(app: &App, plans: &[ActorPlan], service: &str) -> Subscriptions {
    let of_service = app.entries.iter().zip(plans).filter(|(entry, _)| entry.attributes.service == service);
    let own: Vec<ActorPlan> = of_service.map(|(_, plan)| plan.clone()).collect();
    let mut subscriptions: Subscriptions = own
        .iter()
        .flat_map(|plan| &plan.lanes)
        .filter_map(|lane| lane.lasting())
        .flat_map(|(_, subscriptions)| subscriptions)
        .collect();
    // That all events go to the taps is everybody's.
    let shared = combined(&[]).subscriptions;
    subscriptions.extend(combined(&own).subscriptions.into_iter().filter(|one| !shared.contains(one)));
    subscriptions
}

/// What a service declared last; `None` if nothing is known.
pub(crate) async fn read(
    broker: &dyn Broker,
    names: &Names,
    service: &str,
) -> Result<Option<Subscriptions>, BrokerError> {
    let record = peek::<Record>(broker, &record_queue(names, service).name, 1).await?.pop();
    let read = |record: Record| record.bindings.iter().filter_map(|json| broker.recorded_subscription(json)).collect();
    Ok(record.map(read))
}

/// Subscriptions that were declared and are not any more.
pub(crate) fn stale(recorded: &Subscriptions, present: &Subscriptions) -> Vec<Subscription> {
    recorded.difference(present).cloned().collect()
}

/// Writes what stands now, stale subscriptions included until they are removed, and what is claimed.
pub(crate) async fn keep(
    broker: &dyn Broker,
    outlet: &Outlet,
    config: &Config,
    app: &App,
    plans: &[ActorPlan],
) -> Result<(), String> {
    let records = app.services().into_iter().map(|service| record_queue(&config.namespace, service));
    let declared = broker.declare(&Topology::of_queues(records.chain([claims_queue(&config.namespace)]))).await;
    declared.map_err(|error| error.to_string())?;
    for service in app.services() {
        let mut subscriptions = present(app, plans, service);
        let recorded = read(broker, &config.namespace, service).await.map_err(|error| error.to_string())?;
        if let Some(recorded) = &recorded {
            subscriptions.extend(stale(recorded, &subscriptions));
        }
        if recorded.as_ref() != Some(&subscriptions) {
            replace(broker, outlet, &config.namespace, service, &subscriptions).await?;
        }
    }
    let known = claims(broker, &config.namespace).await.map_err(|error| error.to_string())?;
    for entry in &app.entries {
        for domain in entry.attributes.domains {
            let claim = Claim { domain: (*domain).to_owned(), service: entry.attributes.service.to_owned() };
            if !known.contains(&claim) {
                let Claim { domain, service } = claim;
                let claim =
                    serde_json::to_vec(&RecordedClaim { domain, service }).map_err(|error| error.to_string())?;
                write(outlet, &claims_queue(&config.namespace).name, claim.into()).await?;
            }
        }
    }
    Ok(())
}

/// Replaces the record of a service.
pub(crate) async fn replace(
    broker: &dyn Broker,
    outlet: &Outlet,
    names: &Names,
    service: &str,
    subscriptions: &Subscriptions,
) -> Result<(), String> {
    let topology = Topology { subscriptions: subscriptions.iter().cloned().collect(), ..Topology::default() };
    let bindings: Vec<String> = broker.in_own_words(&topology).subscriptions.into_iter().map(|one| one.json).collect();
    let record = format!("{{\"bindings\":[{}]}}", bindings.join(","));
    write(outlet, &record_queue(names, service).name, record.into()).await
}

/// All claims that were ever made and not forgotten.
pub(crate) async fn claims(broker: &dyn Broker, names: &Names) -> Result<BTreeSet<Claim>, BrokerError> {
    let claims = peek::<RecordedClaim>(broker, &claims_queue(names).name, MAX_CLAIMS).await?;
    Ok(claims.into_iter().map(|RecordedClaim { domain, service }| Claim { domain, service }).collect())
}

/// A subscription in one line, in the broker's own words.
pub(crate) fn shown(broker: &dyn Broker, subscription: &Subscription) -> String {
    let topology = Topology { subscriptions: vec![subscription.clone()], ..Topology::default() };
    broker.in_own_words(&topology).subscriptions.into_iter().map(|one| one.line).collect()
}
