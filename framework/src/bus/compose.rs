//! Builds an envelope from a call: encodes the payload, checks it, applies the options. Nothing is sent here.

use std::sync::Arc;
use std::time::Duration;

use postrider_grammar::MAX_DELAY;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::broker::{MAX_EXPIRATION, Names, is_reserved_header};
use crate::bus::{Options, Payload, SendError};
use crate::codec::{self, Limits};
use crate::message::{Contract, Envelope, Headers, Key, Kind, MediaType, Name, Problem, ReplyTo, Status};

/// The longest timeout; a longer one would overflow the clock.
const MAX_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3_600);
/// The most recipients of one message.
const MAX_RECIPIENTS: usize = 64;

/// Looks at every message before it is sent and may change or refuse it.
pub type SendHook = Arc<dyn Fn(&mut Envelope) -> Result<(), Problem> + Send + Sync>;

/// A sender: its service and instance, what it may publish, and how it encodes.
#[derive(Clone)]
pub struct Identity {
    /// The service.
    pub service: Name,
    /// The running instance.
    pub instance: Name,
    /// The domains whose events it may publish.
    pub domains: Arc<[String]>,
    /// The namespace.
    pub names: Names,
    /// The encoding of typed messages if neither call nor contract names one.
    pub media_type: MediaType,
    /// Limits on payloads.
    pub limits: Limits,
    /// The longest delay of the broker; `None` if it delays nothing.
    pub delays: Option<Duration>,
    /// Headers that are copied from the message being handled to everything it sends.
    pub propagate: Arc<[String]>,
    /// Middleware around sending, outermost first.
    pub hooks: Arc<[SendHook]>,
}

impl Identity {
    /// A sender that owns nothing and has every default.
    #[must_use]
    pub fn plain(service: &str, instance: &str) -> Self {
        Self {
            service: Name::from_wire(service),
            instance: Name::from_wire(instance),
            domains: Arc::new([]),
            names: Names::default(),
            media_type: MediaType::MSGPACK,
            limits: Limits::default(),
            delays: Some(MAX_DELAY),
            propagate: Arc::new([]),
            hooks: Arc::new([]),
        }
    }
}

/// A message about to be sent: its envelope, not stamped yet, and the options that only the sender needs.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The envelope, boxed: it is large and is moved often before it leaves.
    pub envelope: Box<Envelope>,
    pub(crate) timeout: Duration,
    pub(crate) cancellation: Option<CancellationToken>,
    pub(crate) as_owner: bool,
    pub(crate) skip_sender: bool,
    pub(crate) explicit_id: bool,
    /// Whether the call itself asks to fire it, not only its contract.
    pub(crate) explicit_fire: bool,
}

/// The address of a call: kind, key and perhaps a service.
pub(crate) struct Address<'a> {
    pub kind: Kind,
    pub key: &'a str,
    pub service: Option<&'a str>,
}

impl Identity {
    pub(crate) fn typed<M: Contract + Serialize>(
        &self,
        message: &M,
        options: Options,
        default_timeout: Duration,
    ) -> Result<Outgoing, SendError> {
        let media_type = options.media_type.clone().or(M::MEDIA_TYPE).unwrap_or_else(|| self.media_type.clone());
        let payload = Payload { encoded: codec::encode_unlimited(message, &media_type), media_type };
        let address = Address { kind: M::KIND, key: M::KEY, service: None };
        let mut options = options;
        options.transient = options.transient.or(M::TRANSIENT.then_some(true));
        options.encoding = options.encoding.or(M::CONTENT_ENCODING);
        let mut outgoing = self.keyed(&address, payload, options, default_timeout)?;
        outgoing.envelope.schema_version = M::SCHEMA_VERSION;
        outgoing.envelope.fire |= M::FIRE;
        Ok(outgoing)
    }

    pub(crate) fn keyed(
        &self,
        address: &Address<'_>,
        payload: Payload,
        options: Options,
        default_timeout: Duration,
    ) -> Result<Outgoing, SendError> {
        let key = Key::new(address.key)?;
        let bytes = payload.encoded?;
        self.limits.check(&bytes, &payload.media_type)?;
        let bytes = match &options.encoding {
            Some(encoding) => codec::compress(&bytes, encoding)?,
            None => bytes,
        };
        let id = options.id.clone().unwrap_or_default();
        let mut envelope = Box::new(Envelope::with_id(address.kind, key, id, payload.media_type, bytes));
        envelope.content_encoding = options.encoding.clone();
        envelope.target = address.service.map(Name::new).transpose()?;
        self.apply(&mut envelope, &options)?;
        let timeout = options.timeout.unwrap_or(default_timeout).min(MAX_TIMEOUT);
        if timeout.is_zero() {
            return Err(zero_timeout());
        }
        Ok(Outgoing {
            envelope,
            timeout,
            cancellation: options.cancellation,
            as_owner: options.as_owner,
            skip_sender: options.skip_sender,
            explicit_id: options.id.is_some(),
            explicit_fire: options.fire,
        })
    }
}

