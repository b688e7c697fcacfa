//! The record of what a service last declared, a note at the broker. It shows which subscriptions belong to handlers
//! that no longer exist.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::app::builder::App;
use crate::app::config::Config;
use crate::app::plans::combined;
use crate::broker::{Broker, BrokerError, Claim, Names, Subscription, Topology};
use crate::inbound::ActorPlan;

/// The most attempts to write a note while other processes write it too.
const MOST_TRIES: usize = 5;

/// The subscriptions of a service as the note contains them, in the broker's own words.
#[derive(Debug, Deserialize)]
struct Noted {
    bindings: Vec<Json>,
}

/// Subscriptions that outlive a process.
pub(crate) type Subscriptions = BTreeSet<Subscription>;

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
    // The subscription of the taps to all events belongs to no single service.
    let shared = combined(&[]).subscriptions;
    subscriptions.extend(combined(&own).subscriptions.into_iter().filter(|one| !shared.contains(one)));
    subscriptions
}

/// What a service last declared, with the note it was read from.
#[derive(Debug)]
pub(crate) struct Record {
    note: Option<Bytes>,
    /// `None` if there is no record.
    pub(crate) subscriptions: Option<Subscriptions>,
}

/// What a service last declared; `None` if there is no record.
pub(crate) async fn read(
    broker: &dyn Broker,
    names: &Names,
    service: &str,
) -> Result<Option<Subscriptions>, BrokerError> {
    Ok(read_record(broker, names, service).await?.subscriptions)
}

/// What a service last declared, with the note that a later [`replace`] compares.
pub(crate) async fn read_record(broker: &dyn Broker, names: &Names, service: &str) -> Result<Record, BrokerError> {
    let name = names.topology(service);
    let note = broker.registry().note(&name).await?;
    let noted = note.as_ref().and_then(|note| {
        let noted = serde_json::from_slice::<Noted>(note);
        noted.inspect_err(|error| tracing::warn!(note = name, %error, "a note cannot be read and is passed over")).ok()
    });
    let known = |noted: Noted| noted.bindings.iter().filter_map(|json| broker.recorded_subscription(json)).collect();
    Ok(Record { note, subscriptions: noted.map(known) })
}

/// Subscriptions that were declared once and no longer are.
pub(crate) fn stale(recorded: &Subscriptions, present: &Subscriptions) -> Vec<Subscription> {
    recorded.difference(present).cloned().collect()
}

/// Lists the claims, and records the current subscriptions of each service. Stale ones stay in the record until they are
/// removed.
pub(crate) async fn write_record(
    broker: &dyn Broker,
    config: &Config,
    app: &App,
    plans: &[ActorPlan],
) -> Result<(), String> {
    let claims: Vec<Claim> = plans.iter().flat_map(|plan| plan.topology.claims.iter().cloned()).collect();
    if let Err(error) = broker.registry().list_claims(&claims).await {
        tracing::warn!(%error, "the claims of this process are not listed; `postrider domain list` does not show them");
    }
    for service in app.services() {
        write_record_of(broker, &config.namespace, service, &present(app, plans, service)).await?;
    }
    Ok(())
}

async fn write_record_of(
    broker: &dyn Broker,
    names: &Names,
    service: &str,
    present: &Subscriptions,
) -> Result<(), String> {
    for _ in 0..MOST_TRIES {
        let record = read_record(broker, names, service).await.map_err(|error| error.to_string())?;
        let mut all = present.clone();
        if let Some(recorded) = &record.subscriptions {
            all.extend(stale(recorded, present));
        }
        if record.subscriptions.as_ref() == Some(&all)
            || replace(broker, names, service, record, &all).await.map_err(|error| error.to_string())?
        {
            return Ok(());
        }
    }
    Err(format!("others write what {service} has declared at the same time"))
}

/// Replaces the record of a service and returns true, unless another process has replaced it since it was read.
pub(crate) async fn replace(
    broker: &dyn Broker,
    names: &Names,
    service: &str,
    record: Record,
    subscriptions: &Subscriptions,
) -> Result<bool, BrokerError> {
    let topology = Topology { subscriptions: subscriptions.iter().cloned().collect(), ..Topology::default() };
    let bindings: Vec<String> = broker.in_own_words(&topology).subscriptions.into_iter().map(|one| one.json).collect();
    let note = format!("{{\"bindings\":[{}]}}", bindings.join(","));
    broker.registry().set_note(&names.topology(service), record.note.as_deref(), note.into()).await
}

/// A subscription in one line, in the broker's own words.
pub(crate) fn shown(broker: &dyn Broker, subscription: &Subscription) -> String {
    let topology = Topology { subscriptions: vec![subscription.clone()], ..Topology::default() };
    broker.in_own_words(&topology).subscriptions.into_iter().map(|one| one.line).collect()
}
