//! A received message on its way into a queue again: to the dead letters, or back into its own queue.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::broker::{
    ATTEMPT, Addressed, DEAD, DIRECT_REPLY_TO, Delivery, KIND, MAX_PROPERTIES_BYTES, Names, ORIGINAL_EXPIRATION,
    ORIGINAL_TYPE, Origin, Properties, fit_into_frame, note_broker_death, open, strip,
};
use crate::handler::{Failed, HandlerSpec};
use crate::message::{Envelope, Headers, Kind, MessageId, Problem, Value};

/// When a build without a handler for its key first met a message, in seconds since 1970.
const SKEWED_SINCE: &str = "postrider-skewed-since";

/// How many seconds the clocks of two processes may differ.
const MOST_AHEAD: u64 = 60;

/// Why the first attempt failed, from the first delayed one on.
const FIRST_ERROR: &str = "postrider-first-error";

/// Whether a header tells of attempts that were made before: only a message that is in its queue again has one.
pub(super) fn is_of_earlier_attempts(header: &str) -> bool {
    matches!(header, ATTEMPT | FIRST_ERROR | SKEWED_SINCE)
}

/// The message as it came, with the properties that it came with, addressed to a queue. What would confuse the next delivery is kept as
/// `postrider-original-…` or left out.
fn forwarded(original: &Properties, envelope: &Envelope, queue: &str) -> Addressed {
    let mut properties = original.clone();
    let headers = &mut properties.headers;
    strip(headers);
    // Ours follow; what a stranger wrote there says nothing.
    headers.retain(|name| !name.starts_with(DEAD));
    headers.set(KIND, envelope.kind.as_str());
    if let Some(expiration) = properties.expiration.take() {
        headers.set(ORIGINAL_EXPIRATION, expiration);
    }
    // The broker reads it as "whoever sends this", and closes the channel of a sender that awaits no replies.
    if let Some(address) = properties.reply_to.take_if(|address| **address == *DIRECT_REPLY_TO) {
        headers.set("postrider-original-reply-to", address);
    }
    if let Some(user) = properties.user_id.take() {
        headers.set("postrider-original-user-id", user);
    }
    if let Some(given) = &envelope.message_type {
        headers.set(ORIGINAL_TYPE, Arc::clone(given));
    }
    // For the next attempt it is for the same service; a reply is for whoever has its queue.
    let service = envelope.target.as_ref().filter(|_| envelope.kind != Kind::Reply);
    properties.message_type = Some(match service {
        Some(service) => format!("{service}:{}", envelope.key).into(),
        None => envelope.key.shared(),
    });
    properties.message_id = Some(envelope.id.shared());
    properties.persistent = true;
    Addressed::to_queue(queue, properties, envelope.payload.clone())
}

/// A message that changes its queue and nothing else.
#[must_use]
pub fn relocated(delivery: &Delivery, names: &Names, queue: &str) -> Addressed {
    let mut original = (*delivery.properties).clone();
    if matches!(&*delivery.origin, Origin::Queue(queue) if queue.ends_with(".dead")) {
        // What the broker says of a letter would be lost on the way.
        note_broker_death(&mut original, names);
    }
    let envelope = open(&delivery.origin, &original, delivery.payload.clone());
    // What was moved before is addressed by its type, the service included.
    let address = original.message_type.clone().filter(|_| delivery.origin.is_moved());
    // It expires where it goes as it would have where it was.
    let expiration = original.expiration.take();
    let mut addressed = forwarded(&original, &envelope, queue);
    // In a dead-letter queue they are ours.
    let why = original.headers.iter().filter(|(name, _)| name.starts_with(DEAD));
    let properties = Arc::make_mut(&mut addressed.properties);
    why.for_each(|(name, value)| drop(properties.headers.set(name, value.clone())));
    properties.message_type = address.or(properties.message_type.take());
    addressed = fitted(addressed);
    Arc::make_mut(&mut addressed.properties).expiration = expiration;
    addressed
}

/// Cut so that it fits into a frame.
pub(crate) fn fitted(mut addressed: Addressed) -> Addressed {
    fit_into_frame(Arc::make_mut(&mut addressed.properties), MAX_PROPERTIES_BYTES);
    addressed
}

