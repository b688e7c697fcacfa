//! Explains why no queue takes a message: asks the broker whether the key belongs to a query.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::broker::{Addressed, Publication, Publisher, To};
use crate::bus::SendError;
use crate::message::{Envelope, Key, Kind, MediaType, Name};

/// A name that no service can have. A service that receives a message for it drops the message unread.
pub(crate) const NOBODY: &str = "tap";
/// How long the broker may take to say whether a query has an owner.
const OWNER_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns the same error, or a better one: a key that no queue takes for a command or channel message may belong to a query.
pub(super) async fn explained(error: SendError, publisher: &dyn Publisher, deadline: Instant) -> SendError {
    let (kind, key) = match &error {
        SendError::Unroutable { kind: kind @ (Kind::Command | Kind::Channel), key, .. } => (*kind, key),
        _ => return error,
    };
    let asked = publisher.publish(question(key), deadline.min(Instant::now() + OWNER_TIMEOUT)).await;
    // Only a confirm proves that a queue takes the query. Anything else keeps the first error.
    if !matches!(asked, Ok(Publication::Confirmed)) {
        return error;
    }
    let reason = format!(
        "{key:?} is a query and was sent as a {kind}, which nobody takes; ask it with `request`, or with `request_key` by its key"
    );
    SendError::WrongKind { reason }
}

/// A query for nobody, with no payload, that expires at once. The broker returns it if no service owns the key.
fn question(key: &str) -> Addressed {
    let plain = key.split_once(':').map_or(key, |(_, key)| key);
    let mut envelope = Envelope::new(Kind::Query, Key::from_wire(plain), MediaType::BYTES, Bytes::new());
    envelope.recipients = vec![Name::from_wire(NOBODY)];
    envelope.expiration = Some(Duration::ZERO);
    envelope.transient = true;
    Addressed {
        to: To::key(Kind::Query, &key.into()),
        delay: None,
        mandatory: true,
        bare: false,
        envelope: Arc::new(envelope),
    }
}
