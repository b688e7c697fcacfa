use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value as Json, json};

use crate::broker::{ATTEMPT, Addressed, Delivery, KIND, Names, Properties, is_reserved_header, strip};
use crate::codec::{self, Codec, Limits};
use crate::message::{Headers, MediaType, Value};

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
}

impl std::fmt::Debug for DeadLetter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetter")
            .field("queue", &self.queue)
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
        name_by_broker(&mut properties, names);
        strip(&mut properties.headers);
        Self {
            queue: queue.to_owned(),
            properties,
            payload: delivery.payload.clone(),
            deliveries: delivery.delivery_count.unwrap_or(0),
        }
    }

    /// The message's id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.properties.message_id.as_deref().unwrap_or_default()
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> &str {
        self.properties.message_type.as_deref().unwrap_or_default()
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
        let decoded = match Codec::for_media_type(&media_type) {
            Some(Codec::Json | Codec::Msgpack) => codec::decode(&self.payload, &media_type, &Limits::default()).ok(),
            Some(Codec::Text) => std::str::from_utf8(&self.payload).ok().map(Json::from),
            _ => None,
        };
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
            "id": self.id(), "queue": self.queue, "kind": self.kind(), "key": self.key(), "service": self.service(),
            "actor": header("actor"), "handler": header("handler"), "attempts": self.attempts(),
            "reason": self.reason(), "code": header("code"), "error": self.error(),
            "first_error": self.first_error(), "version": header("version"),
            "at": self.at().and_then(|at| at.duration_since(UNIX_EPOCH).ok()).map(|at| at.as_secs()),
            "sender": self.properties.app_id.as_deref(), "correlation_id": self.properties.correlation_id.as_deref(),
            "timestamp": self.properties.timestamp, "priority": self.properties.priority, "media_type": self.media_type().as_str(),
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
                || name.starts_with("postrider-original-")
        };
        properties.headers.retain(|name| !written_by_us(name));
        properties.reply_to = None;
        properties.expiration = None;
        properties.persistent = true;
        self.addressed(self.home(), properties)
    }

    pub(super) fn addressed(&self, queue: &str, properties: Properties) -> Addressed {
        Addressed {
            exchange: "".into(),
            routing_key: queue.into(),
            mandatory: true,
            awaits_reply: false,
            properties: Arc::new(properties),
            payload: self.payload.clone(),
        }
    }
}

/// A letter that the broker made, because it expired or was delivered too often, says only in the broker's own headers
/// where it came from and why.
fn name_by_broker(properties: &mut Properties, names: &Names) {
    let headers = &mut properties.headers;
    let text = |headers: &Headers, name: &str| headers.text(name).map(str::to_owned);
    if headers.get("postrider-dead-reason").is_none()
        && let Some(reason) = text(headers, "x-first-death-reason")
    {
        headers.set("postrider-dead-reason", reason);
    }
    if headers.get(KIND).is_none()
        && let Some(kind) = text(headers, "x-first-death-exchange").and_then(|exchange| names.kind_of(&exchange))
    {
        headers.set(KIND, kind.as_str());
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

/// Which dead letters are meant. Nothing said is all of them.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DeadFilter {
    /// Only those with these ids.
    pub ids: Vec<String>,
    /// Only those of this service.
    pub service: Option<String>,
    /// Only those in this dead-letter queue.
    pub queue: Option<String>,
    /// Only keys that this pattern matches.
    pub key: Option<String>,
    /// Only those whose first or last error has this text.
    pub error: Option<String>,
    /// Only those with this reason.
    pub reason: Option<String>,
    /// Only those given up within this time.
    pub newer_than: Option<Duration>,
    /// Only those given up longer ago than this.
    pub older_than: Option<Duration>,
}

impl DeadFilter {
    /// All dead letters.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// One dead letter.
    #[must_use]
    pub fn id(id: impl Into<String>) -> Self {
        Self { ids: vec![id.into()], ..Self::default() }
    }

    /// Those of one service.
    #[must_use]
    pub fn service(service: impl Into<String>) -> Self {
        Self { service: Some(service.into()), ..Self::default() }
    }

    /// Whether a letter is meant.
    #[must_use]
    pub fn takes(&self, letter: &DeadLetter) -> bool {
        let age = letter.at().and_then(|at| SystemTime::now().duration_since(at).ok()).unwrap_or_default();
        let text = |wanted: &Option<String>, takes: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(takes);
        (self.ids.is_empty() || self.ids.iter().any(|id| id == letter.id()))
            && text(&self.key, &|pattern| postrider_grammar::matches(pattern, letter.key()))
            && text(&self.reason, &|reason| letter.reason() == reason)
            && text(&self.error, &|error| letter.error().contains(error) || letter.first_error().contains(error))
            && self.newer_than.is_none_or(|most| age <= most)
            && self.older_than.is_none_or(|least| age >= least)
    }
}

#[cfg(test)]
mod properties;
