//! Whether a queue is being migrated: then some of its messages are in a temporary queue.

use crate::broker::{Broker, BrokerError};

/// The name of the temporary queue.
#[must_use]
pub(crate) fn temporary(queue: &str) -> String {
    format!("{queue}.migrating")
}

/// Whether a migration of the queue was begun and not finished.
pub(crate) async fn is_migrating(broker: &dyn Broker, queue: &str) -> Result<bool, BrokerError> {
    Ok(broker.inspect(&temporary(queue)).await?.is_some())
}
