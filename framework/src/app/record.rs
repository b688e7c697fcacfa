//! What a service declared last, kept at the broker, so that bindings of handlers that have disappeared can be found;
//! and which domains are claimed.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::app::builder::App;
use crate::app::config::Config;
use crate::app::launch::combined;
use crate::broker::{Binding, Broker, BrokerError, Destination, Names, Queue, Topology};
use crate::bus::Outlet;
use crate::inbound::ActorPlan;
use crate::inbound::records::{peek, write};

/// The most claims that are remembered.
const MAX_CLAIMS: u16 = 10_000;

/// The bindings that a service declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) bindings: BTreeSet<Binding>,
}

/// A domain and who claimed it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Claim {
    pub(super) domain: String,
    pub(super) service: String,
}

fn record_queue(names: &Names, service: &str) -> Queue {
    Queue::quorum(names.topology(service)).with("x-max-length", 1_i32)
}

fn claims_queue(names: &Names) -> Queue {
    Queue::quorum(names.domain("claims")).with("x-max-length", i32::from(MAX_CLAIMS))
}

/// The lasting bindings of one service in an app.
pub(super) fn present(app: &App, plans: &[ActorPlan], config: &Config, service: &str) -> Record {
    let of_service = app.entries.iter().zip(plans).filter(|(entry, _)| entry.attributes.service == service);
    let own: Vec<ActorPlan> = of_service.map(|(_, plan)| plan.clone()).collect();
    let mut bindings: BTreeSet<Binding> = own
        .iter()
        .flat_map(|plan| &plan.lanes)
        .filter_map(|lane| lane.lasting())
        .flat_map(|(_, bindings)| bindings)
        .collect();
    // The tap of the event exchange belongs to everybody.
    let event_tap = combined(&[], config).bindings;
    bindings.extend(combined(&own, config).bindings.into_iter().filter(|binding| !event_tap.contains(binding)));
    Record { bindings }
}

/// What a service declared last; `None` if nothing is known.
pub(super) async fn read(broker: &dyn Broker, names: &Names, service: &str) -> Result<Option<Record>, BrokerError> {
    Ok(peek::<Record>(broker, &record_queue(names, service).name, 1).await?.pop())
}

/// Bindings that were declared and are not any more.
pub(super) fn stale(recorded: &Record, present: &Record) -> Vec<Binding> {
    recorded.bindings.difference(&present.bindings).cloned().collect()
}

/// Writes what stands now, stale bindings included until they are removed, and what is claimed.
pub(super) async fn keep(
    broker: &dyn Broker,
    outlet: &Outlet,
    config: &Config,
    app: &App,
    plans: &[ActorPlan],
) -> Result<(), String> {
    let mut queues: Vec<Queue> =
        app.services().into_iter().map(|service| record_queue(&config.namespace, service)).collect();
    queues.push(claims_queue(&config.namespace));
    let declared = broker.declare(&Topology { queues, ..Topology::default() }).await;
    declared.map_err(|error| error.to_string())?;
    for service in app.services() {
        let mut record = present(app, plans, config, service);
        let recorded = read(broker, &config.namespace, service).await.map_err(|error| error.to_string())?;
        if let Some(recorded) = &recorded {
            record.bindings.extend(stale(recorded, &record));
        }
        if recorded.as_ref() != Some(&record) {
            write(outlet, &record_queue(&config.namespace, service).name, &record).await?;
        }
    }
    let known = claims(broker, &config.namespace).await.map_err(|error| error.to_string())?;
    for entry in &app.entries {
        for domain in entry.attributes.domains {
            let claim = Claim { domain: (*domain).to_owned(), service: entry.attributes.service.to_owned() };
            if !known.contains(&claim) {
                write(outlet, &claims_queue(&config.namespace).name, &claim).await?;
            }
        }
    }
    Ok(())
}

/// Replaces the record of a service.
pub(super) async fn replace(outlet: &Outlet, names: &Names, service: &str, record: &Record) -> Result<(), String> {
    write(outlet, &record_queue(names, service).name, record).await
}

/// All claims that were ever made and not forgotten.
pub(super) async fn claims(broker: &dyn Broker, names: &Names) -> Result<BTreeSet<Claim>, BrokerError> {
    Ok(peek::<Claim>(broker, &claims_queue(names).name, MAX_CLAIMS).await?.into_iter().collect())
}

/// A binding in one line.
pub(super) fn shown(binding: &Binding) -> String {
    let to = match &binding.destination {
        Destination::Queue(queue) => format!("queue {queue}"),
        Destination::Exchange(exchange) => format!("exchange {exchange}"),
    };
    format!("exchange {} --{}--> {to}", binding.source, binding.routing_key)
}
