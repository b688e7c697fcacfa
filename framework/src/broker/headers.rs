//! The headers of ours: fields of an envelope that are headers on the wire of every broker which has headers. One with its default
//! value is not sent. See `docs/wire.md`.

use std::time::Duration;

use crate::message::{Envelope, Headers, MessageId, Name, ReplyTo, Status, Value};

/// The most bytes of properties and headers that are sent; a frame of RabbitMQ's default size has 128 KiB.
pub const MAX_PROPERTIES_BYTES: usize = 96 * 1024;

/// The most bytes of an id, a key, a media type, or the name of a header, a queue or a service: what an AMQP short text holds.
pub const MAX_TEXT_BYTES: usize = u8::MAX as usize;

/// The longest time that RabbitMQ takes as an expiration; with a longer one it closes the channel.
pub(crate) const MAX_EXPIRATION: Duration = Duration::from_millis(u32::MAX as u64);

const PREFIX: &str = "postrider-";
/// Written where the way of a message does not tell its kind: on everything that goes straight to a queue.
pub(crate) const KIND: &str = "postrider-kind";
/// The expiration of a message that was moved: it counts again only where the message is published again.
pub(crate) const ORIGINAL_EXPIRATION: &str = "postrider-original-expiration";
/// The queue to which a delayed attempt comes back.
pub(crate) const HOME: &str = "postrider-home";
/// The sending instance. Adapters share it between messages, because many have the same.
pub(crate) const INSTANCE: &str = "postrider-instance";
/// Names the headers that were left out because they did not fit into a frame.
pub(crate) const CUT_HEADERS: &str = "postrider-cut-headers";
/// Says why the headers of a message could not be read. Such a message is a dead letter.
pub(crate) const UNREADABLE: &str = "postrider-unreadable";
pub(crate) const CAUSATION_ID: &str = "postrider-causation-id";
pub(crate) const CONVERSATION_ID: &str = "postrider-conversation-id";
pub(crate) const ATTEMPT: &str = "postrider-attempt";
/// Why the first attempt failed, from the first delayed one on.
pub(crate) const FIRST_ERROR: &str = "postrider-first-error";
/// When a build without a handler for its key first met a message, in seconds since 1970.
pub(crate) const SKEWED_SINCE: &str = "postrider-skewed-since";
/// The dead letter that a message was before somebody sent it back: it is in another life then.
pub(crate) const REPLAYED: &str = "postrider-replayed";
/// In front of everything that says why a message is a dead letter.
pub(crate) const DEAD: &str = "postrider-dead-";
const TIMEOUT: &str = "postrider-timeout";
const SKIP: &str = "postrider-skip";
const RECIPIENTS: &str = "postrider-recipients";
const SCHEMA_VERSION: &str = "postrider-schema-version";
const CALL_PATH: &str = "postrider-call-path";
const STATUS: &str = "postrider-status";

