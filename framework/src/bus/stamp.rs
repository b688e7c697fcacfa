//! What everything sent carries: who, when, because of what, and within which conversation.

use std::sync::Arc;
use std::time::SystemTime;

use crate::broker::{MAX_PROPERTIES_BYTES, check_size};
use crate::bus::{Identity, Outgoing, SendError, TraceContext};
use crate::message::{Envelope, Kind, MessageId};

/// What a message that is being handled hands on to everything its handler sends: itself as the cause, its conversation,
/// the headers to pass on.
#[derive(Debug, Clone)]
pub struct Origin {
    message: Arc<Envelope>,
    /// The step of the trace in which it is handled.
    pub trace: TraceContext,
    /// Who handles it, the same at every attempt: the ids of its requests follow from it.
    seed: Arc<str>,
    /// How the handler appears in a call path.
    waiter: Arc<str>,
}

impl Origin {
    /// What a delivery hands on. `waiter` is how its handler appears in a call path; the ids of requests follow from
    /// `seed`.
    #[must_use]
    pub fn of(message: Arc<Envelope>, waiter: Arc<str>, seed: Arc<str>) -> Self {
        let trace = message.headers.text(TraceContext::TRACEPARENT).and_then(TraceContext::parse);
        Self { trace: trace.map_or_else(TraceContext::root, TraceContext::child), message, seed, waiter }
    }

    /// The id of a handler's request, counted from 1. It is the same at every attempt that asks the same, and another one when
    /// something else is asked: an answer that comes late is that to its own question.
    #[must_use]
    pub fn request_id(&self, ordinal: u32, request: &Envelope) -> MessageId {
        let id = self.message.id.derived(&self.seed, ordinal);
        match &request.target {
            Some(service) => id.of_content(&format!("{service}:{}", request.key), &request.payload),
            None => id.of_content(request.key.as_str(), &request.payload),
        }
    }

    /// The id of a message that a handler sends without waiting, counted from 1; the same at every attempt, so that whoever
    /// receives it twice can tell.
    #[must_use]
    pub fn sent_id(&self, ordinal: u32) -> MessageId {
        self.message.id.followed_by(&[&self.seed, "sent"], ordinal)
    }
}

/// Completes an outgoing message: stamps it, lets the middleware see it, checks that it may leave.
///
/// # Errors
/// When the sender does not own the event's domain, the middleware refuses, or the headers are too large.
pub(crate) fn stamp(
    outgoing: Outgoing,
    identity: &Identity,
    origin: Option<&Origin>,
) -> Result<Box<Envelope>, SendError> {
    let Outgoing { mut envelope, as_owner, skip_sender, .. } = outgoing;
    envelope.source = Some(identity.service.clone());
    envelope.instance = Some(identity.instance.clone());
    envelope.sent_at = Some(SystemTime::now());
    if skip_sender {
        envelope.skip = Some(identity.service.clone());
    }
    match origin {
        Some(origin) => inherit(&mut envelope, origin, identity),
        None => begin(&mut envelope),
    }
    if envelope.wants_reply() && envelope.kind != Kind::Reply {
        envelope.correlation_id = Some(envelope.id.clone());
    }
    for hook in identity.hooks.iter() {
        hook(&mut envelope).map_err(SendError::Refused)?;
    }
    if envelope.kind == Kind::Event && !as_owner && !identity.owns(envelope.key.domain()) {
        return Err(SendError::NotOwner {
            service: identity.service.to_string(),
            key: envelope.key.to_string(),
            domain: envelope.key.domain().to_owned(),
        });
    }
    match check_size(&envelope) {
        Ok(()) => Ok(envelope),
        Err(bytes) => Err(SendError::HeadersTooLarge { bytes, most: MAX_PROPERTIES_BYTES }),
    }
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
    if envelope.headers.get(TraceContext::TRACEPARENT).is_none() {
        envelope.headers.put(TraceContext::TRACEPARENT, TraceContext::root().header());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::{Key, MediaType, Name};

    #[test]
    fn a_request_has_the_same_id_at_each_attempt_that_asks_the_same_and_another_one_otherwise() {
        let asks = |kind, key: &str, payload: &'static str| {
            Envelope::new(kind, Key::from_wire(key), MediaType::JSON, Bytes::from_static(payload.as_bytes()))
        };
        let handled = Envelope::with_id(
            Kind::Command,
            Key::from_wire("a.b"),
            "the message".into(),
            MediaType::JSON,
            Bytes::new(),
        );
        let origin = Origin::of(handled.into(), "a waiter".into(), "an actor".into());
        let id = |envelope: &Envelope| origin.request_id(1, envelope);
        let first = asks(Kind::Query, "stock.left", "7");
        assert_eq!(id(&first), id(&asks(Kind::Query, "stock.left", "7")));
        let by_name = Envelope { target: Some(Name::from_wire("depot")), ..first.clone() };
        for other in [asks(Kind::Query, "stock.price", "7"), asks(Kind::Query, "stock.left", "8"), by_name] {
            assert_ne!(id(&first), id(&other), "an answer to one would be taken for the other's: {other:?}");
        }
        assert_ne!(id(&first), origin.request_id(2, &first));
    }
}
