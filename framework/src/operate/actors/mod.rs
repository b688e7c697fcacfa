//! Lists, pauses, resumes and restarts the running actors of all services.

mod command;

use std::time::Duration;

use bytes::Bytes;
use postrider_grammar::check_word;

use crate::app::ProcessReport;
use crate::app::control::{Order, Wanted, question};
use crate::bus::{Bus, RequestError, SendError};
use crate::message::Envelope;

pub(in crate::operate) use command::{ActorCommand, obey};

/// How long to wait for answers.
const WINDOW: Duration = Duration::from_secs(2);

/// Why an order failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// The actor's name is invalid.
    #[error("{0}")]
    Name(String),
    /// No process of the service hears orders.
    #[error("no process of service {service:?} is running in namespace {namespace:?}")]
    Nobody {
        /// The service.
        service: String,
        /// The namespace in which it was looked for.
        namespace: String,
    },
    /// A process heard the order, but none answered in time.
    #[error("{}", silence(.service, .instance.as_deref(), *.after))]
    Silence {
        /// The service.
        service: String,
        /// The only instance that was asked.
        instance: Option<String>,
        /// How long the caller waited.
        after: Duration,
    },
    /// The order could not be sent, or the answers could not be received.
    #[error(transparent)]
    Request(#[from] RequestError),
}

fn silence(service: &str, instance: Option<&str>, after: Duration) -> String {
    match instance {
        Some(instance) => format!(
            "no instance {instance:?} of service {service:?} answered within {after:?}; `postrider actor list {service}` names those that do"
        ),
        None => format!("no process of service {service:?} answered within {after:?}; is one of them blocked?"),
    }
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
    /// The actors at the broker of a bus.
    #[must_use]
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone(), window: WINDOW, instance: None }
    }

    /// How long to wait for answers. Default: 2 s. The number of processes is unknown, so a call always waits this long.
    #[must_use]
    pub fn waiting(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Sends orders to one instance only.
    #[must_use]
    pub fn of_instance(mut self, instance: impl Into<String>) -> Self {
        self.instance = Some(instance.into());
        self
    }

    /// The reports of a service's running processes.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn about(&self, service: &str) -> Result<Vec<ProcessReport>, ControlError> {
        self.order(service, None, Wanted::About).await
    }

    /// Pauses an actor in every process. It is named by `service`, or `service.queue` for another actor of the same
    /// service. It takes nothing more from its queues, running handlers finish, and deliveries that no handler has
    /// started are requeued. A process that starts later is not paused.
    ///
    /// # Errors
    /// [`ControlError`]; a process's own failure is in its report.
    pub async fn pause(&self, actor: &str) -> Result<Vec<ProcessReport>, ControlError> {
        self.order(service_of(actor), Some(actor), Wanted::Pause).await
    }

    /// Resumes an actor that was paused, or that stopped at a poisoned message.
    ///
    /// # Errors
    /// As [`Actors::pause`].
    pub async fn resume(&self, actor: &str) -> Result<Vec<ProcessReport>, ControlError> {
        self.order(service_of(actor), Some(actor), Wanted::Resume).await
    }

    /// Opens an actor's consumers again, on new channels. Running handlers go on.
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
            let (service, instance) = (service.to_owned(), self.instance.clone());
            return Err(ControlError::Silence { service, instance, after: self.window });
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
