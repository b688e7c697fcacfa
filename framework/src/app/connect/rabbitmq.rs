//! Connects to RabbitMQ.

use std::sync::Arc;
use std::time::Duration;

use crate::adapter::rabbitmq::{RabbitMq, RabbitMqSettings};
use crate::app::config::Config;
use crate::broker::{Broker, BrokerError};
use crate::message::Secret;

pub(super) async fn connect(
    config: &Config,
    address: &Secret,
    name: &str,
    patience: Duration,
) -> Result<Arc<dyn Broker>, BrokerError> {
    let mut settings = RabbitMqSettings::new(address.clone(), name);
    settings.ca_file.clone_from(&config.broker_ca);
    settings.names = config.namespace.clone();
    settings.patience = patience;
    Ok(Arc::new(RabbitMq::connect(settings).await?))
}
