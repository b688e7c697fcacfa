//! A started app: watch it, control it, stop it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::app::control::Controls;
use crate::app::health::{Health, HealthSource};
use crate::app::outcome::StopReport;
use crate::broker::ConnectionState;
use crate::bus::{Bus, Counters, Stats};

/// How long the app's thread may take to end after it reported that the app has stopped.
const THREAD_GRACE: Duration = Duration::from_secs(5);
/// How often the thread is checked during that time.
const THREAD_LOOK: Duration = Duration::from_millis(1);

/// A started app. Dropping it stops the app without waiting.
pub struct Running {
    pub(crate) bus: Bus,
    pub(crate) counters: Arc<Counters>,
    pub(crate) health: HealthSource,
    pub(crate) concurrency: Arc<BTreeMap<String, watch::Sender<usize>>>,
    pub(super) controls: Controls,
    pub(crate) connection: watch::Receiver<ConnectionState>,
    pub(crate) stop: CancellationToken,
    pub(crate) ended: watch::Receiver<Option<StopReport>>,
    pub(crate) thread: Mutex<Option<JoinHandle<()>>>,
}

impl Running {
    /// Sends messages as the app.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Counters of everything since the start.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.counters.snapshot()
    }

    /// Whether the app can do its work.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.health()
    }

    /// Changes how many `&self` handlers of an actor run at once per lane, from now on. Actors are named by `service`,
    /// or `service.queue` for another actor of a service. Handlers above the new limit are not interrupted; zero counts
    /// as one.
    ///
    /// # Errors
    /// When there is no such actor; the text names the actors that exist.
    pub fn set_concurrency(&self, actor: &str, concurrency: usize) -> Result<(), String> {
        named(&self.concurrency, actor)?.send_replace(concurrency);
        Ok(())
    }

    /// Pauses an actor in this process: it takes nothing more from its queues, running handlers finish, and deliveries
    /// that no handler has started are requeued. Other instances of the service go on. Pausing a paused actor changes
    /// nothing.
    ///
    /// # Errors
    /// When there is no such actor; the text names the actors that exist.
    pub fn pause(&self, actor: &str) -> Result<(), String> {
        self.controls.pause(actor)
    }

    /// Resumes an actor that was paused, or that stopped at a poisoned message.
    ///
    /// # Errors
    /// As [`Running::pause`].
    pub fn resume(&self, actor: &str) -> Result<(), String> {
        self.controls.resume(actor)
    }

    /// Opens the actor's consumers again, on new channels. Running handlers go on; deliveries that no handler has
    /// started are delivered again.
    ///
    /// # Errors
    /// As [`Running::pause`].
    pub fn restart(&self, actor: &str) -> Result<(), String> {
        self.controls.restart(actor)
    }

    /// The state of the connection to the broker. Each observer has its own receiver and misses no epoch.
    #[must_use]
    pub fn connection(&self) -> watch::Receiver<ConnectionState> {
        self.connection.clone()
    }

    /// Stops the app: it takes no new deliveries, running handlers finish within `stop_timeout`, their messages are
    /// confirmed, and the rest is requeued. A second call waits for the same stop. Cancel safe: the app goes on
    /// stopping.
    pub async fn stop(&self) -> StopReport {
        self.stop.cancel();
        self.ended().await
    }

    /// Waits until the app has stopped, for whatever reason.
    pub async fn ended(&self) -> StopReport {
        let mut ended = self.ended.clone();
        let report = match ended.wait_for(Option::is_some).await {
            Ok(report) => report.clone().unwrap_or_default(),
            Err(_) => {
                StopReport { failure: Some("the app's thread ended unexpectedly".into()), ..StopReport::default() }
            }
        };
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            end_of(thread).await;
        }
        report
    }
}

/// Waits at most `THREAD_GRACE` for a thread that has reported its end. A separate thread waits, because joining
/// blocks: work that never ends would block the caller's executor.
async fn end_of(thread: JoinHandle<()>) {
    let (done, ended) = oneshot::channel();
    let look = move || {
        let until = Instant::now() + THREAD_GRACE;
        while !thread.is_finished() {
            if Instant::now() >= until {
                tracing::warn!("blocking work goes on although the app has stopped; its thread was left behind");
                // An error means that the caller has stopped waiting.
                let _ = done.send(());
                return;
            }
            std::thread::sleep(THREAD_LOOK);
        }
        // The thread itself has reported a panic.
        let _ = (thread.join(), done.send(()));
    };
    if std::thread::Builder::new().name("postrider-ended".into()).spawn(look).is_ok() {
        let _ = ended.await;
    }
}

fn named<'a, T>(actors: &'a BTreeMap<String, T>, actor: &str) -> Result<&'a T, String> {
    actors.get(actor).ok_or_else(|| {
        let known: Vec<&String> = actors.keys().collect();
        format!("there is no actor {actor:?} here; this app has {known:?}")
    })
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
