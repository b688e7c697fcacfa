//! A message from a client that does not use Postrider, for tests.

use std::sync::Arc;

use bytes::Bytes;

use crate::adapter::amqp::Origin;
use crate::adapter::amqp::fields::{Fields, Reading};
use crate::broker::headers::KIND;
use crate::broker::{Addressed, To};
use crate::message::{Envelope, Headers};

/// The properties of a message from a client that does not use Postrider. A property that is not set is not sent. The names are
/// those of AMQP 0-9-1.
///
/// ```
/// use postrider::broker::To;
/// use postrider::testing::ForeignMessage;
/// use postrider::{Bytes, Kind};
///
/// let foreign = ForeignMessage { content_type: Some("application/json".into()), ..ForeignMessage::default() };
/// let message = foreign.addressed(To::key(Kind::Command, &"invoice.create".into()), Bytes::from_static(b"{}"));
/// assert_eq!(message.envelope.key.as_str(), "invoice.create");
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ForeignMessage {
    /// The media type of the payload.
    pub content_type: Option<Arc<str>>,
    /// The compression of the payload.
    pub content_encoding: Option<Arc<str>>,
    /// The message's own id.
    pub message_id: Option<Arc<str>>,
    /// For a reply: the id of the request.
    pub correlation_id: Option<Arc<str>>,
    /// The queue for the reply.
    pub reply_to: Option<Arc<str>>,
    /// The key, if the message goes straight to a queue; else whatever the client uses it for.
    pub message_type: Option<Arc<str>>,
    /// The sending service.
    pub app_id: Option<Arc<str>>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    /// How many milliseconds the message may wait in a queue, as text.
    pub expiration: Option<Arc<str>>,
    /// Whether the message survives a broker restart, if its queue does.
    pub persistent: bool,
    /// 0 to 255.
    pub priority: Option<u8>,
    /// Whatever the client uses it for.
    pub cluster_id: Option<Arc<str>>,
    /// The broker user that sent the message.
    pub user_id: Option<Arc<str>>,
    /// The headers, including Postrider's.
    pub headers: Headers,
}

impl ForeignMessage {
    /// The message, addressed. The broker returns it if no queue takes it.
    #[must_use]
    pub fn addressed(&self, to: To, payload: impl Into<Bytes>) -> Addressed {
        let envelope = self.envelope(&to, payload.into());
        Addressed { to, ..Addressed::to_queue("", envelope) }
    }

    /// The message as its receiver reads it.
    #[must_use]
    pub fn envelope(&self, to: &To, payload: Bytes) -> Envelope {
        self.received(&Origin::from(to), payload)
    }

    pub(crate) fn received(&self, origin: &Origin, payload: Bytes) -> Envelope {
        let mut reading = Reading::begin(origin, &self.fields(), self.headers.text(KIND), payload);
        for (name, value) in self.headers.iter() {
            reading.header(name.to_owned(), value.clone());
        }
        reading.end()
    }

    fn fields(&self) -> Fields<'_> {
        Fields {
            content_type: self.content_type.as_deref(),
            content_encoding: self.content_encoding.as_deref(),
            message_id: self.message_id.as_deref(),
            correlation_id: self.correlation_id.as_deref(),
            reply_to: self.reply_to.as_deref(),
            message_type: self.message_type.as_deref().map(Into::into),
            app_id: self.app_id.as_deref(),
            timestamp: self.timestamp,
            expiration: self.expiration.as_deref().map(Into::into),
            persistent: self.persistent,
            priority: self.priority,
            cluster_id: self.cluster_id.as_deref(),
            user_id: self.user_id.as_deref(),
        }
    }
}
