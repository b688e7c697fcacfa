//! Writes an envelope as AMQP 0-9-1 properties and headers, and reads one from them. Only the routing key is required, and the
//! content type if the payload is not bytes; a field that a foreign sender leaves out gets its default. See `docs/wire.md`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::adapter::amqp::Origin;
use crate::adapter::amqp::origin::split;
use crate::broker::MAX_TEXT_BYTES;
use crate::broker::headers::{HeaderValue, KIND, is_of_earlier_attempts, millis, read_header, write_headers};
use crate::message::{
    ContentEncoding, Envelope, Foreign, Key, Kind, MediaType, MessageId, Name, ReplyTo, Status, Value, shared,
};

/// Header for the message type of a moved message, because its `type` property holds the key.
const ORIGINAL_TYPE: &str = "postrider-original-type";

/// The properties of a message as sent over the network. Headers are passed separately, one by one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Fields<'a> {
    pub(crate) content_type: Option<&'a str>,
    pub(crate) content_encoding: Option<&'a str>,
    pub(crate) message_id: Option<&'a str>,
    pub(crate) correlation_id: Option<&'a str>,
    pub(crate) reply_to: Option<&'a str>,
    pub(crate) message_type: Option<Cow<'a, str>>,
    pub(crate) app_id: Option<&'a str>,
    /// Seconds since 1970.
    pub(crate) timestamp: Option<u64>,
    /// Milliseconds.
    pub(crate) expiration: Option<Cow<'a, str>>,
    pub(crate) persistent: bool,
    pub(crate) priority: Option<u8>,
    pub(crate) cluster_id: Option<&'a str>,
    pub(crate) user_id: Option<&'a str>,
}

/// The properties of an envelope. The adapter adds the reply address of a waiting caller itself. Set `tells_address` if exchange and
/// routing key tell neither kind nor key: the message goes straight to a queue or into a delay.
pub(crate) fn write(envelope: &Envelope, tells_address: bool) -> Fields<'_> {
    let foreign = envelope.foreign.as_deref();
    let left_out = |is_left_out: fn(&Foreign) -> bool| foreign.is_some_and(is_left_out);
    let key = envelope.key.as_str();
    let message_type = match &envelope.target {
        Some(service) if tells_address && envelope.kind != Kind::Reply => Cow::Owned(format!("{service}:{key}")),
        _ if tells_address => Cow::Borrowed(key),
        _ => Cow::Borrowed(envelope.message_type.as_deref().unwrap_or(key)),
    };
    let seconds = envelope.sent_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs());
    let expiration = || envelope.expiration.map(|expiration| Cow::Owned(millis(expiration).to_string()));
    Fields {
        content_type: Some(envelope.media_type.as_str()).filter(|_| !left_out(|foreign| foreign.no_media_type)),
        content_encoding: envelope.content_encoding.as_ref().map(ContentEncoding::as_str),
        message_id: Some(envelope.id.as_str()).filter(|_| !left_out(|foreign| foreign.no_id)),
        correlation_id: envelope.correlation_id.as_ref().map(MessageId::as_str),
        reply_to: if let Some(ReplyTo::Queue(queue)) = &envelope.reply_to { Some(queue) } else { None },
        message_type: Some(message_type)
            .filter(|text| !text.is_empty())
            .filter(|_| !tells_address || !left_out(|foreign| foreign.no_type)),
        app_id: envelope.source.as_ref().map(Name::as_str),
        timestamp: seconds.or_else(|| foreign?.timestamp),
        expiration: foreign.and_then(|foreign| foreign.expiration.as_deref()).map(Cow::Borrowed).or_else(expiration),
        persistent: !envelope.transient,
        priority: envelope.priority,
        cluster_id: envelope.cluster_id.as_deref(),
        user_id: foreign.and_then(|foreign| foreign.user_id.as_deref()),
    }
}

/// Passes each header of an envelope to `put`. If two have the same name, the later one counts.
pub(crate) fn write_all_headers<'a>(
    envelope: &'a Envelope,
    tells_address: bool,
    mut put: impl FnMut(&'a str, HeaderValue<'a>),
) {
    write_headers(envelope, &mut put);
    let said_none = envelope.foreign.as_ref().is_some_and(|foreign| foreign.no_kind);
    // A message that arrives straight in a queue without this header is read as a reply. A moved message carries its kind here.
    if tells_address && !said_none && envelope.kind != Kind::Reply {
        put(KIND, HeaderValue::Text(envelope.kind.as_str()));
    }
    if let Some(given) = envelope.message_type.as_deref().filter(|_| tells_address) {
        put(ORIGINAL_TYPE, HeaderValue::Text(given));
    }
}

