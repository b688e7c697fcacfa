//! Our headers: fields of an envelope that every broker with headers carries as such. A field with its default value is
//! not sent. See `docs/wire.md`.

use std::sync::LazyLock;
use std::time::Duration;

use crate::message::{Envelope, Headers, MessageId, Name, ReplyTo, Status, Value};

/// The most bytes of properties and headers that we send. A frame of RabbitMQ's default size has 128 KiB.
pub const MAX_PROPERTIES_BYTES: usize = 96 * 1024;

/// The most bytes of an id, a key, a media type, or the name of a header, a queue or a service: the size of an AMQP
/// short text.
pub const MAX_TEXT_BYTES: usize = u8::MAX as usize;

/// The longest expiration that RabbitMQ accepts; with a longer one it closes the channel.
pub(crate) const MAX_EXPIRATION: Duration = Duration::from_millis(u32::MAX as u64);

const PREFIX: &str = "postrider-";
/// The kind of a message that goes straight to a queue. Elsewhere the route tells the kind.
pub(crate) const KIND: &str = "postrider-kind";
/// The original expiration of a message that was moved. It applies again when the message is published again.
pub(crate) const ORIGINAL_EXPIRATION: &str = "postrider-original-expiration";
/// The queue to which a delayed attempt returns.
pub(crate) const HOME: &str = "postrider-home";
/// The sending instance. Many messages have the same one, so adapters share the value.
pub(crate) const INSTANCE: &str = "postrider-instance";
/// Lists the headers that were removed because they did not fit into a frame.
pub(crate) const CUT_HEADERS: &str = "postrider-cut-headers";
/// Why the headers of a message could not be read, behind [`own_mark`]. Such a message becomes a dead letter.
pub(crate) const UNREADABLE: &str = "postrider-unreadable";
pub(crate) const CAUSATION_ID: &str = "postrider-causation-id";
pub(crate) const CONVERSATION_ID: &str = "postrider-conversation-id";
pub(crate) const ATTEMPT: &str = "postrider-attempt";
/// Why the first attempt failed. Set from the first delayed attempt on.
pub(crate) const FIRST_ERROR: &str = "postrider-first-error";
/// When a build without a handler for the key first received the message, in seconds since 1970.
pub(crate) const SKEWED_SINCE: &str = "postrider-skewed-since";
/// The address of the dead letter that a replayed message was. Its attempts start again.
pub(crate) const REPLAYED: &str = "postrider-replayed";
/// The prefix of the headers that say why a message is a dead letter.
pub(crate) const DEAD: &str = "postrider-dead-";
const TIMEOUT: &str = "postrider-timeout";
const SKIP: &str = "postrider-skip";
const RECIPIENTS: &str = "postrider-recipients";
const SCHEMA_VERSION: &str = "postrider-schema-version";
const CALL_PATH: &str = "postrider-call-path";
const STATUS: &str = "postrider-status";

/// A header's value in the form an adapter writes.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum HeaderValue<'a> {
    /// One of the sender's own values.
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

    /// About how many bytes the value takes on the wire.
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

/// Calls `put` with all headers of an envelope. If a name occurs twice, the later one counts.
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
    // The first message of a conversation has the conversation's id.
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

/// Reads a header into its field. Returns the value if the header has no field and is the sender's own. An invalid
/// value leaves the field at its default.
pub fn read_header(envelope: &mut Envelope, name: &str, value: Value) -> Option<Value> {
    if !name.starts_with(PREFIX) {
        return Some(value);
    }
    let number = |value: &Value| value.as_integer().and_then(|number| u32::try_from(number).ok());
    // Whether we would write the value like this.
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

/// Removes a header, including one that is stored in a field, but not the status of a reply.
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

/// About how many bytes an envelope's properties and headers take on the wire.
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

/// The most bytes of property names, numbers, an expiration and the address.
const FIXED: usize = 128;

/// Whether only Postrider writes headers of this name.
#[must_use]
pub fn is_reserved_header(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Headers that a broker or a foreign sender wrote for one delivery only.
const STRIPPED: [&str; 6] = ["x-death", "x-delivery-count", "x-acquired-count", "CC", "BCC", "x-opt-delivery-count"];
const STRIPPED_PREFIXES: [&str; 2] = ["x-first-death-", "x-last-death-"];

/// Whether a broker writes this header for one delivery only.
pub(crate) fn is_of_one_delivery(name: &str) -> bool {
    STRIPPED.contains(&name) || STRIPPED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Removes headers that would confuse the next delivery.
pub(crate) fn strip(headers: &mut Headers) {
    headers.retain(|name| !is_of_one_delivery(name));
}

/// Whether a header describes earlier attempts. Only a message that returned to its queue has one.
pub(crate) fn is_of_earlier_attempts(header: &str) -> bool {
    matches!(header, ATTEMPT | FIRST_ERROR | SKEWED_SINCE)
}

/// Resets a message that comes straight from its sender: nobody has handled it yet, so headers of earlier attempts are
/// removed. Starts a conversation if the message has none. Adapters call it for messages sent to a key.
pub fn reset_claimed_attempts(envelope: &mut Envelope) {
    envelope.conversation_id.get_or_insert_with(|| envelope.id.clone());
    envelope.attempt = 1;
    if envelope.headers.iter().any(|(name, _)| is_of_earlier_attempts(name)) {
        envelope.headers.retain(|name| !is_of_earlier_attempts(name));
    }
}

/// Saves the expiration, so that it does not apply until the message is published again.
pub(crate) fn suspend_expiration(envelope: &mut Envelope) {
    let text = envelope.foreign.as_mut().and_then(|foreign| foreign.expiration.take());
    let expiration = envelope.expiration.take().map(|expiration| millis(expiration).to_string().into());
    if let Some(text) = text.or(expiration) {
        envelope.headers.put(ORIGINAL_EXPIRATION, Value::Text(text));
    }
}

/// Restores the saved expiration and removes any other. A foreign sender may have written anything into the header, and
/// RabbitMQ closes the channel over an expiration it cannot parse.
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

/// The texts of a list. A single text counts as a list of one.
fn texts(value: &Value) -> impl Iterator<Item = &str> {
    let values = if let Value::List(values) = value { values } else { std::slice::from_ref(value) };
    values.iter().filter_map(Value::as_text)
}

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod property_tests;

/// What this process puts in front of a reason in [`UNREADABLE`]. No stranger knows it.
pub(crate) fn own_mark() -> &'static str {
    static MARK: LazyLock<String> = LazyLock::new(|| format!("{}: ", MessageId::new()));
    &MARK
}

/// Why this process could not read the headers of a message. A stranger's word for it is not believed.
pub(crate) fn unreadable_because(headers: &Headers) -> Option<&str> {
    headers.text(UNREADABLE)?.strip_prefix(own_mark())
}
