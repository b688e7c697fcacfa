//! Properties and headers on the network, and the way from an envelope to them and back. A header with its
//! default value is not sent. See `docs/wire.md`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use crate::broker::Origin;
use crate::message::{
    ContentEncoding, Envelope, Headers, Key, Kind, MediaType, MessageId, Name, ReplyTo, Status, Value, shared,
};

/// The most bytes of properties and headers that are sent; a frame of RabbitMQ's default size has 128 KiB.
pub const MAX_PROPERTIES_BYTES: usize = 96 * 1024;

/// The longest time that the broker takes as an expiration; with a longer one it closes the channel.
pub(crate) const MAX_EXPIRATION: Duration = Duration::from_millis(u32::MAX as u64);

const PREFIX: &str = "postrider-";
/// Written where the exchange does not tell the kind: on everything that goes straight to a queue.
pub(crate) const KIND: &str = "postrider-kind";
/// The expiration of a message that was moved: it counts again only where the message is published again.
pub(crate) const ORIGINAL_EXPIRATION: &str = "postrider-original-expiration";
/// The type of a message that was moved: there the key is in its place.
pub(crate) const ORIGINAL_TYPE: &str = "postrider-original-type";
/// The queue to which a delayed attempt comes back.
pub(crate) const HOME: &str = "postrider-home";
/// The sending instance. An adapter knows it by name, because so many messages have the same.
pub(crate) const INSTANCE: &str = "postrider-instance";
/// Names the headers that were left out because they did not fit into a frame.
pub(crate) const CUT_HEADERS: &str = "postrider-cut-headers";
/// Says why the headers of a message could not be read. Such a message is a dead letter.
pub(crate) const UNREADABLE: &str = "postrider-unreadable";
pub(crate) const CAUSATION_ID: &str = "postrider-causation-id";
pub(crate) const CONVERSATION_ID: &str = "postrider-conversation-id";
pub(crate) const ATTEMPT: &str = "postrider-attempt";
/// The dead letter that a message was before somebody sent it back: it is in another life then.
pub(crate) const REPLAYED: &str = "postrider-replayed";
const TIMEOUT: &str = "postrider-timeout";
const SKIP: &str = "postrider-skip";
const RECIPIENTS: &str = "postrider-recipients";
const SCHEMA_VERSION: &str = "postrider-schema-version";
const CALL_PATH: &str = "postrider-call-path";
const STATUS: &str = "postrider-status";

/// The properties of AMQP 0-9-1 that we use, and the headers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Properties {
    /// The media type of the payload.
    pub content_type: Option<Cow<'static, str>>,
    /// How the payload was compressed; some write the encoding of its characters there.
    pub content_encoding: Option<Arc<str>>,
    /// The message's own id.
    pub message_id: Option<Arc<str>>,
    /// For a reply: the id of the request.
    pub correlation_id: Option<Arc<str>>,
    /// The queue for the answer.
    pub reply_to: Option<Arc<str>>,
    /// The key.
    pub message_type: Option<Arc<str>>,
    /// The sending service.
    pub app_id: Option<Arc<str>>,
    /// Seconds since 1970.
    pub timestamp: Option<u64>,
    /// Milliseconds that the message may wait in a queue, as text.
    pub expiration: Option<Arc<str>>,
    /// Whether the message survives a restart of the broker, in a queue that does.
    pub persistent: bool,
    /// 0 to 255.
    pub priority: Option<u8>,
    /// Whatever a foreign client uses it for.
    pub cluster_id: Option<Arc<str>>,
    /// The broker user that sent it, as a foreign client may set.
    pub user_id: Option<Arc<str>>,
    /// Headers.
    pub headers: Headers,
}

impl Properties {
    /// The id that a reply to this message will name.
    pub(crate) fn reply_id(&self) -> Option<&Arc<str>> {
        self.correlation_id.as_ref().or(self.message_id.as_ref())
    }

    /// About how many bytes they take on the network.
    #[must_use]
    pub fn size(&self) -> usize {
        let content_type = self.content_type.as_deref();
        let texts = [
            &self.message_id,
            &self.correlation_id,
            &self.reply_to,
            &self.message_type,
            &self.app_id,
            &self.expiration,
            &self.user_id,
            &self.content_encoding,
            &self.cluster_id,
        ];
        let texts = texts.into_iter().flatten().map(|text| &**text).chain(content_type);
        texts.map(|text| 1 + text.len()).sum::<usize>() + 12 + self.headers.size()
    }
}

