use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value as Json, json};

use crate::broker::{
    ATTEMPT, Addressed, Delivery, KIND, Names, ORIGINAL_TYPE, Properties, REPLAYED, is_reserved_header,
    note_broker_death,
};
use crate::codec::{self, Codec, Limits};
use crate::inbound::{fitted, letter_id};
use crate::message::{ContentEncoding, MediaType, MessageId, Problem, Value};

/// A message that was given up: its bytes and headers, and why.
#[derive(Clone)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The dead-letter queue it is in.
    pub queue: String,
    /// Properties and headers, those of the message and `postrider-dead-…`.
    pub properties: Properties,
    /// The payload as it was sent.
    pub payload: Bytes,
    pub(super) deliveries: u32,
    pub(super) redelivered: bool,
    pub(super) address: String,
}

impl std::fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetter")
            .field("queue", &self.queue)
            .field("address", &self.address())
            .field("id", &self.id())
            .field("key", &self.key())
            .field("reason", &self.reason())
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

impl DeadLetter {
    pub(super) fn of(queue: &str, delivery: &Delivery, names: &Names) -> Self {
        let mut properties = (*delivery.properties).clone();
        note_broker_death(&mut properties, names);
        Self {
            address: address(queue, &properties, &delivery.payload),
            queue: queue.to_owned(),
            properties,
            payload: delivery.payload.clone(),
            deliveries: delivery.delivery_count.unwrap_or(0),
            redelivered: delivery.redelivered,
        }
    }

    /// A name of its own that can be typed, the same whenever it is listed: given to it when it was written, or made of what
    /// is in it if the broker wrote it. Of letters that are equal in all the later ones have a number behind it.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Gives it a number among letters with the same address.
    pub(super) fn number(&mut self, number: u32) {
        if number > 1 {
            self.address = format!("{}.{number}", self.address);
        }
    }

    /// Whether it is called so: by its address, or by its message's id.
    pub(super) fn is(&self, id: &str) -> bool {
        !id.is_empty() && (id == self.address || id == self.id())
    }

    /// What to call it: the message's id if it has one, else its address.
    pub(super) fn name(&self) -> &str {
        if self.id().is_empty() { &self.address } else { self.id() }
    }

    /// The message's id, which its sender chose: it may be empty, or that of several letters.
    #[must_use]
    pub fn id(&self) -> &str {
        self.properties.message_id.as_deref().unwrap_or_default()
    }

    /// Its key; `invoice:ping` if it was sent to the service `invoice` by name.
    #[must_use]
    pub fn key(&self) -> &str {
        self.properties.message_type.as_deref().unwrap_or_default()
    }

    /// The key without the service to which it was sent by name.
    pub(super) fn key_of_service(&self) -> Option<&str> {
        self.key().split_once(':').map(|(_, key)| key)
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text(KIND)
    }

