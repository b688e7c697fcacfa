//! Puts one message into its queues, or hands it to the caller that waits for it.

use crate::adapter::amqp::Routed;
use crate::adapter::in_process::connection::Connection;
use crate::adapter::in_process::replies::{is_reply, reply};
use crate::broker::{BrokerError, Publication};

/// Takes a message at once: to the caller that waits for it, or into its queues.
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
            // The same again is taken as the first was.
            let _ = state.publish(message.clone());
        }
        state.publish(message)
    };
    connection.inner.changed();
    publication
}