/// The properties for an envelope. `reply_to` of a caller that waits is left to the adapter.
#[must_use]
pub fn seal(envelope: &Envelope) -> Properties {
    seal_owned(Box::new(envelope.clone())).0
}

/// [`seal`] for an envelope that is not needed any more, and its payload.
pub(crate) fn seal_owned(envelope: Box<Envelope>) -> (Properties, Bytes) {
    let envelope = *envelope;
    let mut headers = envelope.headers;
    let entries = headers.edit();
    let mut set = |name: &'static str, value: Option<Value>| {
        if let Some(value) = value {
            entries.put(name, value);
        }
    };
    let name = |name: Option<Name>| name.map(|name| Value::Text(name.into_shared()));
    let id = |id: Option<MessageId>| id.map(|id| Value::Text(id.into_shared()));
    set(ATTEMPT, (envelope.attempt > 1).then(|| i64::from(envelope.attempt).into()));
    set(CALL_PATH, list(envelope.call_path.iter().map(String::as_str)));
    set(CAUSATION_ID, id(envelope.causation_id));
    // The first message of a conversation is known by its id.
    set(CONVERSATION_ID, id(envelope.conversation_id.filter(|conversation| *conversation != envelope.id)));
    set(INSTANCE, name(envelope.instance));
    set(RECIPIENTS, list(envelope.recipients.iter().map(Name::as_str)));
    set(SCHEMA_VERSION, (envelope.schema_version > 0).then(|| i64::from(envelope.schema_version).into()));
    set(SKIP, name(envelope.skip));
    set(STATUS, envelope.status.filter(|status| *status == Status::Error).map(|_| "error".into()));
    set(TIMEOUT, envelope.timeout.map(|timeout| millis(timeout).into()));
    // A reply goes straight to a queue, where the type is the key.
    let message_type = envelope.message_type.filter(|_| envelope.kind != Kind::Reply);
    let properties = Properties {
        content_type: Some(envelope.media_type.into_shared()),
        content_encoding: envelope.content_encoding.map(|encoding| encoding.as_str().into()),
        message_id: Some(envelope.id.into_shared()),
        correlation_id: envelope.correlation_id.map(MessageId::into_shared),
        reply_to: match envelope.reply_to {
            Some(ReplyTo::Queue(queue)) => Some(queue),
            Some(ReplyTo::Caller) | None => None,
        },
        message_type: Some(message_type.unwrap_or_else(|| envelope.key.into_shared())),
        app_id: envelope.source.map(Name::into_shared),
        timestamp: envelope.sent_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map(|since| since.as_secs()),
        expiration: envelope.expiration.map(|expiration| millis(expiration).to_string().into()),
        persistent: !envelope.transient,
        priority: envelope.priority,
        cluster_id: envelope.cluster_id,
        user_id: None,
        headers,
    };
    (properties, envelope.payload)
}

/// Whether the properties for an envelope fit into a frame; an error with their size. They are only put together when a
/// guess, which is never too low, does not tell.
pub(crate) fn check_size(envelope: &Envelope) -> Result<(), usize> {
    let texts = [envelope.key.as_str(), envelope.id.as_str(), envelope.media_type.as_str()];
    let ids = [&envelope.correlation_id, &envelope.causation_id, &envelope.conversation_id];
    let names = [&envelope.source, &envelope.instance, &envelope.skip, &envelope.target];
    let reply_to = if let Some(ReplyTo::Queue(queue)) = &envelope.reply_to { queue.len() } else { 0 };
    let foreign = [&envelope.message_type, &envelope.cluster_id];
    let encoding = envelope.content_encoding.as_ref().map_or(0, |encoding| encoding.as_str().len());
    let foreign = foreign.into_iter().flatten().map(|text| text.len()).sum::<usize>() + encoding;
    let short = texts.iter().map(|text| text.len()).sum::<usize>()
        + ids.into_iter().flatten().map(|id| id.as_str().len()).sum::<usize>()
        + names.into_iter().flatten().map(|name| name.as_str().len()).sum::<usize>()
        + reply_to
        + foreign;
    let lists = envelope.recipients.iter().map(|name| 5 + name.as_str().len()).sum::<usize>()
        + envelope.call_path.iter().map(|waiter| 5 + waiter.len()).sum::<usize>();
    if FIXED + short + lists + envelope.headers.size() <= MAX_PROPERTIES_BYTES {
        return Ok(());
    }
    let bytes = seal(envelope).size();
    if bytes <= MAX_PROPERTIES_BYTES { Ok(()) } else { Err(bytes) }
}

