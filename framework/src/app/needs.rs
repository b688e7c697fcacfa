//! What runs once all actors consume: the app waits for the services that it needs, then runs its own work.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use postrider_grammar::check_word;
use tokio::time::Instant;

use crate::app::builder::{App, BrokerChoice};
use crate::app::config::Config;
use crate::app::control::answers;
use crate::app::launched::Launched;
use crate::bus::{Bus, RequestError, SendError};
use crate::supervise::panic_text;

/// How long one question waits for its answer; a restarting broker may have lost it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before a service that has not answered is asked again.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// Why the wait for services failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The name of a service is invalid.
    #[error("{0}")]
    Name(String),
    /// No process of these services answered.
    #[error(
        "no process of {services:?} answered within {within:?} in namespace {namespace:?}: start what is missing there, or wait longer (the last try: {last})"
    )]
    Missing {
        /// The services that did not answer.
        services: Vec<String>,
        /// How long the caller waited.
        within: Duration,
        /// The namespace in which they were looked for.
        namespace: String,
        /// The result of the last question to the first of them.
        last: String,
    },
}

impl Bus {
    /// Waits until each of these services has a process whose actors all consume. From then on its queues exist: no
    /// command is returned and no event is lost for lack of a queue. See [`App::needs`] for a wait at the start.
    ///
    /// ```no_run
    /// # async fn example(bus: postrider::Bus) -> Result<(), postrider::WaitError> {
    /// bus.wait_for_services(["orders", "invoice"], std::time::Duration::from_secs(60)).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`WaitError::Missing`] when one of them has not answered in time; it names all such services.
    pub async fn wait_for_services<S: Into<String>>(
        &self,
        services: impl IntoIterator<Item = S>,
        within: Duration,
    ) -> Result<(), WaitError> {
        wait_for(self, services.into_iter().map(Into::into).collect(), within, |_| {}).await
    }
}

async fn wait_for(bus: &Bus, services: Vec<String>, within: Duration, there: impl Fn(&str)) -> Result<(), WaitError> {
    for service in &services {
        check_word("service", service).map_err(|error| WaitError::Name(error.to_string()))?;
    }
    let started = Instant::now();
    let asking = services.iter().map(|service| {
        let there = &there;
        async move {
            let asked = ask_until_answered(bus, service, started, within).await;
            if asked.is_ok() {
                there(service);
            }
            asked.map_err(|last| (service.clone(), last))
        }
    });
    let mut missing = join_all(asking).await.into_iter().filter_map(Result::err).peekable();
    let Some((_, last)) = missing.peek().cloned() else { return Ok(()) };
    let namespace = bus.identity.names.namespace().to_owned();
    Err(WaitError::Missing { services: missing.map(|(service, _)| service).collect(), within, namespace, last })
}

/// Asks until the service answers. At the timeout, returns the result of the last question.
async fn ask_until_answered(bus: &Bus, service: &str, started: Instant, within: Duration) -> Result<(), String> {
    loop {
        let left = within.saturating_sub(started.elapsed());
        let problem = match answers(bus, service, ANSWER_TIMEOUT.min(left).max(Duration::from_millis(1))).await {
            Ok(()) => return Ok(()),
            Err(RequestError::Send(SendError::Unroutable { .. })) => format!("{service:?} has not started"),
            Err(error) => error.to_string(),
        };
        let left = within.saturating_sub(started.elapsed());
        if left.is_zero() {
            return Err(problem);
        }
        tokio::time::sleep(RETRY_DELAY.min(left)).await;
    }
}

/// The services that the app needs and does not contain.
pub(super) fn needed(app: &App) -> Vec<String> {
    let own = app.services();
    let mut needed: Vec<String> = Vec::new();
    for service in &app.needs {
        if !own.contains(&service.as_str()) && !needed.contains(service) {
            needed.push(service.clone());
        }
    }
    needed
}

/// The problem when the app needs other services but its own in-process broker reaches no other process. Waiting would
/// not help.
pub(super) fn unreachable_needs(app: &App, config: &Config) -> Option<String> {
    let needed = needed(app);
    let alone = config.broker.is_none() && matches!(app.broker, BrokerChoice::InProcess);
    (alone && !needed.is_empty()).then(|| {
        format!(
            "this app needs the services {needed:?}, which are not in this process, and its in-process broker reaches no other; set POSTRIDER_BROKER=amqp://user:password@host:5672"
        )
    })
}

/// Runs the app's own work once the needed services have answered.
pub(super) fn run_on_ready(app: &App, launched: &mut Launched, bus: &Bus) {
    if !launched.waits_for.borrow().is_empty() {
        launched.on_ready.push(wait_for_needs(launched, bus.clone()));
    }
    for (index, run) in app.on_ready.iter().enumerate() {
        let ends = app.ends == Some(index);
        let (run, stop) = (run(bus.clone()), launched.stops.stop_app.clone());
        let (mut waits_for, fails) = (launched.waits_for.subscribe(), Fails::of(launched));
        launched.on_ready.push(actix_rt::spawn(async move {
            // An error means that the app no longer exists.
            if waits_for.wait_for(Vec::is_empty).await.is_err() {
                return;
            }
            match AssertUnwindSafe(run).catch_unwind().await {
                Ok(Ok(())) if ends => stop.cancel(),
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::error!(%error, "what runs once the app is ready failed; stopping");
                    fails.with(error.to_string());
                }
                // A panic left the work half done, and nothing would finish it. An app that went on would only look
                // healthy.
                Err(panic) => {
                    let panic = panic_text(&*panic);
                    tracing::error!(panic, "what runs once the app is ready panicked; stopping");
                    fails.with(format!("what runs once the app is ready panicked: {panic}"));
                }
            }
        }));
    }
}

fn wait_for_needs(launched: &Launched, bus: Bus) -> tokio::task::JoinHandle<()> {
    let (waits_for, within) = (launched.waits_for.clone(), launched.config.needs_timeout);
    let fails = Fails::of(launched);
    actix_rt::spawn(async move {
        let services = waits_for.borrow().clone();
        tracing::info!(?services, ?within, "waiting for the services that this app needs");
        let there = |service: &str| waits_for.send_modify(|missing| missing.retain(|other| other != service));
        match wait_for(&bus, services, within, there).await {
            Ok(()) => tracing::info!("the services that this app needs are there"),
            Err(error) => {
                tracing::error!(%error, "stopping");
                fails.with(format!("{error}; `needs_timeout` says how long this app waits"));
            }
        }
    })
}

/// Stops the app with a failure.
struct Fails {
    failure: Arc<std::sync::Mutex<Option<String>>>,
    stop: tokio_util::sync::CancellationToken,
}

impl Fails {
    fn of(launched: &Launched) -> Self {
        Self { failure: Arc::clone(&launched.failure), stop: launched.stops.stop_app.clone() }
    }

    fn with(&self, problem: String) {
        if let Ok(mut failure) = self.failure.lock() {
            *failure = Some(problem);
        }
        self.stop.cancel();
    }
}
