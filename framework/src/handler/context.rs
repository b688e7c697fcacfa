//! `Context` gives a handler its message, and the calls to send and ask because of it.

use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::bus::one_way_calls::{defaults, one_way_calls};
use crate::bus::{Address, Options, Outgoing, Payload, RequestError, SendError, stamp};
use crate::codec::{self, Limits};
use crate::handler::Work;
use crate::message::{
    Command, ContentEncoding, Contract, Envelope, Event, Headers, Key, Kind, MediaType, MessageId, Name, ReplyTo,
    Request, Value,
};

/// The message being handled, and the calls to send because of it. Messages sent here are held and leave only if the handler
/// succeeds; requests are sent at once. A message that cannot be encoded, or may not be sent, is an error at once. Errors on the
/// way to the broker appear after the handler has ended; docs/guarantees.md says what happens then.
///
/// Every sending call has a twin that ends in `_with` and takes [`Options`].
#[derive(Clone)]
pub struct Context {
    pub(super) envelope: Arc<Envelope>,
    pub(super) work: Rc<Work>,
}

impl Context {
    /// Sends a command to its owner.
    ///
    /// # Errors
    /// [`SendError`]; `Unroutable` when no service handles it, `WrongKind` when its key is a query. Both are found when it
    /// leaves, after the handler.
    pub fn send<M: Command + Serialize>(&self, command: &M) -> Result<MessageId, SendError> {
        self.send_with(command, defaults)
    }