    /// Why it was given up: a word such as `transient` or `undecodable`; empty if the broker gave it up.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.text("postrider-dead-reason")
    }

    /// The word for programs that its failure has, such as `unknown-order`; `failed` if its handler gave none.
    #[must_use]
    pub fn code(&self) -> &str {
        self.text("postrider-dead-code")
    }

    /// The reason, with the code that a handler gave.
    pub(super) fn reason_and_code(&self) -> String {
        let given = matches!(self.reason(), "rejected" | "permanent") && !["", Problem::FAILED].contains(&self.code());
        if given { format!("{}: {}", self.reason(), self.code()) } else { self.reason().to_owned() }
    }

    /// The last error.
    #[must_use]
    pub fn error(&self) -> &str {
        self.text("postrider-dead-error")
    }

    /// The first error.
    #[must_use]
    pub fn first_error(&self) -> &str {
        self.text("postrider-dead-first-error")
    }

    /// The service that gave it up.
    #[must_use]
    pub fn service(&self) -> &str {
        self.text("postrider-dead-service")
    }

    /// How many attempts there were.
    #[must_use]
    pub fn attempts(&self) -> i64 {
        self.properties.headers.get("postrider-dead-attempts").and_then(Value::as_integer).unwrap_or(0)
    }

    /// When it was given up, to the second.
    #[must_use]
    pub fn at(&self) -> Option<SystemTime> {
        match self.properties.headers.get("postrider-dead-at") {
            Some(Value::Timestamp(seconds)) => UNIX_EPOCH.checked_add(Duration::from_secs(*seconds)),
            _ => None,
        }
    }

    /// How often it was delivered to somebody who looked at it, where the broker counts.
    #[must_use]
    pub fn deliveries(&self) -> u32 {
        self.deliveries
    }

    /// How the payload is encoded.
    #[must_use]
    pub fn media_type(&self) -> MediaType {
        self.properties.content_type.clone().map_or(MediaType::BYTES, MediaType::new)
    }

    fn text(&self, header: &str) -> &str {
        self.properties.headers.text(header).unwrap_or_default()
    }

    /// The payload as JSON: decoded if its media type says how, else as text or as hexadecimal digits.
    #[must_use]
    pub fn payload_as_json(&self) -> Json {
        let media_type = self.media_type();
        let encoding = self.properties.content_encoding.as_ref().and_then(ContentEncoding::from_wire);
        let payload = match encoding {
            Some(encoding) => codec::decompress(&self.payload, &encoding, &Limits::default()).ok(),
            None => Some(self.payload.clone()),
        };
        let decoded = payload.and_then(|payload| match Codec::for_media_type(&media_type) {
            Some(Codec::Json | Codec::Msgpack) => codec::decode(&payload, &media_type, &Limits::default()).ok(),
            Some(Codec::Text) => std::str::from_utf8(&payload).ok().map(Json::from),
            _ => None,
        });
        decoded.unwrap_or_else(|| {
            let shown = self.payload.iter().map(|byte| format!("{byte:02x}"));
            json!({ "hex": shown.collect::<String>(), "bytes": self.payload.len() })
        })
    }

    /// Everything about it as JSON. Bearer tokens are left out.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let headers = self.properties.headers.iter().filter(|(name, _)| !is_reserved_header(name));
        let headers: serde_json::Map<String, Json> = headers
            .filter(|(name, _)| !name.eq_ignore_ascii_case(crate::message::Envelope::AUTHORIZATION))
            .map(|(name, value)| (name.to_owned(), shown(value)))
            .collect();
        let header = |name: &str| self.properties.headers.text(&format!("postrider-dead-{name}"));
        json!({
            "letter": self.address(), "id": self.id(), "queue": self.queue, "kind": self.kind(), "key": self.key(), "service": self.service(),
            "actor": header("actor"), "handler": header("handler"), "attempts": self.attempts(),
            "reason": self.reason(), "code": header("code"), "error": self.error(),
            "first_error": self.first_error(), "version": header("version"),
            "at": self.at().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map(|at| at.as_secs()),
            "sender": self.properties.app_id.as_deref(), "correlation_id": self.properties.correlation_id.as_deref(),
            "timestamp": self.properties.timestamp, "priority": self.properties.priority, "media_type": self.media_type().as_str(),
            "content_encoding": self.properties.content_encoding.as_deref(),
            "payload": self.payload_as_json(), "headers": headers,
        })
    }

    /// The queue of the actor that gave it up.
    #[must_use]
    pub fn home(&self) -> &str {
        self.queue.strip_suffix(".dead").unwrap_or(&self.queue)
    }

    /// The message for another life: to the queue of the actor that gave it up, with its first attempt. Nobody waits for
    /// its answer any more.
    pub(super) fn revived(&self) -> Addressed {
        let mut properties = self.properties.clone();
        let written_by_us = |name: &str| {
            name == ATTEMPT
                || name == "postrider-first-error"
                || name == "postrider-skewed-since"
                || name.starts_with("postrider-dead-")
                || name.starts_with("postrider-original-") && name != ORIGINAL_TYPE
        };
        properties.headers.retain(|name| !written_by_us(name));
        // What became of it before is not taken for what becomes of it now.
        properties.headers.set(REPLAYED, self.address.as_str());
        properties.reply_to = None;
        properties.expiration = None;
        properties.persistent = true;
        // Without an id nobody could tell that its copy is one.
        if properties.message_id.as_deref().is_none_or(str::is_empty) {
            properties.message_id = Some(MessageId::new().shared());
        }
        self.addressed(self.home(), properties)
    }

    /// The letter as it is for another place in a dead-letter queue, under the same address.
    pub(super) fn rewritten(&self, queue: &str) -> Addressed {
        let mut properties = self.properties.clone();
        let written = self.address.split('.').next().unwrap_or_default();
        properties.headers.set(ADDRESS, written);
        properties.persistent = true;
        self.addressed(queue, properties)
    }

    /// The letter with another payload. It is another letter, so that the one it was can be told from it if both are there.
    pub(super) fn edited(&self, payload: Bytes) -> Self {
        let mut edited = self.clone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        edited.properties.headers.set("postrider-dead-edited-at", Value::Timestamp(now));
        edited.payload = payload;
        // What was put in its place is not compressed.
        edited.properties.content_encoding = None;
        edited.address = letter_id();
        edited
    }

    /// About how many bytes it takes.
    pub(super) fn size(&self) -> usize {
        self.payload.len() + self.properties.size()
    }

    fn addressed(&self, queue: &str, properties: Properties) -> Addressed {
        // What the broker made of a stranger's message may have larger headers than we send.
        fitted(Addressed::to_queue(queue, properties, self.payload.clone()))
    }
}