impl Identity {
    fn apply(&self, envelope: &mut Envelope, options: &Options) -> Result<(), SendError> {
        check_headers(&options.headers)?;
        check_recipients(options.recipients.len())?;
        if envelope.target.is_some() && !options.recipients.is_empty() {
            let reason = "the call names its service already; leave the recipients out".into();
            return Err(SendError::Option { option: "recipients", reason });
        }
        envelope.headers = options.headers.clone();
        if let Some(token) = &options.bearer {
            envelope.headers.set(Envelope::AUTHORIZATION, format!("Bearer {}", token.reveal()));
        }
        envelope.recipients = options.recipients.iter().map(|service| Name::new(service)).collect::<Result<_, _>>()?;
        envelope.skip = options.skip.as_deref().map(Name::new).transpose()?;
        envelope.delay = self.checked_delay(options.delay)?;
        envelope.expiration = checked_expiration(options.expiration)?;
        envelope.priority = options.priority;
        envelope.fire = options.fire;
        envelope.transient = options.transient.unwrap_or(envelope.kind == Kind::Query);
        Ok(())
    }

    /// A zero delay becomes `None`. A delay longer than the broker can keep is refused.
    fn checked_delay(&self, delay: Option<Duration>) -> Result<Option<Duration>, SendError> {
        let Some(delay) = delay.filter(|delay| !delay.is_zero()) else { return Ok(None) };
        let refused = |reason| Err(SendError::Option { option: "delay", reason });
        match self.delays.map(|longest| longest.min(MAX_DELAY)) {
            Some(longest) if delay <= longest => Ok(Some(delay)),
            Some(MAX_DELAY) => refused(format!("{delay:?} is too long; a message can be delayed for up to 38 days")),
            Some(longest) => {
                refused(format!("{delay:?} is too long; this broker delays a message for up to {longest:?}"))
            }
            None => refused("this broker delays no messages; send it when it is due".into()),
        }
    }
}

/// Refuses headers that only Postrider writes, and those that make RabbitMQ send copies outside our routing
/// (<https://www.rabbitmq.com/docs/sender-selected>).
fn check_headers(headers: &Headers) -> Result<(), SendError> {
    let refused = |reason: String| Err(SendError::Option { option: "header", reason });
    for (name, _) in headers.iter() {
        if is_reserved_header(name) {
            return refused(format!(
                "{name:?} starts with \"postrider-\", which only Postrider writes; use another name"
            ));
        }
        if name == "CC" || name == "BCC" {
            return refused(format!(
                "{name:?} would make the broker send copies elsewhere; use recipients, or publish an event"
            ));
        }
    }
    Ok(())
}

fn check_recipients(count: usize) -> Result<(), SendError> {
    if count <= MAX_RECIPIENTS {
        return Ok(());
    }
    let reason = format!("{count} recipients are too many; at most {MAX_RECIPIENTS} are allowed");
    Err(SendError::Option { option: "recipients", reason })
}

/// The broker closes the channel over an expiration longer than it accepts.
fn checked_expiration(expiration: Option<Duration>) -> Result<Option<Duration>, SendError> {
    if let Some(long) = expiration.filter(|expiration| *expiration > MAX_EXPIRATION) {
        let reason = format!("{long:?} is too long; a message expires after 49 days at most, or never");
        return Err(SendError::Option { option: "expiration", reason });
    }
    Ok(expiration)
}

/// Turns an outgoing message into a request.
pub(crate) fn as_request(outgoing: &mut Outgoing) -> Result<(), SendError> {
    let envelope = &mut outgoing.envelope;
    if !matches!(envelope.kind, Kind::Command | Kind::Query) {
        let reason = format!("a reply can be awaited for commands and queries, not for {}", envelope.kind);
        return Err(SendError::WrongKind { reason });
    }
    if envelope.recipients.len() > 1 {
        let reason =
            "a request takes one recipient, as one answer is awaited; publish an event to reach several".into();
        return Err(SendError::Option { option: "recipients", reason });
    }
    if envelope.delay.is_some() {
        let reason = "somebody waits for the answer to a request; send it one way to delay it".into();
        return Err(SendError::Option { option: "delay", reason });
    }
    if outgoing.explicit_fire {
        let reason = "somebody waits for the answer to a request; send it one way to fire it".into();
        return Err(SendError::Option { option: "fire", reason });
    }
    envelope.fire = false;
    envelope.reply_to = Some(ReplyTo::Caller);
    if envelope.kind == Kind::Query {
        // A query expires when its caller stops waiting. A command must still be done.
        envelope.timeout = Some(outgoing.timeout);
        let patience = outgoing.timeout.min(MAX_EXPIRATION);
        envelope.expiration = Some(envelope.expiration.map_or(patience, |given| given.min(patience)));
    }
    Ok(())
}

