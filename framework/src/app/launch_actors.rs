//! Launches the actors of an app on their arbiters and waits until all of them consume.

use std::sync::Arc;

use actix::Addr;
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::app::builder::App;
use crate::app::entry::{Entry, Launch};
use crate::app::launched::Launched;
use crate::app::outcome::StartError;
use crate::app::outcome::unless;
use crate::app::plans::{identity, plan_of};
use crate::app::threads::{Seat, Seats, on_arbiter};
use crate::bus::{Bus, Unsent};
use crate::handler::Middleware;
use crate::host::Running as RunningMessages;
use crate::inbound::{ActorPlan, Bridge, LaneStates};

type Starting = LocalBoxFuture<'static, Result<Addr<Bridge>, String>>;

/// Launches the actors. Each one that consumes is added to `launched` at once, so that it is stopped in order even if
/// another one fails.
///
/// # Errors
/// The problems, one sentence per line.
pub(super) async fn launch_actors(
    app: &App,
    launched: &mut Launched,
    plans: &[ActorPlan],
    instance: &str,
    seats: &Seats,
    deadline: Instant,
) -> Result<(), String> {
    let mut starting: FuturesUnordered<Starting> =
        starting(app, launched, plans, instance, seats).into_iter().collect();
    let (states, bridges) = (launched.states.clone(), &mut launched.bridges);
    let mut problems = Vec::new();
    let all = async {
        while let Some(started) = starting.next().await {
            match started {
                Ok(bridge) => bridges.push(bridge),
                Err(problem) => problems.push(problem),
            }
        }
        Ok::<_, StartError>(())
    };
    match timeout_at(deadline, unless(&app.give_up, all)).await {
        Ok(Ok(())) => {}
        Ok(Err(stopped)) => return Err(stopped.to_string()),
        Err(_) => {
            let (limit, waiting) = (launched.config.start_timeout, not_consuming(&states));
            return Err(format!("not started within {limit:?}: still waiting for {}", waiting.join(", ")));
        }
    }
    problems.extend(launched.reads.unknown(&launched.config, &app.services()));
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

/// The queues without a consumer, and why.
fn not_consuming(states: &LaneStates) -> Vec<String> {
    let silent = states.snapshot().into_iter().filter(|lane| !lane.consuming);
    silent.map(|lane| format!("{:?} ({})", lane.queue, lane.problem.as_deref().unwrap_or("no answer"))).collect()
}

fn starting(app: &App, launched: &Launched, plans: &[ActorPlan], instance: &str, seats: &Seats) -> Vec<Starting> {
    let mut turn = 0;
    let mut starting = Vec::new();
    for (entry, plan) in app.entries.iter().zip(plans) {
        let running = RunningMessages::default();
        for replica in 0..entry.replicas {
            let named = entry.arbiter.as_ref().and_then(|name| seats.named.get(name));
            let Some(seat) = named.or_else(|| seats.numbered.get(turn % seats.numbered.len().max(1))) else { continue };
            turn += usize::from(named.is_none());
            // A copy counts as an instance: it has its own state and its own queue for instance-scoped events.
            let instance = if replica == 0 { instance.to_owned() } else { format!("{instance}-{replica}") };
            let plan = if replica == 0 { plan.clone() } else { plan_of(app, entry, &launched.config, &instance) };
            let launch = match actor_launch(app, entry, launched, (plan, running.clone()), &instance, seat) {
                Ok(launch) => launch,
                Err(problem) => {
                    starting.push(Box::pin(std::future::ready(Err(problem))) as Starting);
                    continue;
                }
            };
            let run = Arc::clone(&entry.launch);
            starting.push(Box::pin(on_arbiter(seat.handle.clone(), move || run(launch))) as Starting);
        }
    }
    starting
}

fn actor_launch(
    app: &App,
    entry: &Entry,
    launched: &Launched,
    (plan, running): (ActorPlan, RunningMessages),
    instance: &str,
    seat: &Seat,
) -> Result<Launch, String> {
    let config = &launched.config;
    let identity = identity(app, entry.attributes.service, instance, config, &*launched.broker);
    let mut effective = entry.effective(config);
    let concurrency = launched
        .concurrency
        .get(&entry.name())
        .map_or_else(|| watch::channel(effective.concurrency).1, watch::Sender::subscribe);
    let pace = entry.pace(config, concurrency.clone());
    let most = pace.most_prefetch(launched.consumer_timeout.get());
    if effective.prefetch > most && effective.prefetch_is_explicit {
        tracing::warn!(
            actor = entry.name(),
            effective.prefetch,
            most,
            "the prefetch is lowered to what handlers finish within consumer_timeout"
        );
    }
    effective.prefetch = effective.prefetch.min(most);
    let middleware: Vec<Arc<dyn Middleware>> = app.middleware.iter().chain(&entry.middleware).cloned().collect();
    let store = launched.stores.of(entry.attributes.service).filter(|_| entry.needs_store()).cloned();
    Ok(Launch {
        store,
        policies: entry.policies(config)?,
        running,
        unsent: Unsent::default(),
        suspects: launched.suspects.clone(),
        bus: Bus::new(Arc::clone(&seat.outlet), Arc::new(identity), Arc::clone(&launched.broker))
            .with_store(launched.stores.of(entry.attributes.service).cloned(), config.held),
        broker: Arc::clone(&launched.broker),
        plan,
        effective,
        control: launched.controls.subscribe(&entry.name()),
        concurrency,
        consumer_timeout: launched.consumer_timeout.clone(),
        pace,
        config: Arc::clone(config),
        reads: launched.reads.clone(),
        middleware: middleware.into(),
        counters: Arc::clone(&launched.counters),
        watch: Arc::clone(&seat.watch),
        states: launched.states.clone(),
        stops: launched.stops.clone(),
    })
}
