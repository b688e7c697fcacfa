//! Forwards a received message into a queue: as a dead letter, or back into its own queue.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::broker::{
    ATTEMPT, Addressed, DEAD, DIRECT_REPLY_TO, Delivery, FIRST_ERROR, KIND, MAX_PROPERTIES_BYTES, SKEWED_SINCE,
    fit_into_frame, remove_header, strip, suspend_expiration,
};
use crate::handler::{Failed, HandlerSpec};
use crate::message::{Envelope, Headers, Kind, MessageId, Problem, ReplyTo, Value};

/// How many seconds the clocks of two processes may differ.
const MOST_AHEAD: u64 = 60;

/// The message as received, ready for a queue. Properties that would confuse the next delivery are kept as `postrider-original-…`
/// or left out.
fn moved(original: &Envelope) -> Envelope {
    let mut envelope = original.clone();
    strip(&mut envelope.headers);
    // The broker would take this address for the reply queue of the publishing channel, and close a channel that consumes no
    // replies.
    let means_its_sender = |to: &mut ReplyTo| matches!(to, ReplyTo::Queue(queue) if **queue == *DIRECT_REPLY_TO);
    if let Some(ReplyTo::Queue(address)) = envelope.reply_to.take_if(means_its_sender) {
        envelope.headers.set("postrider-original-reply-to", address);
    }
    if let Some(foreign) = &mut envelope.foreign {
        (foreign.no_id, foreign.no_type, foreign.no_kind) = (false, false, false);
        if let Some(user) = foreign.user_id.take() {
            envelope.headers.set("postrider-original-user-id", user);
        }
    }
    if envelope.kind == Kind::Reply {
        // A reply to its reply queue needs no kind; a moved one does.
        envelope.headers.set(KIND, envelope.kind.as_str());
    }
    envelope.transient = false;
    envelope
}

/// The message for one of its actor's queues. Dead-letter headers that a stranger wrote are removed: only this framework writes
/// them.
fn forwarded(original: &Envelope) -> Envelope {
    let mut envelope = moved(original);
    suspend_expiration(&mut envelope);
    envelope.headers.retain(|name| !name.starts_with(DEAD));
    envelope
}

/// The message for another queue, otherwise unchanged.
#[must_use]
pub fn relocated(delivery: &Delivery, queue: &str) -> Addressed {
    // The expiration is not suspended: the message expires there as it would have here.
    fitted(queue, moved(&delivery.envelope))
}

/// The message for a queue, cut so that it fits into a frame.
pub(crate) fn fitted(queue: &str, mut envelope: Envelope) -> Addressed {
    fit_into_frame(&mut envelope, MAX_PROPERTIES_BYTES);
    Addressed::to_queue(queue, envelope)
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

/// The message as a dead letter: its payload and headers, and the reason.
pub(super) fn dead_letter(original: &Envelope, queue: &str, why: &DeadLetter<'_>) -> Addressed {
    let mut envelope = forwarded(original);
    let headers = &mut envelope.headers;
    if let Some(first) = why.first_error.filter(|_| headers.get(FIRST_ERROR).is_none()) {
        headers.set(FIRST_ERROR, first);
    }
    note_death(headers, why.service, why.actor, why.attempts, why.failed);
    if let Some(handler) = why.handler {
        headers.set("postrider-dead-handler", handler.method);
    }
    fitted(queue, envelope)
}

/// Writes why and where a message was given up into its headers.
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

/// Number of digits in a dead letter's address.
const LETTER_DIGITS: usize = 12;

/// The address of a new dead letter. It is short enough to type, unlike a message id, which its sender chooses.
pub(crate) fn letter_id() -> String {
    let id = MessageId::new();
    let digits: String = id.as_str().chars().filter(char::is_ascii_hexdigit).collect();
    // The last digits of the id are random.
    digits[digits.len() - LETTER_DIGITS..].to_owned()
}

/// The message for its next attempt.
pub(super) fn retried(original: &Envelope, queue: &str, attempt: u32, error: &str) -> Addressed {
    let mut envelope = forwarded(original);
    remove_header(&mut envelope, ATTEMPT);
    envelope.attempt = attempt;
    if envelope.headers.get(FIRST_ERROR).is_none() {
        envelope.headers.set(FIRST_ERROR, error);
    }
    fitted(queue, envelope)
}

/// The message for another round through its own queue, because this build has no handler for it.
pub(super) fn skewed(original: &Envelope, queue: &str) -> Addressed {
    let mut envelope = forwarded(original);
    set_skewed_since(&mut envelope);
    fitted(queue, envelope)
}

/// Notes when the message was first not taken, unless that is noted already.
pub(super) fn set_skewed_since(envelope: &mut Envelope) {
    if skewed_since(envelope).is_none() {
        envelope.headers.set(SKEWED_SINCE, Value::Timestamp(seconds_now()));
    }
}

/// How long ago the message was first not taken: by a build without a handler, or by the broker after its delay.
pub(super) fn skewed_for(envelope: &Envelope) -> Duration {
    let since = skewed_since(envelope).map_or(0, |since| seconds_now().saturating_sub(since));
    Duration::from_secs(since)
}

fn skewed_since(envelope: &Envelope) -> Option<u64> {
    match envelope.headers.get(SKEWED_SINCE) {
        // A time in the future would make it wait forever.
        Some(Value::Timestamp(since)) if *since <= seconds_now() + MOST_AHEAD => Some(*since),
        _ => None,
    }
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod property_tests;
