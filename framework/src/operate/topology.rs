//! `topology show|apply|diff|gc|migrate`.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use tokio::time::Instant;

use crate::adapter::in_process::InProcess;
use crate::app::builder::{App, BrokerChoice};
use crate::app::connect::{connect, with_origin};
use crate::app::plans::{combined, identity, plan_of};
use crate::app::record;
use crate::broker::{Broker, OwnWords, Source, Subscription, Target, Topology, due_topology};
use crate::bus::{Bus, Counters, Outlet};
use crate::inbound::{ActorPlan, generation_queue, tell_others, were_deleted};
use crate::operate::cli::TopologyCommand;
use crate::operate::migrate::Migration;
use crate::operate::output;
use crate::operate::printable::one_line;

/// Everything of an app that outlives its process.
fn lasting(app: &App, plans: &[ActorPlan]) -> Topology {
    let mut topology = combined(plans);
    topology.extend(due_topology(&app.config.namespace));
    topology.extend(generation_queue(&app.config.namespace));
    for (queue, subscriptions) in plans.iter().flat_map(|plan| &plan.lanes).filter_map(|lane| lane.lasting()) {
        topology.extend(Topology { queues: vec![queue], subscriptions, ..Topology::default() });
    }
    topology
}

/// The topology of delays. The first delay declares it; here it is for services that may not declare.
fn delays(plans: &[ActorPlan]) -> Topology {
    // An actor that only answers queries has no queue for a delayed message to return to.
    let has_queue = |plan: &&ActorPlan| {
        plan.lanes.iter().filter_map(|lane| lane.lasting()).any(|(queue, _)| queue.name == plan.queue.as_str())
    };
    let comes_back = |plan: &ActorPlan| Subscription {
        source: Source::Delays,
        pattern: plan.queue.clone(),
        target: Target::Queue(plan.queue.clone()),
    };
    let subscriptions = plans.iter().filter(has_queue).map(comes_back).collect();
    Topology { sources: vec![Source::Delays], subscriptions, ..Topology::default() }
}

/// Runs the command and returns the exit code.
///
/// # Errors
/// One sentence.
pub(super) async fn run(app: &App, command: &TopologyCommand) -> Result<u8, String> {
    let plans: Vec<ActorPlan> = app.entries.iter().map(|entry| plan_of(app, entry, &app.config, "…")).collect();
    let topology = lasting(app, &plans);
    let is_of_adapter = app.config.broker.is_none() && matches!(app.broker, BrokerChoice::Adapter(_));
    if let TopologyCommand::Show { json } = command
        && !is_of_adapter
    {
        // The in-process broker uses the same words as RabbitMQ and needs no connection.
        show(&InProcess::new().connect(&app.config.namespace).in_own_words(&topology), *json);
        return Ok(0);
    }
    let deadline = Instant::now() + app.config.start_timeout;
    let broker = connect(&app.config, &app.broker, &app.name, deadline, |_| {})
        .await
        .map_err(|error| with_origin(&app.config, &error))?;
    let result = with_broker(app, &plans, &topology, command, &broker).await;
    broker.close().await;
    result
}

