//! A received message on its way into a queue again: to the dead letters, or back into its own queue.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::broker::{Addressed, KIND, MAX_PROPERTIES_BYTES, Properties, is_reserved_header};
use crate::handler::{Failed, HandlerSpec};
use crate::inbound::open::Original;
use crate::message::{Envelope, Value};

/// When a build without a handler for its key first met a message, in seconds since 1970.
const SKEWED_SINCE: &str = "postrider-skewed-since";

/// Headers that a broker or a foreign sender wrote for the first delivery only.
const STRIPPED: [&str; 6] = ["x-death", "x-delivery-count", "x-acquired-count", "CC", "BCC", "x-opt-delivery-count"];
const STRIPPED_PREFIXES: [&str; 2] = ["x-first-death-", "x-last-death-"];

/// The message as it came, addressed to a queue. What would confuse the next delivery is kept as
/// `postrider-original-…` or left out.
fn forwarded(original: &Original, envelope: &Envelope, queue: &str) -> Addressed {
    let mut properties = original.properties.clone();
    let headers = &mut properties.headers;
    headers
        .retain(|name| !STRIPPED.contains(&name) && !STRIPPED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)));
    headers.set(KIND, envelope.kind.as_str());
    if let Some(expiration) = properties.expiration.take() {
        headers.set("postrider-original-expiration", expiration);
    }
    if let Some(user) = properties.user_id.take() {
        headers.set("postrider-original-user-id", user);
    }
    properties.message_type = Some(envelope.key.to_string());
    properties.message_id = Some(envelope.id.to_string());
    properties.persistent = true;
    Addressed {
        exchange: String::new(),
        routing_key: queue.to_owned(),
        mandatory: true,
        awaits_reply: false,
        properties,
        payload: original.payload.clone(),
    }
}

/// Leaves out the largest foreign headers until the rest fits into a frame, and says which: a message that cannot be
/// moved would be delivered again for ever.
fn fitted(mut addressed: Addressed) -> Addressed {
    let properties = &mut addressed.properties;
    let mut cut = Vec::new();
    while properties.size() > MAX_PROPERTIES_BYTES {
        let foreign = properties.headers.iter().filter(|(name, _)| !is_reserved_header(name));
        let Some(largest) = foreign.max_by_key(|(_, value)| value.size()).map(|(name, _)| name.to_owned()) else {
            break;
        };
        properties.headers.remove(&largest);
        cut.push(largest.chars().take(60).collect::<String>());
        cut.truncate(20);
        properties.headers.set("postrider-cut-headers", cut.join(", "));
    }
    addressed
}

/// Why and where a message was given up.
pub(super) struct DeadLetter<'a> {
    pub(super) service: &'a str,
    pub(super) actor: &'a str,
    pub(super) handler: Option<HandlerSpec>,
    pub(super) attempts: u32,
    pub(super) failed: &'a Failed,
}

/// The message as a dead letter: its bytes and headers, and why it is there.
pub(super) fn dead_letter(original: &Original, envelope: &Envelope, queue: &str, why: &DeadLetter<'_>) -> Addressed {
    let mut addressed = forwarded(original, envelope, queue);
    let headers = &mut addressed.properties.headers;
    headers.set("postrider-dead-reason", why.failed.class.as_str());
    headers.set("postrider-dead-code", why.failed.problem.code.as_str());
    headers.set("postrider-dead-error", crate::message::Problem::new("", why.failed.log.as_str()).text);
    headers.set("postrider-dead-service", why.service);
    headers.set("postrider-dead-actor", why.actor);
    if let Some(handler) = why.handler {
        headers.set("postrider-dead-handler", handler.method);
    }
    headers.set("postrider-dead-attempts", i64::from(why.attempts));
    headers.set("postrider-dead-at", Value::Timestamp(seconds_now()));
    headers.set("postrider-dead-version", env!("CARGO_PKG_VERSION"));
    fitted(addressed)
}

/// The message for another round through its own queue, because this build has no handler for it.
pub(super) fn skewed(original: &Original, envelope: &Envelope, queue: &str) -> Addressed {
    let mut addressed = forwarded(original, envelope, queue);
    if skewed_since(&addressed.properties).is_none() {
        addressed.properties.headers.set(SKEWED_SINCE, Value::Timestamp(seconds_now()));
    }
    fitted(addressed)
}

/// How long ago a build without a handler first met the message.
pub(super) fn skewed_for(properties: &Properties) -> Duration {
    let since = skewed_since(properties).map_or(0, |since| seconds_now().saturating_sub(since));
    Duration::from_secs(since)
}

fn skewed_since(properties: &Properties) -> Option<u64> {
    match properties.headers.get(SKEWED_SINCE) {
        Some(Value::Timestamp(since)) => Some(*since),
        _ => None,
    }
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