impl Origin {
    /// Whether the message was routed by a queue's name or came out of a delay. Its key is then in its properties.
    pub(crate) fn is_moved(&self) -> bool {
        matches!(self, Self::Queue(_) | Self::Delay(_))
    }
}

/// An envelope that is being read. Its properties are set; headers are added one by one.
pub(crate) struct Reading<'o> {
    origin: &'o Origin,
    envelope: Envelope,
}

impl<'o> Reading<'o> {
    /// Starts with the properties. `told_kind` is the value of the kind header, if present.
    pub(crate) fn begin(origin: &'o Origin, fields: &Fields<'_>, told_kind: Option<&str>, payload: Bytes) -> Self {
        let told = told_kind.and_then(Kind::from_word);
        let kind = match origin {
            Origin::Key { kind, .. } => *kind,
            Origin::Queue(_) => told.unwrap_or(Kind::Reply),
            Origin::Delay(_) | Origin::Foreign(_) => told.unwrap_or(Kind::Event),
        };
        // Moved messages were routed by queue name; their key is in `type`.
        let moved = origin.is_moved();
        let message_type = fields.message_type.as_deref().filter(|text| !text.is_empty()).map(shared);
        let (target, key) = address(kind, origin, message_type.as_ref().filter(|_| moved), moved);
        // An empty id counts as none. Otherwise all such messages would share one id.
        let id = fields.message_id.filter(|id| !id.is_empty()).map(MessageId::from);
        let mut foreign = Foreign {
            no_id: id.is_none(),
            no_media_type: fields.content_type.is_none(),
            no_type: moved && message_type.is_none(),
            no_kind: matches!(origin, Origin::Delay(_)) && told.is_none(),
            user_id: fields.user_id.map(shared),
            ..Foreign::default()
        };
        let media_type = fields.content_type.map_or(MediaType::BYTES, MediaType::from_wire);
        let mut envelope = Envelope::with_id(kind, key, id.unwrap_or_default(), media_type, payload);
        envelope.content_encoding =
            fields.content_encoding.and_then(|encoding| ContentEncoding::from_wire(&shared(encoding)));
        envelope.cluster_id = fields.cluster_id.map(shared);
        envelope.message_type = message_type.filter(|given| !moved && **given != *envelope.key.as_str());
        envelope.correlation_id = fields.correlation_id.map(MessageId::from);
        envelope.reply_to = fields.reply_to.filter(|queue| !queue.is_empty()).map(shared).map(ReplyTo::Queue);
        envelope.source = fields.app_id.map(shared).map(Name::from_wire);
        envelope.target = target;
        if let Some(seconds) = fields.timestamp {
            envelope.sent_at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
            foreign.timestamp = Some(seconds).filter(|_| envelope.sent_at.is_none());
        }
        if let Some(text) = fields.expiration.as_deref() {
            envelope.expiration = text.parse().ok().map(Duration::from_millis);
            let as_ours = envelope.expiration.map(|expiration| millis(expiration).to_string());
            foreign.expiration = (as_ours.as_deref() != Some(text)).then(|| text.into());
        }
        envelope.transient = !fields.persistent;
        envelope.priority = fields.priority;
        envelope.status = (kind == Kind::Reply).then_some(Status::Ok);
        envelope.foreign = (foreign != Foreign::default()).then(|| Box::new(foreign));
        Self { origin, envelope }
    }

    /// One more header.
    pub(crate) fn header(&mut self, name: impl Into<Cow<'static, str>> + AsRef<str>, value: Value) {
        let text = name.as_ref();
        let moved = self.origin.is_moved();
        if text == KIND || !moved && is_of_earlier_attempts(text) {
            // The kind is already set. A message straight from its sender has had no attempt yet, whatever its headers claim.
            return;
        }
        if moved && text == ORIGINAL_TYPE && value.as_text().is_some_and(|given| given.len() <= MAX_TEXT_BYTES) {
            self.envelope.message_type = value.shared_text();
        } else if let Some(value) = read_header(&mut self.envelope, text, value) {
            self.envelope.headers.put(name, value);
        }
    }

    /// The complete envelope.
    pub(crate) fn end(mut self) -> Envelope {
        self.envelope.conversation_id.get_or_insert_with(|| self.envelope.id.clone());
        self.envelope
    }
}

/// The target service and the key: `invoice:ping` is `ping` for the service `invoice`. A moved message (a reply, a retry, a
/// replay, a delayed message) was routed by its queue's name and has its key in `type`.
fn address(kind: Kind, origin: &Origin, message_type: Option<&Arc<str>>, moved: bool) -> (Option<Name>, Key) {
    let routed_by = message_type.unwrap_or(origin.name());
    if moved && kind == Kind::Reply {
        return (None, Key::from_wire(Arc::clone(routed_by)));
    }
    split(kind, routed_by)
}
