//! Stamps outgoing messages with their sender, time, cause and conversation.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::broker::{MAX_PROPERTIES_BYTES, MAX_TEXT_BYTES, size};
use crate::bus::{Identity, Outgoing, SendError, TraceContext};
use crate::message::{ContentEncoding, Envelope, Kind, MessageId, Name, ReplyTo};

/// What a handled message passes on to everything its handler sends: itself as the cause, its conversation, and some of its
/// headers.
#[derive(Debug, Clone)]
pub struct Origin {
    message: Arc<Envelope>,
    /// The trace step in which the message is handled.
    pub trace: TraceContext,
    /// The handling actor, the same at every attempt. The ids of its requests and sends are derived from it.
    seed: Arc<str>,
    /// How the handler appears in a call path.
    waiter: Arc<str>,
}

impl Origin {
    /// The origin for a message. `waiter` is how its handler appears in a call path; the ids of requests and sends are derived
    /// from `seed`.
    #[must_use]
    pub fn of(message: Arc<Envelope>, waiter: Arc<str>, seed: Arc<str>) -> Self {
        let trace = message.headers.text(TraceContext::TRACEPARENT).and_then(TraceContext::parse);
        Self { trace: trace.map_or_else(TraceContext::root, TraceContext::child), message, seed, waiter }
    }

    /// The id of the handler's request with this number, counted from 1. It is the same at every attempt.
    #[must_use]
    pub fn request_id(&self, ordinal: u32) -> MessageId {
        self.message.id.derived(&self.seed, ordinal)
    }

    /// The id that the reply to a handler's request names. It depends on what is asked: the same question has the same id,
    /// another question another one. So a late answer is only taken for the answer to its own question.
    #[must_use]
    pub fn correlation_id(request: &Envelope) -> MessageId {
        match request.target.as_ref().or(request.recipients.first()) {
            Some(service) => request.id.of_content(&format!("{service}:{}", request.key), &request.payload),
            None => request.id.of_content(request.key.as_str(), &request.payload),
        }
    }

    /// The id of the handler's one-way message with this number, counted from 1. It is the same at every attempt, so that a
    /// receiver can detect a duplicate.
    #[must_use]
    pub fn sent_id(&self, ordinal: u32) -> MessageId {
        self.message.id.followed_by(&[&self.seed, "sent"], ordinal)
    }
}

/// Completes an outgoing message: stamps it, runs the send middleware, checks that it may leave.
///
/// # Errors
/// When the sender does not own the event's domain, the middleware refuses, or a text or the headers are too large.
pub(crate) fn stamp(
    outgoing: Outgoing,
    identity: &Identity,
    origin: Option<&Origin>,
) -> Result<Box<Envelope>, SendError> {
    let Outgoing { mut envelope, as_owner, skip_sender, .. } = outgoing;
    if skip_sender {
        envelope.skip = Some(identity.service.clone());
    }
    // Who skips its own service is known by its instance.
    if !envelope.fire || envelope.skip.is_some() {
        envelope.source = Some(identity.service.clone());
        envelope.instance = Some(identity.instance.clone());
    }
    if !envelope.fire {
        envelope.sent_at = Some(SystemTime::now());
    }
    match origin {
        Some(origin) => inherit(&mut envelope, origin, identity),
        None => begin(&mut envelope),
    }
    if envelope.wants_reply() && envelope.kind != Kind::Reply {
        envelope.correlation_id.get_or_insert_with(|| envelope.id.clone());
    }
    let fire = envelope.fire;
    for hook in identity.hooks.iter() {
        hook(&mut envelope).map_err(SendError::Refused)?;
    }
    // It is stamped for that already.
    envelope.fire = fire;
    if envelope.kind == Kind::Event && !as_owner && !identity.owns(envelope.key.domain()) {
        return Err(SendError::NotOwner {
            service: identity.service.to_string(),
            key: envelope.key.to_string(),
            domain: envelope.key.domain().to_owned(),
        });
    }
    as_it_travels(&mut envelope);
    check_texts(&envelope)?;
    let bytes = size(&envelope);
    if bytes <= MAX_PROPERTIES_BYTES {
        Ok(envelope)
    } else {
        Err(SendError::HeadersTooLarge { bytes, most: MAX_PROPERTIES_BYTES })
    }
}

/// Cuts times to the precision that every broker carries, and clears fields that say nothing.
fn as_it_travels(envelope: &mut Envelope) {
    let since = envelope.sent_at.and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    envelope.sent_at = since.map(|since| UNIX_EPOCH + Duration::from_secs(since.as_secs()));
    for time in [&mut envelope.timeout, &mut envelope.expiration].into_iter().flatten() {
        *time = Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    }
    if envelope.kind != Kind::Reply {
        envelope.status = None;
    }
    envelope.reply_to.take_if(|to| matches!(to, ReplyTo::Queue(queue) if queue.is_empty()));
    let key = envelope.key.as_str();
    envelope.message_type.take_if(|given| **given == *key);
}