impl Identity {
    /// The reply to a message, addressed to its sender and stamped; `None` if the sender awaits no reply.
    pub(crate) fn reply(&self, request: &Envelope, media_type: MediaType, payload: bytes::Bytes) -> Option<Envelope> {
        let to = request.reply_to.clone()?;
        let mut reply = Envelope::new(Kind::Reply, request.key.clone(), media_type, payload);
        reply.reply_to = Some(to);
        reply.correlation_id = Some(request.reply_id().clone());
        reply.causation_id = Some(request.id.clone());
        reply.conversation_id = Some(request.conversation_id.as_ref().unwrap_or(&request.id).clone());
        (reply.source, reply.instance) = (Some(self.service.clone()), Some(self.instance.clone()));
        reply.status = Some(Status::Ok);
        reply.transient = true;
        Some(reply)
    }

    /// Whether the service may publish events of this domain.
    #[must_use]
    pub fn owns(&self, domain: &str) -> bool {
        self.domains.iter().any(|owned| owned == domain)
    }
}

impl Identity {
    /// Checks an envelope that the caller built, and adds the options that it does not carry.
    pub(crate) fn checked(
        &self,
        envelope: Envelope,
        options: Options,
        default_timeout: Duration,
    ) -> Result<Outgoing, SendError> {
        Key::new(envelope.key.as_str())?;
        check_headers(&envelope.headers)?;
        check_recipients(envelope.recipients.len())?;
        match envelope.content_encoding {
            None => self.limits.check(&envelope.payload, &envelope.media_type)?,
            Some(_) => self.limits.check_size(&envelope.payload)?,
        }
        if envelope.kind == Kind::Channel && envelope.target.is_none() {
            return Err(SendError::WrongKind {
                reason: "a channel message needs the service it is for in `target`".into(),
            });
        }
        let fired = envelope.fire;
        let mut envelope = Box::new(envelope);
        // `foreign` belongs to the message that a foreign sender wrote, not to this one.
        envelope.foreign = None;
        envelope.delay = self.checked_delay(envelope.delay)?;
        envelope.expiration = checked_expiration(envelope.expiration)?;
        if envelope.delay.is_some() && matches!(envelope.kind, Kind::Reply | Kind::Query) {
            let reason = format!("a {} is not delayed: somebody waits", envelope.kind);
            return Err(SendError::Option { option: "delay", reason });
        }
        if envelope.kind == Kind::Reply && !matches!(envelope.reply_to, Some(ReplyTo::Queue(_))) {
            return Err(SendError::WrongKind {
                reason: "a reply needs the queue of whoever waits in `reply_to`".into(),
            });
        }
        let timeout = options.timeout.unwrap_or(default_timeout).min(MAX_TIMEOUT);
        if timeout.is_zero() {
            return Err(zero_timeout());
        }
        Ok(Outgoing {
            envelope,
            timeout,
            cancellation: options.cancellation,
            as_owner: options.as_owner,
            skip_sender: options.skip_sender,
            explicit_id: true,
            explicit_fire: fired,
        })
    }
}

fn zero_timeout() -> SendError {
    let reason = "zero would give up before it begins; leave it out for the default".into();
    SendError::Option { option: "timeout", reason }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn any_times_are_ones_that_broker_and_clock_can_count_or_refused(
            timeout in prop::option::of(any::<Duration>()), delay in prop::option::of(any::<Duration>()),
            expiration in prop::option::of(prop_oneof![any::<Duration>(), (0..10_000_000_000_u64).prop_map(Duration::from_millis)]),
            query in any::<bool>(),
        ) {
            let identity = Identity::plain("orders", "i1");
            let kind = if query { Kind::Query } else { Kind::Command };
            let address = Address { kind, key: "invoice.create", service: None };
            let options = Options { timeout, delay, expiration, ..Options::default() };
            let fits = expiration.is_none_or(|expiration| expiration <= MAX_EXPIRATION)
                && delay.is_none_or(|delay| delay <= MAX_DELAY)
                && timeout.is_none_or(|timeout| !timeout.is_zero());
            let composed = identity.keyed(&address, Payload::json(&()), options, Duration::from_secs(30));
            prop_assert_eq!(composed.is_ok(), fits);
            if let Ok(mut outgoing) = composed {
                prop_assert!(outgoing.timeout <= MAX_TIMEOUT);
                if as_request(&mut outgoing).is_ok() {
                    let left = outgoing.envelope.expiration;
                    prop_assert!(left.is_some() || !query, "nobody waits for ever");
                    prop_assert!(left.is_none_or(|left| left <= MAX_EXPIRATION));
                }
            }
        }
    }
}
