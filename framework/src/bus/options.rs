//! Options of one call.

use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use crate::message::{ContentEncoding, Headers, MediaType, MessageId, Secret, Value};

/// The options of a call, beside key and payload: `bus.send_with(&cmd, |o| o.priority(5).header("tenant", "acme"))`.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Options {
    pub(crate) timeout: Option<Duration>,
    pub(crate) delay: Option<Duration>,
    pub(crate) expiration: Option<Duration>,
    pub(crate) priority: Option<u8>,
    pub(crate) headers: Headers,
    pub(crate) recipients: Vec<String>,
    pub(crate) skip_sender: bool,
    pub(crate) skip: Option<String>,
    pub(crate) id: Option<MessageId>,
    pub(crate) media_type: Option<MediaType>,
    pub(crate) encoding: Option<ContentEncoding>,
    pub(crate) transient: Option<bool>,
    pub(crate) fire: bool,
    pub(crate) cancellation: Option<CancellationToken>,
    pub(crate) bearer: Option<Secret>,
    pub(crate) as_owner: bool,
}

impl Options {
    /// The default for held messages. It has no effect: they are sent with the actor's confirm timeout.
    pub(crate) const UNUSED_TIMEOUT: Duration = Duration::from_secs(30);

    /// How long to wait for the broker and, with a request, for the answer. Default: 30 s. Zero is refused.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long the broker keeps the message before it routes it: up to 38 days. It is never early and at most a tenth of a
    /// second late, and it holds up no other message. Messages that its handler sends are not delayed. A request cannot be
    /// delayed. If no service takes the message when it is due, the sender is not told: the message is tried again, and
    /// dead-lettered in the end.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// The time at which the message is routed, as [`Options::delay`]. A time in the past means now.
    pub fn deliver_at(self, time: SystemTime) -> Self {
        let delay = time.duration_since(SystemTime::now()).unwrap_or_default();
        self.delay(delay)
    }

    /// How long the message may wait in a queue. Default: for ever; for a query, as long as its caller waits.
    pub fn expiration(mut self, expiration: Duration) -> Self {
        self.expiration = Some(expiration);
        self
    }

    /// 0 to 255. What it does depends on the queue; see `docs/wire.md`.
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Adds a header. Names that start with `postrider-` are refused.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.headers.set(name, value);
        self
    }

    /// Only these services may handle it. A command or query goes to each by name; a request takes one at most.
    pub fn recipients<S: Into<String>>(mut self, services: impl IntoIterator<Item = S>) -> Self {
        self.recipients.extend(services.into_iter().map(Into::into));
        self
    }

    /// The sender does not handle it: on shared queues its service, on instance queues its instance.
    pub fn skip_sender(mut self) -> Self {
        self.skip_sender = true;
        self
    }

    /// This service does not handle it.
    pub fn skip(mut self, service: impl Into<String>) -> Self {
        self.skip = Some(service.into());
        self
    }

    /// The message's id. A message sent again with the same id is the same message.
    pub fn id(mut self, id: impl Into<MessageId>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// How a typed message is encoded. Default: the contract's media type, else the app's.
    pub fn media_type(mut self, media_type: MediaType) -> Self {
        self.media_type = Some(media_type);
        self
    }

    /// How the payload is compressed. Default: what the message's contract says, or not at all. A receiver that cannot read it
    /// dead-letters the message.
    pub fn encoding(mut self, encoding: ContentEncoding) -> Self {
        self.encoding = Some(encoding);
        self
    }

    /// Whether a broker restart may lose it. Default: what the contract says; queries may always be lost.
    pub fn transient(mut self, transient: bool) -> Self {
        self.transient = Some(transient);
        self
    }

    /// Fires the message: it costs less to send and carries less. It has its id, its encoding and what this call sets, but
    /// neither sender nor time. If no service takes it, the broker drops it and nobody is told; with a delay it becomes a dead
    /// letter then, as any delayed message. The broker still confirms it, so that none is lost on the way there. Default: what the contract says. A request cannot be fired, because the caller waits
    /// for it.
    pub fn fire(mut self) -> Self {
        self.fire = true;
        self
    }

    /// Cancels the call. A message that is not yet on a channel never leaves, even after a reconnect. Otherwise the call stops
    /// waiting, and the message is not sent again.
    pub fn cancellation(mut self, token: CancellationToken) -> Self {
        self.cancellation = Some(token);
        self
    }

    /// The bearer token that proves who sends.
    pub fn bearer(mut self, token: Secret) -> Self {
        self.bearer = Some(token);
        self
    }

    /// Publishes an event of a domain that the sender does not own.
    pub fn as_owner(mut self) -> Self {
        self.as_owner = true;
        self
    }
}