async fn with_broker(
    app: &App,
    plans: &[ActorPlan],
    topology: &Topology,
    command: &TopologyCommand,
    broker: &Arc<dyn Broker>,
) -> Result<u8, String> {
    let text = |error: crate::broker::BrokerError| error.to_string();
    let config = &app.config;
    let counters = Arc::new(Counters::default());
    let outlet = Outlet::open(broker, config.limits, config.publish, counters).await.map_err(text)?;
    if let TopologyCommand::Apply = command {
        let deleted = were_deleted(&**broker, &config.namespace).await;
        broker.declare(topology).await.map_err(text)?;
        if deleted {
            tell_others(&outlet, &config.namespace).await;
        }
        broker.declare(&delays(plans)).await.map_err(text)?;
        record::write_record(&**broker, config, app, plans).await?;
        let OwnWords { sources, queues, subscriptions } = broker.in_own_words(topology);
        output::line(format_args!(
            "declared {} exchanges, {} queues, {} bindings, and the levels for delays",
            sources.len(),
            queues.len(),
            subscriptions.len()
        ));
        return Ok(0);
    }
    if let TopologyCommand::Show { json } = command {
        show(&broker.in_own_words(topology), *json);
        return Ok(0);
    }
    if let TopologyCommand::Migrate { queue } = command {
        let bus =
            Bus::new(outlet, Arc::new(identity(app, &app.name, "operator", config, &**broker)), Arc::clone(broker));
        return migrate(&bus, topology, queue).await.map(|()| 0);
    }
    let (mut found, mut said) = (0, Vec::new());
    for service in app.services() {
        let present = record::present(app, plans, service);
        let record = record::read_record(&**broker, &config.namespace, service).await.map_err(text)?;
        let Some(recorded) = &record.subscriptions else {
            said.push(format!("{service}: nothing was declared before"));
            continue;
        };
        let stale = record::stale(recorded, &present);
        let missing: Vec<Subscription> = present.difference(recorded).cloned().collect();
        found += stale.len() + missing.len();
        // Do the work before printing: printing ends the program if the reader is gone.
        let removed = matches!(command, TopologyCommand::Gc { apply: true }) && !stale.is_empty();
        if removed {
            broker.remove(&Topology { subscriptions: stale.clone(), ..Topology::default() }).await.map_err(text)?;
            if !record::replace(&**broker, &config.namespace, service, record, &present).await.map_err(text)? {
                said.push(format!("{service}: another process has changed its record meanwhile; run this again"));
            }
        }
        let shown = |subscription| one_line(&record::shown(&**broker, subscription)).to_string();
        said.extend(stale.iter().map(|subscription| format!("{service}: stale    {}", shown(subscription))));
        said.extend(missing.iter().map(|subscription| format!("{service}: missing  {}", shown(subscription))));
        if removed {
            said.push(format!("{service}: removed {} stale bindings", stale.len()));
        }
    }
    if found == 0 {
        said.push("nothing is stale".into());
    }
    said.iter().for_each(output::line);
    Ok(u8::from(found > 0 && matches!(command, TopologyCommand::Diff)))
}

/// Migrates the queue to the arguments that this binary declares.
async fn migrate(bus: &Bus, topology: &Topology, queue: &str) -> Result<(), String> {
    let Some(target) = topology.queues.iter().find(|known| known.name == queue) else {
        let known: Vec<&str> = topology.queues.iter().map(|queue| queue.name.as_str()).collect();
        return Err(format!("this binary has no queue {queue:?}; it has {known:?}"));
    };
    let moved = Migration::new(bus).run(target, &topology.subscriptions).await.map_err(|error| error.to_string())?;
    output::line(format_args!("{queue} has its present arguments; {moved} messages were moved"));
    Ok(())
}

fn show(topology: &OwnWords, as_json: bool) {
    let arguments = |headers: &crate::message::Headers| -> String {
        let shown = headers.iter().map(|(name, value)| match value.as_text() {
            Some(text) => format!("{name}={text}"),
            None => format!("{name}={}", value.as_integer().map_or_else(|| format!("{value:?}"), |n| n.to_string())),
        });
        shown.collect::<Vec<_>>().join(" ")
    };
    let OwnWords { sources, queues, subscriptions } = topology;
    if as_json {
        let shown = json!({
            "exchanges": sources.iter().map(|e| json!({ "name": e.name, "type": e.kind, "arguments": arguments(&e.arguments) })).collect::<Vec<_>>(),
            "queues": queues.iter().map(|q| json!({ "name": q.name, "kind": q.kind, "arguments": arguments(&q.arguments) })).collect::<Vec<_>>(),
            "bindings": subscriptions.iter().filter_map(|s| serde_json::from_str(&s.json).ok()).collect::<Vec<Json>>(),
        });
        output::line(format_args!("{shown:#}"));
        return;
    }
    for source in sources {
        let arguments = arguments(&source.arguments);
        output::line(format_args!("exchange {:<32} {:<7} {arguments}", source.name, source.kind));
    }
    for queue in queues {
        let arguments = arguments(&queue.arguments);
        output::line(format_args!("queue    {:<32} {:<7} {arguments}", queue.name, queue.kind));
    }
    for subscription in subscriptions {
        output::line(format_args!("binding  {}", one_line(&subscription.line)));
    }
}
