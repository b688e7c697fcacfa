//! Starts an app: check, connect, declare, launch the actors on their arbiters, open all lanes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix_rt::System;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::app::broker_needs::lacking;
use crate::app::builder::App;
use crate::app::check::{check, warn_of_strangers};
use crate::app::config::Config;
use crate::app::connect::{connect, with_origin};
use crate::app::control::{Controls, start_listening};
use crate::app::entry::Entry;
use crate::app::health::{HealthBoard, HealthSource};
use crate::app::launch_actors::launch_actors;
use crate::app::launched::{Launched, Placement};
use crate::app::needs::{needed, run_on_ready, unreachable_needs};
use crate::app::outcome::{StartError, StopReport, unless};
use crate::app::own_settings::SettingsReads;
use crate::app::plans::{combined, identity, plan_of};
use crate::app::record;
use crate::app::running::Running;
use crate::app::start_due::start_due;
use crate::app::stop::stop;
use crate::app::stores::Stores;
use crate::app::threads::{Threads, open_outlet};
use crate::app::upkeep;
use crate::broker::Broker;
use crate::bus::{Bus, Counters};
use crate::host::Stops;
use crate::inbound::is_migrating;
use crate::inbound::{ActorPlan, ConsumerTimeout, LaneStates, Suspects, tell_others};
use crate::message::MessageId;

/// How long handlers may go on when a start is given up; `stop_timeout` if that is shorter.
const STOP_AT_START: Duration = Duration::from_secs(1);

impl App {
    /// Starts the app within a larger program, with the settings of file and environment. The actors run on threads of
    /// their own; the caller may use any runtime.
    ///
    /// # Errors
    /// Every problem that was found: in the configuration, in the actors' attributes, at the broker.
    pub async fn start(mut self) -> Result<Running, StartError> {
        let environment = super::read_config::environment();
        let file = self.config_file.clone();
        super::read_config::read(&mut self.config, file.as_deref(), &environment)
            .map_err(|problems| StartError { problems })?;
        self.start_as_configured().await
    }

    /// Starts the app without reading file and environment.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn start_as_configured(self) -> Result<Running, StartError> {
        let (started, waiting) = oneshot::channel();
        let run = move || System::new().block_on(life(self, Placement::Arbiters, started));
        let thread = std::thread::Builder::new().name("postrider-system".into()).spawn(run);
        let thread = thread.map_err(|error| StartError::from(format!("no thread for the actor system: {error}")))?;
        let running =
            waiting.await.map_err(|_| StartError::from("the actor system ended while it started".to_owned()))??;
        if let Ok(mut slot) = running.thread.lock() {
            *slot = Some(thread);
        }
        Ok(running)
    }
}

/// Runs the app from start to stop.
pub(super) async fn life(app: App, placement: Placement, started: oneshot::Sender<Result<Running, StartError>>) {
    let (board, ended) = (HealthBoard::new(), CancellationToken::new());
    let _ends_health = ended.clone().drop_guard();
    let launching = async {
        board.serve(&app.config, ended).await?;
        Box::pin(launch(app, placement, &board)).await
    };
    let launched = match launching.await {
        Ok(launched) => launched,
        Err(error) => {
            // An error means that the caller has stopped waiting for the start.
            let _ = started.send(Err(error));
            return;
        }
    };
    board.started(HealthSource::of(&launched));
    let (report, ended) = watch::channel(None);
    let stop_request = CancellationToken::new();
    let running = Running {
        concurrency: Arc::clone(&launched.concurrency),
        controls: launched.controls.clone(),
        connection: launched.broker.connection(),
        bus: launched.bus.clone(),
        counters: Arc::clone(&launched.counters),
        health: HealthSource::of(&launched),
        stop: stop_request.clone(),
        ended,
        thread: Mutex::new(None),
    };
    // If the caller no longer waits, `running` is dropped here, which stops the app.
    let _ = started.send(Ok(running));
    tokio::select! {
        () = stop_request.cancelled() => {}
        () = launched.stops.stop_app.cancelled() => {}
    }
    let patience = launched.config.stop_timeout;
    let outcome: StopReport = stop(launched, patience).await;
    report.send_replace(Some(outcome));
}

async fn launch(app: App, placement: Placement, board: &HealthBoard) -> Result<Launched, StartError> {
    let config = Arc::new(app.config.clone());
    let mut problems = check(&app, &config);
    problems.extend(unreachable_needs(&app, &config));
    if !problems.is_empty() {
        return Err(StartError { problems });
    }
    warn_of_strangers(&app, &config);
    let deadline = Instant::now() + config.start_timeout;
    let connecting = connect(&config, &app.broker, &app.name, deadline, |error| board.waits(error));
    let connecting = async { connecting.await.map_err(|error| StartError::from(with_origin(&config, &error))) };
    let broker = unless(&app.give_up, Box::pin(connecting)).await?;
    let problems = lacking(&app, &config, &broker.capabilities(), &broker.describe());
    if !problems.is_empty() {
        broker.close().await;
        return Err(StartError { problems });
    }
    let result = launch_on(&app, placement, &config, Arc::clone(&broker), deadline).await;
    if result.is_err() {
        broker.close().await;
    }
    result
}