/// Why and where a message was given up.
pub(super) struct DeadLetter<'a> {
    pub(super) service: &'a str,
    pub(super) actor: &'a str,
    pub(super) handler: Option<HandlerSpec>,
    pub(super) attempts: u32,
    pub(super) first_error: Option<&'a str>,
    pub(super) failed: &'a Failed,
}

/// The message as a dead letter: its bytes and headers, and why it is there.
pub(super) fn dead_letter(original: &Properties, envelope: &Envelope, queue: &str, why: &DeadLetter<'_>) -> Addressed {
    let mut addressed = forwarded(original, envelope, queue);
    let headers = &mut Arc::make_mut(&mut addressed.properties).headers;
    if let Some(first) = why.first_error.filter(|_| headers.get(FIRST_ERROR).is_none()) {
        headers.set(FIRST_ERROR, first);
    }
    note_death(headers, why.service, why.actor, why.attempts, why.failed);
    if let Some(handler) = why.handler {
        headers.set("postrider-dead-handler", handler.method);
    }
    fitted(addressed)
}

/// Writes down why and where a message was given up.
pub(super) fn note_death(headers: &mut Headers, service: &str, actor: &str, attempts: u32, failed: &Failed) {
    headers.set("postrider-dead-id", letter_id());
    let first = headers.remove(FIRST_ERROR).and_then(|first| first.as_text().map(str::to_owned));
    let first = first.map_or_else(|| failed.in_short(), |first| Problem::new("", first).text);
    headers.set("postrider-dead-first-error", first);
    headers.set("postrider-dead-reason", failed.class.as_str());
    headers.set("postrider-dead-code", failed.problem.code.as_str());
    headers.set("postrider-dead-error", Problem::new("", failed.log.as_str()).text);
    headers.set("postrider-dead-service", service);
    headers.set("postrider-dead-actor", actor);
    headers.set("postrider-dead-attempts", i64::from(attempts));
    headers.set("postrider-dead-at", Value::Timestamp(seconds_now()));
    headers.set("postrider-dead-version", env!("CARGO_PKG_VERSION"));
}

/// How many digits the address of a dead letter has.
const LETTER_DIGITS: usize = 12;

/// The address of a new dead letter: one that can be typed, unlike the id of a message, which is its sender's choice.
pub(crate) fn letter_id() -> String {
    let id = MessageId::new();
    let digits: String = id.as_str().chars().filter(char::is_ascii_hexdigit).collect();
    // The end of it is chance.
    digits[digits.len() - LETTER_DIGITS..].to_owned()
}

/// The message for its next attempt.
pub(super) fn retried(original: &Properties, envelope: &Envelope, queue: &str, attempt: u32, error: &str) -> Addressed {
    let mut addressed = forwarded(original, envelope, queue);
    let headers = &mut Arc::make_mut(&mut addressed.properties).headers;
    headers.set(ATTEMPT, i64::from(attempt));
    if headers.get(FIRST_ERROR).is_none() {
        headers.set(FIRST_ERROR, error);
    }
    fitted(addressed)
}

/// The message for another round through its own queue, because this build has no handler for it.
pub(super) fn skewed(original: &Properties, envelope: &Envelope, queue: &str) -> Addressed {
    let mut addressed = forwarded(original, envelope, queue);
    set_skewed_since(Arc::make_mut(&mut addressed.properties));
    fitted(addressed)
}

/// Notes that nobody takes the message, unless it is noted already.
pub(super) fn set_skewed_since(properties: &mut Properties) {
    if skewed_since(properties).is_none() {
        properties.headers.set(SKEWED_SINCE, Value::Timestamp(seconds_now()));
    }
}

/// How long ago a build without a handler first met the message.
pub(super) fn skewed_for(properties: &Properties) -> Duration {
    let since = skewed_since(properties).map_or(0, |since| seconds_now().saturating_sub(since));
    Duration::from_secs(since)
}

fn skewed_since(properties: &Properties) -> Option<u64> {
    match properties.headers.get(SKEWED_SINCE) {
        // From a time that is still to come it would be waited for ever.
        Some(Value::Timestamp(since)) if *since <= seconds_now() + MOST_AHEAD => Some(*since),
        _ => None,
    }
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod property_tests;
