//! What everything sent carries: who, when, because of what, and within which conversation.

use std::time::SystemTime;

use crate::broker::{MAX_PROPERTIES_BYTES, check_size};
use crate::bus::{Identity, Outgoing, SendError, TraceContext};
use crate::message::{Envelope, Headers, Kind, MessageId};

/// What a message that is being handled hands on to everything its handler sends.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The message itself.
    pub causation_id: MessageId,
    /// Its conversation.
    pub conversation_id: MessageId,
    /// The step of the trace in which it is handled.
    pub trace: TraceContext,
    /// Headers to pass on, those of the trace's vendor included.
    pub headers: Headers,
    /// Who handles it, the same at every attempt: the ids of its requests follow from it.
    pub seed: String,
    /// Everybody who waits for its answer, the handler last.
    pub call_path: Vec<String>,
}

impl Origin {
    /// What a delivery hands on. `waiter` is how the handler appears in a call path.
    #[must_use]
    pub fn of(envelope: &Envelope, identity: &Identity, waiter: String) -> Self {
        let trace = envelope.headers.text(TraceContext::TRACEPARENT).and_then(TraceContext::parse);
        let passed_on = |name: &str| name == TraceContext::TRACESTATE || identity.propagate.iter().any(|p| p == name);
        let headers = envelope.headers.only(passed_on);
        let mut call_path = envelope.call_path.clone();
        call_path.push(waiter.clone());
        Self {
            causation_id: envelope.id.clone(),
            conversation_id: envelope.conversation_id.clone().unwrap_or_else(|| envelope.id.clone()),
            trace: trace.map_or_else(TraceContext::root, TraceContext::child),
            headers,
            seed: waiter,
            call_path,
        }
    }
}

/// Completes an outgoing message: stamps it, lets the middleware see it, checks that it may leave.
///
/// # Errors
/// When the sender does not own the event's domain, the middleware refuses, or the headers are too large.
pub(crate) fn stamp(outgoing: Outgoing, identity: &Identity, origin: Option<&Origin>) -> Result<Envelope, SendError> {
    let Outgoing { mut envelope, as_owner, skip_sender, .. } = outgoing;
    envelope.source = Some(identity.service.clone());
    envelope.instance = Some(identity.instance.clone());
    envelope.sent_at = Some(SystemTime::now());
    if skip_sender {
        envelope.skip = Some(identity.service.clone());
    }
    match origin {
        Some(origin) => inherit(&mut envelope, origin),
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

fn inherit(envelope: &mut Envelope, origin: &Origin) {
    envelope.causation_id = Some(origin.causation_id.clone());
    envelope.conversation_id = Some(origin.conversation_id.clone());
    for (name, value) in origin.headers.iter() {
        if envelope.headers.get(name).is_none() {
            envelope.headers.set(name, value.clone());
        }
    }
    envelope.headers.put(TraceContext::TRACEPARENT, origin.trace.to_string().into());
    if envelope.wants_reply() && envelope.kind != Kind::Reply {
        envelope.call_path = origin.call_path.clone();
    }
}

fn begin(envelope: &mut Envelope) {
    if envelope.conversation_id.is_none() {
        envelope.conversation_id = Some(envelope.id.clone());
    }
    if envelope.headers.get(TraceContext::TRACEPARENT).is_none() {
        envelope.headers.put(TraceContext::TRACEPARENT, TraceContext::root().to_string().into());
    }
}
