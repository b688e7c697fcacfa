//! The threads that run actors.

use std::collections::HashMap;
use std::future::{Future, pending};
use std::sync::Arc;

use actix_rt::{Arbiter, ArbiterHandle};
use tokio::sync::oneshot;

use crate::app::builder::App;
use crate::app::config::Config;
use crate::app::launched::Placement;
use crate::app::outcome::StartError;
use crate::broker::{Broker, BrokerError};
use crate::bus::{Counters, Outlet};
use crate::host::{ArbiterWatch, Watchdog};
use crate::supervise::supervise;

pub(super) async fn open_outlet(
    broker: &Arc<dyn Broker>,
    config: &Config,
    counters: &Arc<Counters>,
) -> Result<Arc<Outlet>, BrokerError> {
    Outlet::open(broker, config.limits, config.publish, Arc::clone(counters)).await
}

/// A thread that runs actors: its handle, and what its actors share.
#[derive(Clone)]
pub(super) struct Seat {
    pub(super) handle: Option<ArbiterHandle>,
    pub(super) watch: Arc<ArbiterWatch>,
    pub(super) outlet: Arc<Outlet>,
}

pub(super) struct Threads {
    pub(super) arbiters: Vec<Arbiter>,
    pub(super) seats: Seats,
    pub(super) watchdog: Option<Watchdog>,
}

/// The arbiters: numbered ones for actors that name none, and named ones.
pub(super) struct Seats {
    pub(super) numbered: Vec<Seat>,
    pub(super) named: HashMap<String, Seat>,
}

impl Threads {
    pub(super) async fn start(
        app: &App,
        placement: Placement,
        config: &Config,
        broker: &Arc<dyn Broker>,
        outlet: &Arc<Outlet>,
        counters: &Arc<Counters>,
    ) -> Result<Self, StartError> {
        let mut seats = Seats { numbered: Vec::new(), named: HashMap::new() };
        if placement == Placement::Here {
            seats.numbered.push(Seat { handle: None, watch: ArbiterWatch::new("here"), outlet: Arc::clone(outlet) });
            return Ok(Self { arbiters: Vec::new(), seats, watchdog: None });
        }
        let unnamed =
            app.entries.iter().filter(|entry| entry.arbiter.is_none()).map(|entry| entry.replicas).sum::<usize>();
        let mut names: Vec<String> =
            (0..config.arbiters.min(unnamed)).map(|number| format!("arbiter-{number}")).collect();
        let numbered = names.len();
        for name in app.entries.iter().filter_map(|entry| entry.arbiter.clone()) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let (mut arbiters, mut watches) = (Vec::new(), Vec::new());
        for (index, name) in names.into_iter().enumerate() {
            // The step that can fail comes first, so that no thread is left behind.
            let outlet = open_outlet(broker, config, counters).await;
            let outlet = outlet.inspect_err(|_| {
                arbiters.iter().for_each(|arbiter: &Arbiter| {
                    arbiter.stop();
                });
            })?;
            let arbiter = Arbiter::new();
            let watch = ArbiterWatch::new(name.clone());
            let handle = arbiter.handle();
            let beating = Arc::clone(&watch);
            let beat = async move || Arc::clone(&beating).beat().await;
            let beats = supervise(broker.tasks(), format!("heartbeat of {name}"), pending(), beat);
            handle.spawn(async {
                beats.await;
            });
            let seat = Seat { handle: Some(handle), watch: Arc::clone(&watch), outlet };
            arbiters.push(arbiter);
            watches.push(watch);
            if index < numbered {
                seats.numbered.push(seat);
            } else {
                seats.named.insert(name, seat);
            }
        }
        let watchdog = Watchdog::start(watches).map_err(|error| format!("no thread for the watchdog: {error}"))?;
        Ok(Self { arbiters, seats, watchdog: Some(watchdog) })
    }
}

/// Runs a future on an arbiter and returns its result.
pub(super) async fn on_arbiter<T, F, R>(handle: Option<ArbiterHandle>, run: F) -> Result<T, String>
where
    T: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
    R: Future<Output = Result<T, String>> + 'static,
{
    let (result, waiting) = oneshot::channel();
    let spawn = move || {
        actix_rt::spawn(async move {
            // An error means that the caller has stopped waiting for the start.
            let _ = result.send(run().await);
        });
    };
    match handle {
        Some(handle) => {
            handle.spawn_fn(spawn);
        }
        None => spawn(),
    }
    waiting.await.unwrap_or_else(|_| Err("an actor ended while it started; its panic is in the log".into()))
}