async fn launch_on(
    app: &App,
    placement: Placement,
    config: &Arc<Config>,
    broker: Arc<dyn Broker>,
    deadline: Instant,
) -> Result<Launched, StartError> {
    let instance = new_instance();
    let plans: Vec<ActorPlan> = app.entries.iter().map(|entry| plan_of(app, entry, config, &instance)).collect();
    unless(&app.give_up, refuse_unfinished_migrations(&*broker, &plans, deadline)).await?;
    let topology = combined(&plans);
    let declaring = upkeep::declare(&*broker, &config.namespace, &topology, deadline);
    let deleted = unless(&app.give_up, declaring).await?;
    let counters = Arc::new(Counters::default());
    let outlet = unless(&app.give_up, open_outlet(&broker, config, &counters)).await?;
    if deleted {
        tell_others(&outlet, &config.namespace).await;
    }
    let opening = async { Stores::open(app, config, deadline).await.map_err(StartError::from) };
    let stores = unless(&app.give_up, opening).await?;
    let bus = Bus::new(
        Arc::clone(&outlet),
        Arc::new(identity(app, &app.name, &instance, config, &*broker)),
        Arc::clone(&broker),
    )
    .with_store(stores.of(&app.name).cloned(), config.held);
    let store_tasks = unless(&app.give_up, stores.start(&broker, config, &instance, &counters)).await?;
    let threads = Threads::start(app, placement, config, &broker, &outlet, &counters).await?;
    let mut launched = Launched {
        bus: bus.clone(),
        broker: Arc::clone(&broker),
        bridges: Vec::new(),
        arbiters: threads.arbiters,
        stops: Stops::default(),
        counters,
        states: LaneStates::default(),
        suspects: Suspects::default(),
        config: Arc::clone(config),
        reads: SettingsReads::default(),
        concurrency: Arc::new(concurrency(app, config)),
        consumer_timeout: ConsumerTimeout::new(config.consumer_timeout),
        controls: Controls::of(app.entries.iter().map(Entry::name)),
        waits_for: watch::channel(needed(app)).0,
        on_ready: Vec::new(),
        due: None,
        listening: None,
        bind: Arc::default(),
        upkeep: None,
        stores,
        store_tasks,
        failure: Arc::default(),
        watchdog: threads.watchdog,
    };
    if let Err(problems) = launch_actors(app, &mut launched, &plans, &instance, &threads.seats, deadline).await {
        return Err(give_up(launched, problems).await);
    }
    if let Err(error) = record::write_record(&*broker, config, app, &plans).await {
        tracing::warn!(%error, "the topology was not recorded; `topology diff` will know of the last one only");
    }
    if let Err(problem) = start_due(&mut launched, deadline).await {
        return Err(give_up(launched, problem).await);
    }
    start_listening(&mut launched, app, &plans, deadline).await;
    upkeep::start_upkeep(&mut launched);
    run_on_ready(app, &mut launched, &bus);
    tracing::info!(app = app.name, services = ?app.services(), broker = broker.describe(), "ready");
    Ok(launched)
}

fn concurrency(app: &App, config: &Config) -> BTreeMap<String, watch::Sender<usize>> {
    let of = |entry: &Entry| (entry.name(), watch::channel(entry.effective(config).concurrency).0);
    app.entries.iter().map(of).collect()
}

/// Refuses to start while a queue is being migrated: its messages are in another queue.
async fn refuse_unfinished_migrations(
    broker: &dyn Broker,
    plans: &[ActorPlan],
    deadline: Instant,
) -> Result<(), StartError> {
    let mut problems = Vec::new();
    let lasting = plans.iter().flat_map(|plan| &plan.lanes).filter_map(|lane| lane.lasting());
    let lasting = lasting.map(|(queue, _)| queue.name);
    let given_up = plans.iter().map(|plan| plan.dead_queue.clone());
    for name in lasting.chain(given_up).collect::<BTreeSet<_>>() {
        if upkeep::patiently(deadline, async || is_migrating(broker, &name).await).await? {
            problems.push(format!(
                "the migration of queue {name:?} is not finished; finish it with the `topology migrate` that began it"
            ));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(StartError { problems }) }
}

/// Stops what has already started before the problem is reported.
async fn give_up(launched: Launched, problem: String) -> StartError {
    let patience = launched.config.stop_timeout.min(STOP_AT_START);
    stop(launched, patience).await;
    problem.into()
}

/// A word that is unique to this instance.
fn new_instance() -> String {
    let id = MessageId::new();
    let random = id.as_str().rsplit('-').next().unwrap_or("0");
    format!("i{random}")
}
