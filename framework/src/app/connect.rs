//! Chooses the broker adapter for an address and connects to it.

#[cfg(feature = "rabbitmq")]
mod rabbitmq;
#[path = "connect/no_rabbitmq.rs"]
#[cfg(not(feature = "rabbitmq"))]
mod rabbitmq;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::adapter::in_process::InProcess;
use crate::app::builder::BrokerChoice;
use crate::app::config::Config;
use crate::broker::{Broker, BrokerError};

/// The pause between two attempts to reach the broker at the start.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// The error, with the origin of the broker's address or certificates where they are at fault.
pub(crate) fn with_origin(config: &Config, error: &BrokerError) -> String {
    let setting = match error {
        BrokerError::Address { .. }
        | BrokerError::Unreachable { .. }
        | BrokerError::Refused { .. }
        | BrokerError::Untrusted { .. } => "broker",
        BrokerError::Certificates { .. } => "broker_ca",
        _ => return error.to_string(),
    };
    match config.origins.origin(setting) {
        Some(origin) => format!("{error} (set by {origin})"),
        None => error.to_string(),
    }
}

/// Connects to the configured broker, trying again until the start's deadline.
///
/// # Errors
/// Immediately when the error is permanent, else the last error before the deadline.
pub(crate) async fn connect(
    config: &Config,
    choice: &BrokerChoice,
    name: &str,
    deadline: Instant,
    waits: impl Fn(&BrokerError),
) -> Result<Arc<dyn Broker>, BrokerError> {
    loop {
        let error = match connect_once(config, choice, name, deadline).await {
            Ok(broker) => return Ok(broker),
            Err(error) => error,
        };
        if error.is_permanent() || Instant::now() + RETRY_DELAY >= deadline {
            return Err(error);
        }
        tracing::warn!(%error, "trying again");
        waits(&error);
        tokio::time::sleep(RETRY_DELAY).await;
    }
}

/// Connects once. An address in the configuration means RabbitMQ, even if the program chooses another broker.
async fn connect_once(
    config: &Config,
    choice: &BrokerChoice,
    name: &str,
    deadline: Instant,
) -> Result<Arc<dyn Broker>, BrokerError> {
    let patience = deadline.saturating_duration_since(Instant::now());
    let broker = match (&config.broker, choice) {
        (Some(address), _) => rabbitmq::connect(config, address, name, patience).await?,
        (None, BrokerChoice::Adapter(connect)) => {
            let late = |_| Err(BrokerError::TimedOut { what: "connect".into(), seconds: patience.as_secs() });
            timeout_at(deadline, connect(config.namespace.clone())).await.unwrap_or_else(late)?
        }
        (None, BrokerChoice::Shared(broker)) => return Ok(Arc::new(broker.connect(&config.namespace))),
        (None, BrokerChoice::InProcess) => {
            tracing::info!(
                "using the in-process broker: only the services of this process are reachable, and messages end with it; set POSTRIDER_BROKER=amqp://… for RabbitMQ"
            );
            return Ok(Arc::new(InProcess::new().connect(&config.namespace)));
        }
    };
    tracing::info!(broker = broker.describe(), "connected");
    Ok(broker)
}