/// More than what the names of our headers, numbers and lengths take.
const FIXED: usize = 512;

/// The envelope in what arrived. Nothing but the routing key and, for a payload that is not bytes, the content
/// type is required; what a foreign sender leaves out gets its default, and a header of ours with a value that
/// makes no sense counts as left out.
#[must_use]
pub fn open(origin: &Origin, properties: &Properties, payload: Bytes) -> Envelope {
    let headers = &properties.headers;
    let told = || headers.text(KIND).and_then(Kind::from_word);
    let kind = match origin {
        Origin::Key { kind, .. } => *kind,
        Origin::Queue(_) => told().unwrap_or(Kind::Reply),
        Origin::Delay(_) | Origin::Foreign(_) => told().unwrap_or(Kind::Event),
    };
    // What did not come straight from its sender was routed by something else than its key.
    let moved = origin.is_moved();
    let (target, key) = address(kind, origin, properties.message_type.as_ref().filter(|_| moved), moved);
    let media_type = properties.content_type.as_deref().map_or(MediaType::BYTES, MediaType::from_wire);
    // An empty id would make one message of all that have none.
    let id = properties.message_id.clone().filter(|id| !id.is_empty()).map_or_else(MessageId::new, MessageId::from);
    let mut envelope = Envelope::with_id(kind, key, id, media_type, payload);
    envelope.content_encoding = properties.content_encoding.as_ref().and_then(ContentEncoding::from_wire);
    envelope.cluster_id = properties.cluster_id.clone();
    envelope.message_type = if moved {
        headers.get(ORIGINAL_TYPE).and_then(Value::shared_text)
    } else {
        properties.message_type.clone().filter(|given| **given != *envelope.key.as_str())
    };
    envelope.correlation_id = properties.correlation_id.clone().map(MessageId::from);
    envelope.reply_to = properties.reply_to.clone().filter(|queue| !queue.is_empty()).map(ReplyTo::Queue);
    envelope.source = properties.app_id.clone().map(Name::from_wire);
    envelope.target = target;
    envelope.sent_at =
        properties.timestamp.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
    envelope.expiration =
        properties.expiration.as_deref().and_then(|text| text.parse().ok()).map(Duration::from_millis);
    envelope.transient = !properties.persistent;
    envelope.priority = properties.priority;
    envelope.status = (kind == Kind::Reply).then_some(Status::Ok);
    let ours = |name: &str| name.starts_with(PREFIX);
    let known = headers.iter().filter(|(name, _)| ours(name)).fold(true, |known, (name, value)| {
        // All of them are read.
        read(&mut envelope, name, value) && known
    });
    // One that is not in the envelope, because we are older than its sender, is still a header of it.
    let seen = if known {
        headers.hiding(PREFIX)
    } else {
        headers.only(|name, value| !(ours(name) && read(&mut envelope, name, value)))
    };
    envelope.headers = seen;
    envelope.conversation_id.get_or_insert_with(|| envelope.id.clone());
    envelope
}

/// Reads a header that becomes a field of the envelope. Whether it is one.
fn read(envelope: &mut Envelope, name: &str, value: &Value) -> bool {
    let shared = || value.shared_text();
    let number = || value.as_integer().and_then(|number| u32::try_from(number).ok());
    match name {
        KIND => {}
        INSTANCE => envelope.instance = shared().map(Name::from_wire),
        CAUSATION_ID => envelope.causation_id = shared().map(MessageId::from),
        CONVERSATION_ID => envelope.conversation_id = shared().map(MessageId::from),
        ATTEMPT => envelope.attempt = number().unwrap_or(1).max(1),
        TIMEOUT => {
            let millis = value.as_integer().and_then(|millis| u64::try_from(millis).ok());
            envelope.timeout = millis.map(Duration::from_millis);
        }
        SKIP => envelope.skip = shared().map(Name::from_wire),
        RECIPIENTS => envelope.recipients = texts(value).map(Name::from_wire).collect(),
        SCHEMA_VERSION => envelope.schema_version = number().unwrap_or(0),
        CALL_PATH => envelope.call_path = texts(value).map(str::to_owned).collect(),
        STATUS => {
            let error = value.as_text() == Some("error");
            envelope.status = envelope.status.map(|status| if error { Status::Error } else { status });
        }
        _ => return false,
    }
    true
}

