//! The running actors of all services: who is there, pause, resume, restart.

mod command;

use std::time::Duration;

use bytes::Bytes;
use postrider_grammar::check_word;

use crate::app::ProcessReport;
use crate::app::control::{Order, Wanted, question};
use crate::bus::{Bus, RequestError, SendError};
use crate::message::Envelope;

pub(in crate::operate) use command::{ActorCommand, obey};

/// How long answers are waited for.
const WINDOW: Duration = Duration::from_secs(2);

/// Why an order reached nobody.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The actor's name is none.
    #[error("{0}")]
    Name(String),
    /// No process of the service hears orders.
    #[error("no process of service {service:?} is running in namespace {namespace:?}")]
    Nobody {
        /// The service.
        service: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// Somebody heard it, and nobody answered in time.
    #[error("no process of service {service:?} answered within {after:?}; is one of them blocked?")]
    Silence {
        /// The service.
        service: String,
        /// How long was waited.
        after: Duration,
    },
    /// The order could not be sent, or the answers not be received.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// The running actors of all services at a broker. Orders travel as messages: every process of the service hears them,
/// carries them out and answers.
///
/// ```no_run
/// # async fn example(bus: postrider::Bus) -> Result<(), postrider::operate::ControlError> {
/// use postrider::operate::Actors;
///
/// for process in Actors::new(&bus).pause("invoice").await? {
///     println!("{}: {:?}", process.instance, process.problem);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Actors {
    bus: Bus,
    window: Duration,
    instance: Option<String>,
}

impl Actors {
    /// Actors at the broker of a bus.
    #[must_use]
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone(), window: WINDOW, instance: None }
    }

    /// Waits so long for answers. How many processes there are cannot be known, so it always waits to the end.
    /// Default: 2 s.
    #[must_use]
    pub fn waiting(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Means one instance alone.
    #[must_use]
    pub fn of_instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// What the running processes of a service say of themselves.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn about(&self, service: &str) -> Result<Vec<ProcessReport>, ControlError> {
        self.order(service, None, Wanted::About).await
    }

    /// Pauses an actor, named by `service`, or `service.queue` for a further actor of it, in every process: nothing more
    /// is taken from its queues, what runs finishes, what was delivered but not begun goes back. A process that starts
    /// afterwards is not paused.
    ///
    /// # Errors
    /// [`ControlError`]; what a process could not do is in its report.
    pub async fn pause(&self, actor: &str) -> Result<Vec<ProcessReport>, ControlError> {
        self.order(service_of(actor), Some(actor), Wanted::Pause).await
    }

    /// Lets an actor go on that was paused, or that stopped at a poisoned message.
    ///
    /// # Errors
    /// As [`Actors::pause`].
    pub async fn resume(&self, actor: &str) -> Result<Vec<ProcessReport>, ControlError> {
        self.order(service_of(actor), Some(actor), Wanted::Resume).await
    }

    /// Opens an actor's consumers again, on new channels. What runs goes on.
    ///
    /// # Errors
    /// As [`Actors::pause`].
    pub async fn restart(&self, actor: &str) -> Result<Vec<ProcessReport>, ControlError> {
        self.order(service_of(actor), Some(actor), Wanted::Restart).await
    }

    async fn order(
        &self,
        service: &str,
        actor: Option<&str>,
        order: Wanted,
    ) -> Result<Vec<ProcessReport>, ControlError> {
        check_word("service", service).map_err(|error| ControlError::Name(error.to_string()))?;
        let order = Order { order, actor: actor.map(str::to_owned), instance: self.instance.clone() };
        let payload = serde_json::to_vec(&order).map_err(|error| ControlError::Name(error.to_string()))?;
        let answers = match self.ask(service, payload.into()).await {
            Err(RequestError::Send(SendError::Unroutable { .. })) => {
                let namespace = self.bus.identity.names.namespace().to_owned();
                return Err(ControlError::Nobody { service: service.to_owned(), namespace });
            }
            other => other?,
        };
        if answers.is_empty() {
            return Err(ControlError::Silence { service: service.to_owned(), after: self.window });
        }
        let mut reports: Vec<ProcessReport> = answers
            .iter()
            .map(|answer| {
                serde_json::from_slice(&answer.payload)
                    .map_err(|error| ControlError::Name(format!("an answer of {service:?} cannot be read: {error}")))
            })
            .collect::<Result<_, _>>()?;
        reports.sort_by(|a, b| a.instance.cmp(&b.instance));
        Ok(reports)
    }

    async fn ask(&self, service: &str, payload: Bytes) -> Result<Vec<Envelope>, RequestError> {
        self.bus.outlet.ask_all(question(&self.bus, service, payload, self.window)?, self.window).await
    }
}

fn service_of(actor: &str) -> &str {
    actor.split_once('.').map_or(actor, |(service, _)| service)
}