/// A header's value, as an adapter writes it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum HeaderValue<'a> {
    /// One of the sender's own.
    Given(&'a Value),
    /// A number.
    Number(i64),
    /// A text.
    Text(&'a str),
    /// A list of names.
    Names(&'a [Name]),
    /// A list of texts.
    Texts(&'a [String]),
}

impl HeaderValue<'_> {
    /// The value itself.
    #[must_use]
    pub fn to_value(self) -> Value {
        match self {
            Self::Given(value) => value.clone(),
            Self::Number(number) => number.into(),
            Self::Text(text) => text.into(),
            Self::Names(names) => Value::List(names.iter().map(|name| Value::Text(name.shared())).collect()),
            Self::Texts(texts) => Value::List(texts.iter().map(|text| text.as_str().into()).collect()),
        }
    }

    /// About how many bytes the value takes on the network.
    pub(crate) fn size(self) -> usize {
        let of_texts = |bytes: usize, count: usize| 5 + bytes + 5 * count;
        match self {
            Self::Given(value) => value.size(),
            Self::Number(_) => 9,
            Self::Text(text) => 5 + text.len(),
            Self::Names(names) => of_texts(names.iter().map(|name| name.as_str().len()).sum(), names.len()),
            Self::Texts(texts) => of_texts(texts.iter().map(String::len).sum(), texts.len()),
        }
    }
}

/// All headers with which an envelope travels. Of two with the same name the later one counts.
pub fn write_headers<'a>(envelope: &'a Envelope, mut put: impl FnMut(&'a str, HeaderValue<'a>)) {
    let given = |(name, value): (&'a str, &'a Value)| (name, HeaderValue::Given(value));
    envelope.headers.iter().map(given).for_each(|(name, value)| put(name, value));
    let mut number = |name, number: Option<i64>| {
        if let Some(number) = number {
            put(name, HeaderValue::Number(number));
        }
    };
    number(ATTEMPT, (envelope.attempt > 1).then(|| envelope.attempt.into()));
    number(SCHEMA_VERSION, (envelope.schema_version > 0).then(|| envelope.schema_version.into()));
    number(TIMEOUT, envelope.timeout.map(millis));
    let mut text = |name, text: Option<&'a str>| {
        if let Some(text) = text {
            put(name, HeaderValue::Text(text));
        }
    };
    text(CAUSATION_ID, envelope.causation_id.as_ref().map(MessageId::as_str));
    // The first message of a conversation is known by its id.
    let conversation = envelope.conversation_id.as_ref().filter(|conversation| **conversation != envelope.id);
    text(CONVERSATION_ID, conversation.map(MessageId::as_str));
    text(INSTANCE, envelope.instance.as_ref().map(Name::as_str));
    text(SKIP, envelope.skip.as_ref().map(Name::as_str));
    text(STATUS, (envelope.status == Some(Status::Error)).then_some("error"));
    if !envelope.call_path.is_empty() {
        put(CALL_PATH, HeaderValue::Texts(&envelope.call_path));
    }
    if !envelope.recipients.is_empty() {
        put(RECIPIENTS, HeaderValue::Names(&envelope.recipients));
    }
    if let Some(foreign) = &envelope.foreign {
        foreign.headers.iter().map(given).for_each(|(name, value)| put(name, value));
    }
}

/// Reads a header into its field; gives it back if it has none, for it is one of the sender's own then. A value that makes no sense
/// leaves the default.
pub fn read_header(envelope: &mut Envelope, name: &str, value: Value) -> Option<Value> {
    if !name.starts_with(PREFIX) {
        return Some(value);
    }
    let number = |value: &Value| value.as_integer().and_then(|number| u32::try_from(number).ok());
    // Whether we would write it so.
    let mut is_ours = true;
    match name {
        INSTANCE => envelope.instance = value.shared_text().map(Name::from_wire),
        SKIP => envelope.skip = value.shared_text().map(Name::from_wire),
        CAUSATION_ID => envelope.causation_id = value.shared_text().map(MessageId::from),
        CONVERSATION_ID => envelope.conversation_id = value.shared_text().map(MessageId::from),
        ATTEMPT => {
            envelope.attempt = number(&value).unwrap_or(1).max(1);
            is_ours = value == Value::I64(envelope.attempt.into()) && envelope.attempt > 1;
        }
        SCHEMA_VERSION => {
            envelope.schema_version = number(&value).unwrap_or(0);
            is_ours = value == Value::I64(envelope.schema_version.into()) && envelope.schema_version > 0;
        }
        TIMEOUT => {
            let millis = value.as_integer().and_then(|millis| u64::try_from(millis).ok());
            envelope.timeout = millis.map(Duration::from_millis);
            is_ours = millis.is_some() && matches!(value, Value::I64(_));
        }
        RECIPIENTS => {
            envelope.recipients = texts(&value).map(Name::from_wire).collect();
            is_ours = is_list_of(&value, envelope.recipients.len());
        }
        CALL_PATH => {
            envelope.call_path = texts(&value).map(str::to_owned).collect();
            is_ours = is_list_of(&value, envelope.call_path.len());
        }
        STATUS => {
            let error = value.as_text() == Some("error");
            envelope.status = envelope.status.map(|status| if error { Status::Error } else { status });
            is_ours = envelope.status == Some(Status::Error);
        }
        _ => return Some(value),
    }
    let is_text = matches!(name, INSTANCE | SKIP | CAUSATION_ID | CONVERSATION_ID);
    if !is_ours || is_text && value.as_text().is_none() {
        envelope.foreign.get_or_insert_default().headers.set(name, value);
    }
    None
}