/// Headers that a broker or a foreign sender wrote for one delivery only.
const STRIPPED: [&str; 6] = ["x-death", "x-delivery-count", "x-acquired-count", "CC", "BCC", "x-opt-delivery-count"];
const STRIPPED_PREFIXES: [&str; 2] = ["x-first-death-", "x-last-death-"];

/// Whether a header is one of those that a broker writes for one delivery only.
pub(crate) fn is_of_one_delivery(name: &str) -> bool {
    STRIPPED.contains(&name) || STRIPPED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Takes out what would confuse the next delivery.
pub(crate) fn strip(headers: &mut Headers) {
    headers.retain(|name| !is_of_one_delivery(name));
}

/// Whether a header's name is one that only Postrider writes.
#[must_use]
pub fn is_reserved_header(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// `invoice:ping` is `ping` for the service `invoice`. What was moved (a reply, a retry, a replay, a delay) was routed by
/// its queue's name and has its key in `type`.
fn address(kind: Kind, origin: &Origin, message_type: Option<&Arc<str>>, moved: bool) -> (Option<Name>, Key) {
    let routed_by = message_type.unwrap_or(origin.name());
    let whole = || Key::from_wire(Arc::clone(routed_by));
    if moved && kind == Kind::Reply {
        return (None, whole());
    }
    match routed_by.split_once(':') {
        Some((service, key)) if kind != Kind::Event => {
            (Some(Name::from_wire(shared(service))), Key::from_wire(shared(key)))
        }
        _ => (None, whole()),
    }
}

fn list<'a>(texts: impl Iterator<Item = &'a str>) -> Option<Value> {
    let values: Vec<Value> = texts.map(Value::from).collect();
    (!values.is_empty()).then_some(Value::List(values))
}

/// The texts of a list. A text alone is a list of one.
fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let values = if let Value::List(values) = value { values } else { std::slice::from_ref(value) };
    values.iter().filter_map(Value::as_text)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod property_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_not_sent() {
        let envelope = Envelope::new(Kind::Command, Key::from_wire("a.b"), MediaType::JSON, Bytes::new());
        assert!(seal(&envelope).headers.is_empty(), "{:?}", seal(&envelope).headers);
    }

    #[test]
    fn headers_of_ours_with_a_value_that_makes_no_sense_count_as_left_out() {
        let origin = Origin::Key { kind: Kind::Command, key: "invoice.create".into() };
        let opened = |name: &str, value: Value| {
            let headers = [(name, value)].into_iter().collect();
            open(&origin, &Properties { headers, ..Properties::default() }, Bytes::new())
        };
        let service = |name: &str| vec![Name::from_wire(name)];
        assert_eq!(opened(RECIPIENTS, "invoice".into()).recipients, service("invoice"), "one alone may be a text");
        assert_eq!(
            opened(RECIPIENTS, vec![Value::from("invoice"), 7_i32.into()].into()).recipients,
            service("invoice")
        );
        assert_eq!((opened(RECIPIENTS, 7_i32.into()).recipients, opened(SKIP, true.into()).skip), (Vec::new(), None));
        assert_eq!((opened(TIMEOUT, (-5_i64).into()).timeout, opened(TIMEOUT, "5".into()).timeout), (None, None));
        assert_eq!(opened(TIMEOUT, i64::MAX.into()).timeout, Some(Duration::from_millis(i64::MAX as u64)));
        assert_eq!(
            (opened(ATTEMPT, (-1_i64).into()).attempt, opened(SCHEMA_VERSION, (-1_i64).into()).schema_version),
            (1, 0)
        );
        assert_eq!(opened(KIND, "event".into()).kind, Kind::Command, "the exchange knows it better");
        for seconds in [0, u64::MAX] {
            let properties = Properties { timestamp: Some(seconds), priority: Some(255), ..Properties::default() };
            let envelope = open(&origin, &properties, Bytes::new());
            assert_eq!((envelope.sent_at.is_some(), envelope.priority), (seconds == 0, Some(255)));
        }
    }

    #[test]
    fn a_foreign_message_needs_only_routing_key_and_content_type() {
        let origin = Origin::Key { kind: Kind::Command, key: "invoice.create".into() };
        let properties = Properties { content_type: Some("application/json".into()), ..Properties::default() };
        let envelope = open(&origin, &properties, Bytes::from_static(b"{}"));
        assert_eq!((envelope.kind, envelope.key.as_str(), envelope.attempt), (Kind::Command, "invoice.create", 1));
        assert!(!envelope.id.as_str().is_empty());
    }
}
