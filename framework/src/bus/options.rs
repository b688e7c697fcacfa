//! Options of one call.

use std::time::{Duration, SystemTime};

use tokio_util::sync::CancellationToken;

use crate::message::{ContentEncoding, Headers, MediaType, MessageId, Secret, Value};

/// What a call may say beside key and payload: `bus.send_with(&cmd, |o| o.priority(5).header("tenant", "acme"))`.
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
    /// The default for messages that are held: they leave with the time-out of the handler's outlet.
    pub(crate) const UNUSED_TIMEOUT: Duration = Duration::from_secs(30);

    /// How long to wait for the broker and, with a request, for the answer. Default: 30 s. Zero is refused.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long the broker keeps the message before it is routed: up to 38 days, never shorter than said and at most a
    /// tenth of a second longer, without holding up others. What its handler sends is not delayed. A request cannot be.
    /// If no service takes it when it is due, the sender is not told: it is tried again, and dead-lettered in the end.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// When the message is routed, as [`Options::delay`]. A time that has passed is now.
    pub fn deliver_at(self, time: SystemTime) -> Self {
        let delay = time.duration_since(SystemTime::now()).unwrap_or_default();
        self.delay(delay)
    }

    /// How long the message may wait in a queue. Default: for ever; a query as long as its caller waits.
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

    /// The sender does not handle it itself: its service on shared queues, its instance on instance queues.
    pub fn skip_sender(mut self) -> Self {
        self.skip_sender = true;
        self
    }

    /// This service does not handle it.
    pub fn skip(mut self, service: impl Into<String>) -> Self {
        self.skip = Some(service.into());
        self
    }

    /// The message's id, so that sending it again is the same message.
    pub fn id(mut self, id: impl Into<MessageId>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// How a typed message is encoded. Default: what its contract says, then what the app says.
    pub fn media_type(mut self, media_type: MediaType) -> Self {
        self.media_type = Some(media_type);
        self
    }

    /// How the payload is compressed. Default: what the message's contract says, or not at all. What its receiver cannot read
    /// becomes a dead letter there.
    pub fn encoding(mut self, encoding: ContentEncoding) -> Self {
        self.encoding = Some(encoding);
        self
    }

    /// Whether a broker restart may lose it. Default: what the contract says; queries always.
    pub fn transient(mut self, transient: bool) -> Self {
        self.transient = Some(transient);
        self
    }

    /// Fires the message: it costs less to send, and says less. It carries its id, its encoding and what this call says, and nothing of
    /// who sends it and when; where no service takes it the broker drops it, and nobody is told. It is confirmed like any other, so that
    /// none is lost on its way to the broker. Default: what the contract says. A request cannot be fired, because somebody waits for it.
    pub fn fire(mut self) -> Self {
        self.fire = true;
        self
    }

    /// Cancels the call: before it is put on a channel nothing leaves, whenever the channel comes back; afterwards nobody waits any
    /// more, and it is not sent again.
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
