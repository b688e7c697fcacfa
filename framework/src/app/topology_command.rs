//! `topology show|apply|diff|gc|migrate`.

use std::sync::Arc;

use serde_json::json;
use tokio::time::Instant;

use crate::app::builder::App;
use crate::app::cli::TopologyCommand;
use crate::app::connect::{connect, told};
use crate::app::launch::{combined, identity, plan_of};
use crate::app::migrate::Migration;
use crate::app::output;
use crate::app::printable::one_line;
use crate::app::record;
use crate::broker::{Binding, Broker, Queue, Topology, delay_levels, delay_return, due_topology};
use crate::bus::{Bus, Counters, Outlet};
use crate::inbound::{ActorPlan, generation_queue, tell_others, were_deleted};

/// Everything of an app that outlives its process.
fn lasting(app: &App, plans: &[ActorPlan]) -> Topology {
    let mut topology = combined(plans, &app.config);
    topology.extend(due_topology(&app.config.namespace));
    topology.extend(generation_queue(&app.config.namespace));
    for (queue, bindings) in plans.iter().flat_map(|plan| &plan.lanes).filter_map(|lane| lane.lasting()) {
        topology.extend(Topology { queues: vec![queue], bindings, ..Topology::default() });
    }
    topology
}

/// What delays need. A process declares it before its first delay; here it is for those who may not declare.
fn delays(app: &App, plans: &[ActorPlan]) -> Topology {
    let mut topology = delay_levels(&app.config.namespace);
    // An actor that only answers queries has no queue to which something put off could come back.
    let has_queue = |plan: &&ActorPlan| {
        plan.lanes.iter().filter_map(|lane| lane.lasting()).any(|(queue, _)| queue.name == plan.queue.as_str())
    };
    let returns = plans.iter().filter(has_queue).map(|plan| delay_return(&app.config.namespace, &plan.queue));
    topology.bindings.extend(returns);
    topology
}

/// Runs the command; the exit code.
///
/// # Errors
/// One sentence.
pub(super) async fn run(app: &App, command: &TopologyCommand) -> Result<u8, String> {
    let plans: Vec<ActorPlan> = app.entries.iter().map(|entry| plan_of(app, entry, &app.config, "…")).collect();
    let topology = lasting(app, &plans);
    if let TopologyCommand::Show { json } = command {
        show(&topology, *json);
        return Ok(0);
    }
    let deadline = Instant::now() + app.config.start_timeout;
    let broker = connect(&app.config, &app.broker, &app.name, deadline, |_| {})
        .await
        .map_err(|error| told(&app.config, &error))?;
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
        broker.declare(&delays(app, plans)).await.map_err(text)?;
        record::keep(&**broker, &outlet, config, app, plans).await?;
        output::line(format_args!(
            "declared {} exchanges, {} queues, {} bindings, and the levels for delays",
            topology.exchanges.len(),
            topology.queues.len(),
            topology.bindings.len()
        ));
        return Ok(0);
    }
    if let TopologyCommand::Migrate { queue } = command {
        let bus = Bus::new(outlet, Arc::new(identity(app, &app.name, "operator", config)), Arc::clone(broker));
        return migrate(&bus, topology, queue).await.map(|()| 0);
    }
    let (mut found, mut said) = (0, Vec::new());
    for service in app.services() {
        let present = record::present(app, plans, config, service);
        let recorded = record::read(&**broker, &config.namespace, service).await.map_err(text)?;
        let Some(recorded) = recorded else {
            said.push(format!("{service}: nothing was declared before"));
            continue;
        };
        let stale = record::stale(&recorded, &present);
        let missing: Vec<&Binding> = present.bindings.difference(&recorded.bindings).collect();
        found += stale.len() + missing.len();
        // First the work, then what is said of it: nobody may be reading.
        let removed = matches!(command, TopologyCommand::Gc { apply: true }) && !stale.is_empty();
        if removed {
            broker.remove(&Topology { bindings: stale.clone(), ..Topology::default() }).await.map_err(text)?;
            record::replace(&outlet, &config.namespace, service, &present).await?;
        }
        stale
            .iter()
            .for_each(|binding| said.push(format!("{service}: stale    {}", one_line(&record::shown(binding)))));
        missing
            .iter()
            .for_each(|binding| said.push(format!("{service}: missing  {}", one_line(&record::shown(binding)))));
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

/// The queue as this binary declares it.
async fn migrate(bus: &Bus, topology: &Topology, queue: &str) -> Result<(), String> {
    let Some(target) = topology.queues.iter().find(|known| known.name == queue) else {
        let known: Vec<&str> = topology.queues.iter().map(|queue| queue.name.as_str()).collect();
        return Err(format!("this binary has no queue {queue:?}; it has {known:?}"));
    };
    let moved = Migration::new(bus).run(target, &topology.bindings).await.map_err(|error| error.to_string())?;
    output::line(format_args!("{queue} has its present arguments; {moved} messages were moved"));
    Ok(())
}

fn show(topology: &Topology, as_json: bool) {
    let arguments = |headers: &crate::message::Headers| -> String {
        let shown = headers.iter().map(|(name, value)| match value.as_text() {
            Some(text) => format!("{name}={text}"),
            None => format!("{name}={}", value.as_integer().map_or_else(|| format!("{value:?}"), |n| n.to_string())),
        });
        shown.collect::<Vec<_>>().join(" ")
    };
    let kind = |queue: &Queue| if queue.exclusive { "exclusive" } else { "durable" };
    if as_json {
        let shown = json!({
            "exchanges": topology.exchanges.iter().map(|e| json!({ "name": e.name, "type": e.kind.as_str(), "arguments": arguments(&e.arguments) })).collect::<Vec<_>>(),
            "queues": topology.queues.iter().map(|q| json!({ "name": q.name, "kind": kind(q), "arguments": arguments(&q.arguments) })).collect::<Vec<_>>(),
            "bindings": topology.bindings,
        });
        output::line(format_args!("{shown:#}"));
        return;
    }
    for exchange in &topology.exchanges {
        output::line(format_args!(
            "exchange {:<32} {:<7} {}",
            exchange.name,
            exchange.kind.as_str(),
            arguments(&exchange.arguments)
        ));
    }
    for queue in &topology.queues {
        output::line(format_args!("queue    {:<32} {:<7} {}", queue.name, kind(queue), arguments(&queue.arguments)));
    }
    for binding in &topology.bindings {
        output::line(format_args!("binding  {}", one_line(&record::shown(binding))));
    }
}
