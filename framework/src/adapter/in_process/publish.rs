//! Puts one message into its queues, or hands a reply to the publisher that waits for it.

use crate::adapter::amqp::Routed;
use crate::adapter::in_process::connection::Connection;
use crate::adapter::in_process::replies::{is_reply, reply};
use crate::broker::{BrokerError, Publication};

/// Publishes a message at once. `is_duplicated` puts it into its queues twice.
pub(super) fn publish(
    connection: &Connection,
    message: Routed,
    is_duplicated: bool,
) -> Result<Publication, BrokerError> {
    connection.open()?;
    connection.inner.published(&message);
    let publication = if is_reply(&message) {
        Ok(reply(message))
    } else {
        let mut state = connection.inner.lock();
        if is_duplicated {
            // Only the outcome of the second copy is reported.
            let _ = state.publish(message.clone());
        }
        state.publish(message)
    };
    connection.inner.changed();
    publication
}
