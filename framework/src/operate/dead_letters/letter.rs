//! One dead letter and its address.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value as Json, json};

use crate::broker::{
    Addressed, DEAD, Delivery, REPLAYED, is_of_earlier_attempts, is_reserved_header, size, strip, write_headers,
};
use crate::codec::{self, Codec, Limits};
use crate::inbound::{fitted, letter_id};
use crate::message::{ContentEncoding, Envelope, MediaType, MessageId, Name, Problem, Value};

/// A message that was given up: its bytes and headers, and the reason.
#[derive(Clone)]
#[non_exhaustive]
pub struct DeadLetter {
    /// The dead-letter queue it is in.
    pub queue: String,
    /// The message as it was sent, plus the `postrider-dead-…` headers.
    pub envelope: Envelope,
    /// Its key, with `service:` in front if it was sent to a service by name; empty if the key is unknown.
    key: Arc<str>,
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
            .field("payload_bytes", &self.envelope.payload.len())
            .finish_non_exhaustive()
    }
}

impl DeadLetter {
    pub(super) fn of(queue: &str, delivery: &Delivery) -> Self {
        let mut envelope = (*delivery.envelope).clone();
        strip(&mut envelope.headers);
        let is_unaddressed = envelope.foreign.as_ref().is_some_and(|foreign| foreign.no_type);
        Self {
            key: if is_unaddressed { Arc::default() } else { envelope.address() },
            address: address(queue, &envelope),
            queue: queue.to_owned(),
            envelope,
            deliveries: delivery.delivery_count.unwrap_or(0),
            redelivered: delivery.redelivered,
        }
    }

    /// The letter's own name. It can be typed and is the same in every list. It was assigned when the letter was
    /// written, or is computed from the content if the broker wrote the letter. Equal letters share an address; later
    /// ones have a number after it.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Numbers it among letters with the same address.
    pub(super) fn number(&mut self, number: u32) {
        if number > 1 {
            self.address = format!("{}.{number}", self.address);
        }
    }

    /// Whether the letter has this address or message id.
    pub(super) fn is(&self, id: &str) -> bool {
        !id.is_empty() && (id == self.address || id == self.id())
    }

    /// The message's id if it has one, else its address.
    pub(super) fn name(&self) -> &str {
        if self.id().is_empty() { &self.address } else { self.id() }
    }

    /// The message's id, which its sender chose: it may be empty or shared by several letters.
    #[must_use]
    pub fn id(&self) -> &str {
        if self.envelope.has_own_id() { self.envelope.id.as_str() } else { "" }
    }

    /// Its key; `invoice:ping` if it was sent to the service `invoice` by name.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The key without the service, if the message was sent to a service by name.
    pub(super) fn key_of_service(&self) -> Option<&str> {
        self.key().split_once(':').map(|(_, key)| key)
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.envelope.kind.as_str()
    }

