//! The app's health, served over HTTP at `/live` and `/ready`. It is served before the first attempt to connect.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::adapter::http::{listen, serve};
use crate::app::config::Config;
use crate::app::launched::Launched;
use crate::app::stores::Stores;
use crate::broker::{BrokerError, ConnectionState};
use crate::inbound::{LaneState, LaneStates};
use crate::supervise::{Tasks, supervise};

/// Whether an app can do its work.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Health {
    /// Whether the app is connected and not stopping, every lane consumes or was paused on purpose, the services that
    /// the app needs have answered, and no task of the framework has panicked recently.
    pub ready: bool,
    /// Whether the publishing connection is open.
    pub connected: bool,
    /// Whether the broker blocks publishing at the moment; messages wait until it accepts them again.
    pub blocked: bool,
    /// The services that the app needs and that have not answered yet.
    pub waits_for: Vec<String>,
    /// The tasks of the framework that panicked and are being restarted, one sentence each. This is a bug of the
    /// framework.
    pub panicked: Vec<String>,
    /// Why stores do not do their work right now.
    pub stores: Vec<String>,
    /// The lanes.
    pub lanes: Vec<LaneState>,
}

/// The sources that [`Health`] is computed from.
#[derive(Clone)]
pub(crate) struct HealthSource {
    states: LaneStates,
    connection: watch::Receiver<ConnectionState>,
    stopping: CancellationToken,
    waits_for: watch::Receiver<Vec<String>>,
    tasks: Tasks,
    stores: Stores,
}

impl HealthSource {
    pub(super) fn of(launched: &Launched) -> Self {
        Self {
            states: launched.states.clone(),
            connection: launched.broker.connection(),
            stopping: launched.stops.stopping.clone(),
            waits_for: launched.waits_for.subscribe(),
            tasks: launched.broker.tasks(),
            stores: launched.stores.clone(),
        }
    }

    /// Whether messages wait in the outbox of a store. A store that does not answer has none.
    #[cfg_attr(not(feature = "testing"), allow(dead_code, reason = "only tests wait for it"))]
    pub(crate) async fn has_unsent(&self) -> bool {
        self.stores.have_unsent().await
    }

    /// When the topology was last declared, if this process looks after it.
    pub(crate) fn bound_at(&self) -> Option<tokio::time::Instant> {
        self.states.bound_at()
    }

    /// Whether services that the app needs have not answered yet.
    pub(crate) fn waits(&self) -> bool {
        !self.waits_for.borrow().is_empty()
    }

    pub(crate) fn health(&self) -> Health {
        let (lanes, connection) = (self.states.snapshot(), *self.connection.borrow());
        let consuming = lanes.iter().all(|lane| lane.consuming) && self.states.are_bound();
        let (waits_for, panicked) = (self.waits_for.borrow().clone(), self.tasks.problems());
        let stores = self.stores.problems();
        let works = waits_for.is_empty() && panicked.is_empty() && stores.is_empty();
        let ready = !self.stopping.is_cancelled() && connection.up && consuming && works;
        Health { ready, connected: connection.up, blocked: connection.blocked, waits_for, panicked, stores, lanes }
    }
}

/// The pause between two attempts to listen again.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);

/// Listens on the address again after a panic. Keeps trying while another program holds the address.
async fn listen_again(address: SocketAddr) -> TcpListener {
    loop {
        match listen(address).await {
            Ok(listener) => return listener,
            Err(problem) => tracing::error!(problem, "health is not served; trying again"),
        }
        tokio::time::sleep(LISTEN_PAUSE).await;
    }
}

enum State {
    /// Not started yet, with the reason.
    Starting(String),
    Started(HealthSource),
}

/// What `/ready` reports.
#[derive(Clone)]
pub(crate) struct HealthBoard(Arc<Mutex<State>>);

impl HealthBoard {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(State::Starting("starting".into()))))
    }

    pub(crate) fn waits(&self, error: &BrokerError) {
        self.set(State::Starting(error.to_string()));
    }

    pub(crate) fn started(&self, source: HealthSource) {
        self.set(State::Started(source));
    }

    fn set(&self, state: State) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    fn report(&self) -> (bool, String) {
        match &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Starting(problem) => (false, json!({ "ready": false, "problem": problem }).to_string()),
            State::Started(source) => {
                let health = source.health();
                let report = serde_json::to_string(&health).unwrap_or_else(|error| error.to_string());
                (health.ready, report)
            }
        }
    }

    /// Serves `/live` and `/ready` until the token fires, if the configuration says where.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub(crate) async fn serve(&self, config: &Config, until: CancellationToken) -> Result<(), String> {
        let Some(address) = config.health else { return Ok(()) };
        let listener = listen(address).await.map_err(|error| format!("{}: {error}", config.origins.shown("health")))?;
        tracing::info!(%address, "health is served at /live and /ready");
        let (board, listener, ended) = (self.clone(), Cell::new(Some(listener)), until.clone());
        let serving = async move || {
            let board = board.clone();
            let listener = if let Some(first) = listener.take() { first } else { listen_again(address).await };
            serve(listener, Arc::new(move || board.report()), until.clone()).await;
        };
        // A `Tasks` of its own that is never read: `/ready` cannot report that it is not served.
        actix_rt::spawn(supervise(Tasks::default(), "health".into(), ended.cancelled_owned(), serving));
        Ok(())
    }
}
