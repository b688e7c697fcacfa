//! Rejects an address of RabbitMQ in a program that was built without that adapter.

use std::sync::Arc;
use std::time::Duration;

use crate::app::config::Config;
use crate::broker::{Broker, BrokerError};
use crate::message::Secret;

pub(super) async fn connect(_: &Config, _: &Secret, _: &str, _: Duration) -> Result<Arc<dyn Broker>, BrokerError> {
    let reason =
        "this program was built without postrider's feature `rabbitmq`; add the feature, or leave the address out";
    Err(BrokerError::Address { address: "of RabbitMQ".into(), reason: reason.into() })
}