    /// Why it was given up: a word such as `transient` or `undecodable`; empty if the broker gave it up.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.text("postrider-dead-reason")
    }

    /// The failure's code for programs, such as `unknown-order`; `failed` if its handler gave none.
    #[must_use]
    pub fn code(&self) -> &str {
        self.text("postrider-dead-code")
    }

    /// The reason, and the code if the handler gave one.
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

    /// The number of attempts.
    #[must_use]
    pub fn attempts(&self) -> i64 {
        self.envelope.headers.get("postrider-dead-attempts").and_then(Value::as_integer).unwrap_or(0)
    }

    /// When it was given up, to the second.
    #[must_use]
    pub fn at(&self) -> Option<SystemTime> {
        match self.envelope.headers.get("postrider-dead-at") {
            Some(Value::Timestamp(seconds)) => UNIX_EPOCH.checked_add(Duration::from_secs(*seconds)),
            _ => None,
        }
    }

    /// How often it has been delivered to a reader, if the broker counts.
    #[must_use]
    pub fn deliveries(&self) -> u32 {
        self.deliveries
    }

    /// The encoding of the payload.
    #[must_use]
    pub fn media_type(&self) -> &MediaType {
        &self.envelope.media_type
    }

    fn text(&self, header: &str) -> &str {
        self.envelope.headers.text(header).unwrap_or_default()
    }

    /// The payload as JSON: decoded if its media type says how, else as text or as hexadecimal digits.
    #[must_use]
    pub fn payload_as_json(&self) -> Json {
        let Envelope { media_type, payload: bytes, .. } = &self.envelope;
        let payload = match &self.envelope.content_encoding {
            Some(encoding) => codec::decompress(bytes, encoding, &Limits::default()).ok(),
            None => Some(bytes.clone()),
        };
        let decoded = payload.and_then(|payload| match Codec::for_media_type(media_type) {
            Some(Codec::Json | Codec::Msgpack) => codec::decode(&payload, media_type, &Limits::default()).ok(),
            Some(Codec::Text) => std::str::from_utf8(&payload).ok().map(Json::from),
            _ => None,
        });
        decoded.unwrap_or_else(|| {
            let shown = bytes.iter().map(|byte| format!("{byte:02x}"));
            json!({ "hex": shown.collect::<String>(), "bytes": bytes.len() })
        })
    }

    /// The whole letter as JSON, without bearer tokens.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let envelope = &self.envelope;
        let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).ok().map(|at| at.as_secs());
        let headers = envelope.headers.iter().filter(|(name, _)| !is_reserved_header(name));
        let headers: serde_json::Map<String, Json> = headers
            .filter(|(name, _)| !name.eq_ignore_ascii_case(crate::message::Envelope::AUTHORIZATION))
            .map(|(name, value)| (name.to_owned(), shown(value)))
            .collect();
        let header = |name: &str| self.envelope.headers.text(&format!("postrider-dead-{name}"));
        json!({
            "letter": self.address(), "id": self.id(), "queue": self.queue, "kind": self.kind(), "key": self.key(), "service": self.service(),
            "actor": header("actor"), "handler": header("handler"), "attempts": self.attempts(),
            "reason": self.reason(), "code": header("code"), "error": self.error(),
            "first_error": self.first_error(), "version": header("version"),
            "at": self.at().and_then(seconds),
            "sender": envelope.source.as_ref().map(Name::as_str), "correlation_id": envelope.correlation_id.as_ref().map(MessageId::as_str),
            "timestamp": envelope.sent_at.and_then(seconds), "priority": envelope.priority, "media_type": self.media_type().as_str(),
            "content_encoding": envelope.content_encoding.as_ref().map(ContentEncoding::as_str),
            "payload": self.payload_as_json(), "headers": headers,
        })
    }

    /// The queue of the actor that gave it up.
    #[must_use]
    pub fn home(&self) -> &str {
        self.queue.strip_suffix(".dead").unwrap_or(&self.queue)
    }

    /// The message to publish again: to the queue of the actor that gave it up, as a first attempt. No caller waits for
    /// its reply any more.
    pub(super) fn revived(&self) -> Addressed {
        let mut envelope = self.envelope.clone();
        let written_by_us = |name: &str| {
            is_of_earlier_attempts(name) || name.starts_with(DEAD) || name.starts_with("postrider-original-")
        };
        envelope.headers.retain(|name| !written_by_us(name));
        // The address is sent along, so that the outcome of this replay is not mixed up with the earlier one.
        envelope.headers.set(REPLAYED, self.address.as_str());
        envelope.attempt = 1;
        envelope.reply_to = None;
        envelope.expiration = None;
        envelope.transient = false;
        if let Some(foreign) = &mut envelope.foreign {
            foreign.expiration = None;
            foreign.headers.retain(|name| !written_by_us(name));
            // The message needs an id, so that a copy can be recognised.
            foreign.no_id = false;
        }
        fitted(self.home(), envelope)
    }

    /// The letter for another place in a dead-letter queue, under the same address.
    pub(super) fn rewritten(&self, queue: &str) -> Addressed {
        let mut envelope = self.envelope.clone();
        let written = self.address.split('.').next().unwrap_or_default();
        envelope.headers.set(ADDRESS, written);
        envelope.transient = false;
        fitted(queue, envelope)
    }

    /// The letter with another payload. It has a new address, so that the original can be told from it if both are
    /// there.
    pub(super) fn edited(&self, payload: Bytes) -> Self {
        let mut edited = self.clone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        edited.envelope.headers.set("postrider-dead-edited-at", Value::Timestamp(now));
        edited.envelope.payload = payload;
        // The new payload is not compressed.
        edited.envelope.content_encoding = None;
        edited.address = letter_id();
        edited
    }

    /// About how many bytes the letter takes.
    pub(super) fn size(&self) -> usize {
        self.envelope.payload.len() + size(&self.envelope)
    }
}

/// The header that holds a letter's address.
const ADDRESS: &str = "postrider-dead-id";
/// The most characters of an assigned address.
const LONGEST_ADDRESS: usize = 32;

/// The letter's assigned address, or else one computed from everything in it that does not change when it is read.
fn address(queue: &str, envelope: &Envelope) -> String {
    let given = envelope.headers.text(ADDRESS);
    let is_one = |text: &&str| {
        (1..=LONGEST_ADDRESS).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if let Some(given) = given.filter(is_one) {
        return given.to_owned();
    }
    let mut hash = Fnv::default();
    hash.add(queue.as_bytes());
    if envelope.has_own_id() {
        hash.add(envelope.id.as_str().as_bytes());
    }
    let Envelope { kind, key, target, message_type, correlation_id, source, media_type, sent_at, .. } = envelope;
    hash.add(
        format!("{:?}", (kind, key, target, message_type, correlation_id, source, media_type, sent_at)).as_bytes(),
    );
    write_headers(envelope, |name, value| {
        hash.add(name.as_bytes());
        hash.add(format!("{:?}", value.to_value()).as_bytes());
    });
    hash.add(&envelope.payload);
    format!("{:012x}", hash.0 & 0xffff_ffff_ffff)
}

/// FNV-1a. An address must be the same in every build, so the standard hasher does not do.
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

    /// Adds a part and its length.
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