    /// [`Context::send`] with options.
    ///
    /// # Errors
    /// As [`Context::send`].
    pub fn send_with<M: Command + Serialize>(
        &self,
        command: &M,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<MessageId, SendError> {
        self.typed(command, options)
    }

    /// Publishes an event to its subscribers, however many there are.
    ///
    /// # Errors
    /// [`SendError`]; `NotOwner` when this service does not own the event's domain.
    pub fn publish<M: Event + Serialize>(&self, event: &M) -> Result<MessageId, SendError> {
        self.publish_with(event, defaults)
    }

    /// [`Context::publish`] with options.
    ///
    /// # Errors
    /// As [`Context::publish`].
    pub fn publish_with<M: Event + Serialize>(
        &self,
        event: &M,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<MessageId, SendError> {
        self.typed(event, options)
    }

    one_way_calls!("Context", ". Both are found when it leaves, after the handler.");

    /// Sends any one-way envelope. It keeps its id: give it one that is the same at every attempt, such as
    /// `cx.id().derived("reminder", 1)`, so that a receiver recognizes it when this handler runs again.
    ///
    /// # Errors
    /// As [`Context::send`]; `WrongKind` when the envelope asks for a reply: use `request` for that.
    pub fn dispatch(&self, envelope: Envelope) -> Result<MessageId, SendError> {
        self.dispatch_with(envelope, defaults)
    }

    /// [`Context::dispatch`] with options. Only skipping the sender, cancellation and `as_owner` apply here; the envelope carries
    /// the rest.
    ///
    /// # Errors
    /// As [`Context::dispatch`].
    pub fn dispatch_with(
        &self,
        envelope: Envelope,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<MessageId, SendError> {
        if envelope.reply_to == Some(ReplyTo::Caller) {
            let reason = "what a handler dispatches is held, so nobody could wait for its reply; use `request`".into();
            return Err(SendError::WrongKind { reason });
        }
        self.hold(self.work.identity().checked(envelope, options(Options::default()), Options::UNUSED_TIMEOUT)?)
    }

    /// Sends a command or query at once and waits for its answer. A retry of this handler repeats the request with
    /// the same id.
    ///
    /// # Errors
    /// [`RequestError`]; `WouldWaitForItself` when only a handler that waits for this one could answer.
    pub async fn request<M>(&self, message: &M) -> Result<M::Reply, RequestError>
    where
        M: Request + Serialize,
        M::Reply: DeserializeOwned,
    {
        self.request_with(message, defaults).await
    }

    /// [`Context::request`] with options.
    ///
    /// # Errors
    /// As [`Context::request`].
    pub async fn request_with<M>(
        &self,
        message: &M,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<M::Reply, RequestError>
    where
        M: Request + Serialize,
        M::Reply: DeserializeOwned,
    {
        let Some(bus) = &self.work.environment.bus else { return self.canned(M::KIND, M::KEY) };
        let outgoing = bus.identity.typed(message, options(Options::default()), bus.request_timeout())?;
        let Envelope { key, recipients, .. } = &*outgoing.envelope;
        let key = key.clone();
        let waits = self.work.ask(bus, &[M::KIND], (key.as_str(), recipients.first().map(Name::as_str))).await?;
        let answer = bus.await_reply(outgoing, Some((self.work.origin(), self.next_ordinal())));
        bus.decode(self.work.answer(bus, (&waits, key.as_str()), answer).await?)
    }

    /// Sends a request by its key at once and waits for its answer. It is a query if a service handles such a query, else a
    /// command.
    ///
    /// # Errors
    /// As [`Context::request`].
    pub async fn request_key<R: DeserializeOwned>(&self, key: &str, payload: Payload) -> Result<R, RequestError> {
        self.request_key_with(key, payload, defaults).await
    }

    /// [`Context::request_key`] with options.
    ///
    /// # Errors
    /// As [`Context::request`].
    pub async fn request_key_with<R: DeserializeOwned>(
        &self,
        key: &str,
        payload: Payload,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<R, RequestError> {
        let Some(bus) = &self.work.environment.bus else { return self.canned(Kind::Query, key) };
        let options = options(Options::default());
        let service = options.recipients.first().map(String::as_str);
        // In the order of the request itself: a query first, then a command.
        let waits = self.work.ask(bus, &[Kind::Query, Kind::Command], (key, service)).await?;
        let origin = Some((self.work.origin(), self.next_ordinal()));
        let answer = bus.request_raw(key, payload, |_| options, origin);
        bus.decode(self.work.answer(bus, (&waits, key), answer).await?)
    }

    /// The message's id.
    #[must_use]
    pub fn id(&self) -> &MessageId {
        &self.envelope.id
    }

    /// The message's key: for a handler with wildcards, the one that matched.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.envelope.key
    }

    /// The content type of the payload.
    #[must_use]
    pub fn media_type(&self) -> &MediaType {
        &self.envelope.media_type
    }

    /// How the payload was compressed. The handler's parameter is the decompressed payload, if Postrider knows the encoding.
    #[must_use]
    pub fn content_encoding(&self) -> Option<&ContentEncoding> {
        self.envelope.content_encoding.as_ref()
    }

    /// The `type` that a foreign sender gave the message, if that is not its key.
    #[must_use]
    pub fn message_type(&self) -> Option<&str> {
        self.envelope.message_type.as_deref()
    }

    /// The whole envelope of the message.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The user's headers.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.envelope.headers
    }

    /// One header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&Value> {
        self.envelope.headers.get(name)
    }

    /// One header, if it is text.
    #[must_use]
    pub fn header_text(&self, name: &str) -> Option<&str> {
        self.envelope.headers.text(name)
    }

    /// Which attempt this is, counted from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.envelope.attempt
    }

    /// The service that sent the message, if it said.
    #[must_use]
    pub fn sender(&self) -> Option<&Name> {
        self.envelope.source.as_ref()
    }

    /// Fires when this attempt is to end: the app drops running handlers because it stops, or the channel of an ordered actor has
    /// closed.
    #[must_use]
    pub fn cancellation(&self) -> CancellationToken {
        self.work.cancellation()
    }

    /// Asks the process to stop in an orderly way after this handler.
    pub fn stop_app(&self) {
        self.work.environment.stop_app.cancel();
    }

    fn typed<M: Contract + Serialize>(
        &self,
        message: &M,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<MessageId, SendError> {
        let options = self.held(options(Options::default()));
        self.hold(self.work.identity().typed(message, options, Options::UNUSED_TIMEOUT)?)
    }

    fn by_key(
        &self,
        address: Address<'_>,
        payload: Payload,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<MessageId, SendError> {
        let options = self.held(options(Options::default()));
        self.hold(self.work.identity().keyed(&address, payload, options, Options::UNUSED_TIMEOUT)?)
    }

    /// The options of a held message. Its id is derived from the message being handled, unless the handler gives one.
    fn held(&self, mut options: Options) -> Options {
        let ordinal = self.work.sent.get() + 1;
        self.work.sent.set(ordinal);
        options.id.get_or_insert_with(|| self.work.origin().sent_id(ordinal));
        options
    }

    fn hold(&self, mut outgoing: Outgoing) -> Result<MessageId, SendError> {
        // A handler in a unit test has no service; it may publish anything.
        outgoing.as_owner |= self.work.environment.bus.is_none();
        if outgoing.cancellation.as_ref().is_some_and(CancellationToken::is_cancelled) {
            return Err(SendError::Cancelled);
        }
        let envelope = stamp(outgoing, self.work.identity(), Some(self.work.origin()))?;
        let id = envelope.id.clone();
        self.work.held.borrow_mut().push(envelope, self.work.environment.held)?;
        Ok(id)
    }

    fn next_ordinal(&self) -> u32 {
        let ordinal = self.work.requests.get() + 1;
        self.work.requests.set(ordinal);
        ordinal
    }

    fn canned<R: DeserializeOwned>(&self, kind: Kind, key: &str) -> Result<R, RequestError> {
        let answers = self.work.answers.borrow();
        let Some((media_type, bytes)) = answers.get(key) else {
            return Err(SendError::Unroutable { kind, key: key.to_owned(), id: self.id().clone() }.into());
        };
        codec::decode(bytes, media_type, &Limits::default())
            .map_err(|error| RequestError::Decode { key: key.to_owned(), error })
    }
}