/// The header with the address of a letter.
const ADDRESS: &str = "postrider-dead-id";
/// The most characters of an address that was given to a letter.
const LONGEST_ADDRESS: usize = 32;

/// The address that was given to the letter, or else one made of everything in it that stays the same when it is looked at.
fn address(queue: &str, properties: &Properties, payload: &[u8]) -> String {
    let given = properties.headers.text(ADDRESS);
    let is_one = |text: &&str| {
        (1..=LONGEST_ADDRESS).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if let Some(given) = given.filter(is_one) {
        return given.to_owned();
    }
    let texts = [&properties.message_id, &properties.correlation_id, &properties.message_type, &properties.app_id];
    let mut hash = Fnv::default();
    hash.add(queue.as_bytes());
    texts.iter().for_each(|text| hash.add(text.as_deref().unwrap_or_default().as_bytes()));
    hash.add(properties.content_type.as_deref().unwrap_or_default().as_bytes());
    hash.add(&properties.timestamp.unwrap_or_default().to_be_bytes());
    for (name, value) in properties.headers.iter() {
        hash.add(name.as_bytes());
        hash.add(format!("{value:?}").as_bytes());
    }
    hash.add(payload);
    format!("{:012x}", hash.0 & 0xffff_ffff_ffff)
}

/// FNV-1a: the same in every build, as an address must be.
pub(super) struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    pub(super) fn of(bytes: &[u8]) -> u64 {
        let mut hash = Self::default();
        hash.add(bytes);
        hash.0
    }

    /// Adds a part and its end.
    fn add(&mut self, part: &[u8]) {
        let length = part.len() as u64;
        for byte in part.iter().chain(&length.to_be_bytes()) {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// A header's value as JSON.
fn shown(value: &Value) -> Json {
    match value {
        Value::Bool(flag) => Json::from(*flag),
        Value::Text(text) => Json::from(&**text),
        other => other.as_integer().map_or_else(|| Json::from(format!("{other:?}")), Json::from),
    }
}

#[cfg(test)]
mod property_tests;