/// Takes a header out, also one that is in a field; but not the status of a reply.
pub(crate) fn remove_header(envelope: &mut Envelope, name: &str) {
    match name {
        INSTANCE => envelope.instance = None,
        SKIP => envelope.skip = None,
        CAUSATION_ID => envelope.causation_id = None,
        CONVERSATION_ID => envelope.conversation_id = None,
        ATTEMPT => envelope.attempt = 1,
        SCHEMA_VERSION => envelope.schema_version = 0,
        TIMEOUT => envelope.timeout = None,
        RECIPIENTS => envelope.recipients.clear(),
        CALL_PATH => envelope.call_path.clear(),
        _ => {}
    }
    envelope.headers.remove(name);
    if let Some(foreign) = &mut envelope.foreign {
        foreign.headers.remove(name);
    }
}

/// About how many bytes properties and headers of an envelope take on the network.
pub(crate) fn size(envelope: &Envelope) -> usize {
    let foreign = envelope.foreign.as_deref();
    let reply_to = if let Some(ReplyTo::Queue(queue)) = &envelope.reply_to { queue.len() } else { 0 };
    let service = envelope.target.as_ref().map_or(0, |service| 1 + service.as_str().len());
    let texts = [
        Some(envelope.media_type.as_str()),
        envelope.content_encoding.as_ref().map(|encoding| encoding.as_str()),
        Some(envelope.id.as_str()),
        envelope.correlation_id.as_ref().map(MessageId::as_str),
        Some(envelope.key.as_str()),
        envelope.message_type.as_deref(),
        envelope.source.as_ref().map(Name::as_str),
        envelope.cluster_id.as_deref(),
        foreign.and_then(|foreign| foreign.user_id.as_deref()),
        foreign.and_then(|foreign| foreign.expiration.as_deref()),
    ];
    let mut bytes = FIXED + reply_to + service + texts.into_iter().flatten().map(str::len).sum::<usize>();
    write_headers(envelope, |name, value| bytes += 1 + name.len() + value.size());
    bytes
}

/// What the names of properties, numbers, an expiration, and what is written of where a message goes take at most.
const FIXED: usize = 128;

/// Whether a header's name is one that only Postrider writes.
#[must_use]
pub fn is_reserved_header(name: &str) -> bool {
    name.starts_with(PREFIX)
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

/// Whether a header tells of attempts that were made before: only a message that is in its queue again has one.
pub(crate) fn is_of_earlier_attempts(header: &str) -> bool {
    matches!(header, ATTEMPT | FIRST_ERROR | SKEWED_SINCE)
}

/// What comes straight from its sender was tried by nobody yet: takes out what says otherwise, and begins a conversation if the message
/// is in none. Adapters do so with what was sent to a key.
pub fn came_from_its_sender(envelope: &mut Envelope) {
    envelope.conversation_id.get_or_insert_with(|| envelope.id.clone());
    envelope.attempt = 1;
    if envelope.headers.iter().any(|(name, _)| is_of_earlier_attempts(name)) {
        envelope.headers.retain(|name| !is_of_earlier_attempts(name));
    }
}

/// Its expiration does not count any more, until it is published again.
pub(crate) fn suspend_expiration(envelope: &mut Envelope) {
    let text = envelope.foreign.as_mut().and_then(|foreign| foreign.expiration.take());
    let expiration = envelope.expiration.take().map(|expiration| millis(expiration).to_string().into());
    if let Some(text) = text.or(expiration) {
        envelope.headers.put(ORIGINAL_EXPIRATION, Value::Text(text));
    }
}

/// The expiration that was suspended counts again, and no other one. A foreign sender may have written anything there, and RabbitMQ closes the channel over what it cannot
/// read.
pub(crate) fn resume_expiration(envelope: &mut Envelope) {
    let suspended = envelope.headers.remove(ORIGINAL_EXPIRATION);
    if let Some(foreign) = &mut envelope.foreign {
        foreign.expiration = None;
    }
    let millis = suspended.and_then(|value| value.as_text().and_then(|text| text.parse::<u32>().ok()));
    envelope.expiration = millis.map(|millis| Duration::from_millis(millis.into()));
}

fn is_list_of(value: &Value, texts: usize) -> bool {
    matches!(value, Value::List(values) if texts > 0 && values.len() == texts)
}

/// The texts of a list. A text alone is a list of one.
fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let values = if let Value::List(values) = value { values } else { std::slice::from_ref(value) };
    values.iter().filter_map(Value::as_text)
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod property_tests;