/// Refuses ids, names and keys that are too long for one of the brokers, whichever broker is used.
fn check_texts(envelope: &Envelope) -> Result<(), SendError> {
    let services = envelope.target.iter().chain(&envelope.recipients);
    let service = services.map(|service| service.as_str().len() + 1).max().unwrap_or(0);
    let reply_to = if let Some(ReplyTo::Queue(queue)) = &envelope.reply_to { Some(&**queue) } else { None };
    let texts = [
        ("id", Some(envelope.id.as_str())),
        ("correlation_id", envelope.correlation_id.as_ref().map(MessageId::as_str)),
        ("media_type", Some(envelope.media_type.as_str())),
        ("encoding", envelope.content_encoding.as_ref().map(ContentEncoding::as_str)),
        ("reply_to", reply_to),
        ("source", envelope.source.as_ref().map(Name::as_str)),
        ("message_type", envelope.message_type.as_deref()),
        ("cluster_id", envelope.cluster_id.as_deref()),
    ];
    let headers = envelope.headers.iter().map(|(name, _)| ("header", Some(name)));
    for (option, text) in texts.into_iter().chain(headers) {
        check_text(option, text.unwrap_or_default(), 0)?;
    }
    check_text("key", envelope.key.as_str(), service)
}

fn check_text(option: &'static str, text: &str, before: usize) -> Result<(), SendError> {
    let bytes = before + text.len();
    if bytes <= MAX_TEXT_BYTES {
        return Ok(());
    }
    let begin: String = text.chars().take(40).collect();
    let reason = format!("{begin:?}… has {bytes} bytes; at most {MAX_TEXT_BYTES} are allowed");
    Err(SendError::Option { option, reason })
}

fn inherit(envelope: &mut Envelope, origin: &Origin, identity: &Identity) {
    let message = &*origin.message;
    envelope.causation_id = Some(message.id.clone());
    envelope.conversation_id = Some(message.conversation_id.as_ref().unwrap_or(&message.id).clone());
    let passed_on = |name: &str| name == TraceContext::TRACESTATE || identity.propagate.iter().any(|p| p == name);
    for (name, value) in message.headers.iter().filter(|(name, _)| passed_on(name)) {
        if envelope.headers.get(name).is_none() {
            envelope.headers.set(name, value.clone());
        }
    }
    envelope.headers.put(TraceContext::TRACEPARENT, origin.trace.header());
    if envelope.wants_reply() && envelope.kind != Kind::Reply {
        envelope.call_path = message.call_path.clone();
        envelope.call_path.push(origin.waiter.to_string());
    }
}

fn begin(envelope: &mut Envelope) {
    if envelope.conversation_id.is_none() {
        envelope.conversation_id = Some(envelope.id.clone());
    }
    if !envelope.fire && envelope.headers.get(TraceContext::TRACEPARENT).is_none() {
        envelope.headers.put(TraceContext::TRACEPARENT, TraceContext::root().header());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::{Key, MediaType};

    #[test]
    fn a_request_has_the_same_id_at_each_attempt_and_its_reply_names_what_was_asked() {
        let handled =
            Envelope::with_id(Kind::Command, Key::from_wire("a.b"), "it".into(), MediaType::JSON, Bytes::new());
        let origin = Origin::of(handled.into(), "a waiter".into(), "an actor".into());
        let asks = |key: &str, payload: &'static str| {
            let payload = Bytes::from_static(payload.as_bytes());
            let id = origin.request_id(1);
            Envelope::with_id(Kind::Query, Key::from_wire(key), id, MediaType::JSON, payload)
        };
        let first = asks("stock.left", "7");
        let named = |envelope: &Envelope| Origin::correlation_id(envelope);
        assert_eq!(named(&first), named(&asks("stock.left", "7")));
        let by_name = Envelope { target: Some(Name::from_wire("depot")), ..first.clone() };
        let recipient = Envelope { recipients: vec![Name::from_wire("other-depot")], ..first.clone() };
        for other in [asks("stock.price", "7"), asks("stock.left", "8"), by_name, recipient] {
            assert_eq!(other.id, first.id);
            assert_ne!(named(&first), named(&other), "an answer to one would be taken for the other's: {other:?}");
        }
        assert_ne!(origin.request_id(1), origin.request_id(2));
    }
}
