//! `Bus` sends messages from outside handlers.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::broker::{Broker, BrokerError};
use crate::bus::compose::{Address, as_request};
use crate::bus::one_way_calls::{defaults, one_way_calls};
use crate::bus::stamp::stamp;
use crate::bus::{
    HeldLimits, Identity, Options, Origin, Outgoing, Outlet, Payload, RequestError, SendError, Tap, TapFilter,
};
use crate::codec;
use crate::message::{Command, Contract, Envelope, Event, Kind, MessageId, ReplyTo, Request};
use crate::store::StoreHandle;

/// Sends messages, from any thread. A call completes when the broker has accepted the message. It fails with a typed error within
/// its timeout (default 30 s).
///
/// Every call has a twin that ends in `_with` and takes [`Options`]:
/// `bus.publish_with(&event, |o| o.header("tenant", "acme"))`.
///
/// Dropping a call's future, or [`Options::cancellation`], stops waiting. A message that is not yet on a channel to the broker
/// never leaves, and none is sent again.
#[derive(Clone)]
pub struct Bus {
    pub(crate) outlet: Arc<Outlet>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) broker: Arc<dyn Broker>,
    /// The service's store.
    pub(super) store: Option<StoreHandle>,
    /// Limits on what a transaction holds.
    pub(super) held_limits: HeldLimits,
}

impl Bus {
    /// A bus that sends as `identity` through `outlet`.
    #[must_use]
    pub fn new(outlet: Arc<Outlet>, identity: Arc<Identity>, broker: Arc<dyn Broker>) -> Self {
        Self { outlet, identity, broker, store: None, held_limits: HeldLimits::default() }
    }

    /// The same bus for a service with this store, and these limits on what a transaction holds.
    #[must_use]
    pub fn with_store(self, store: Option<StoreHandle>, held_limits: HeldLimits) -> Self {
        Self { store, held_limits, ..self }
    }

    /// Sends a command to its owner.
    ///
    /// # Errors
    /// [`SendError`]; `Unroutable` when no service handles it, `WrongKind` when its key is a query.
    pub async fn send<M: Command + Serialize>(&self, command: &M) -> Result<MessageId, SendError> {
        self.send_with(command, defaults).await
    }

    /// [`Bus::send`] with options.
    ///
    /// # Errors
    /// As [`Bus::send`].
    pub async fn send_with<M: Command + Serialize>(
        &self,
        command: &M,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<MessageId, SendError> {
        self.typed(command, options).await
    }

    /// Publishes an event to its subscribers, however many there are.
    ///
    /// # Errors
    /// [`SendError`]; `NotOwner` when this service does not own the event's domain.
    pub async fn publish<M: Event + Serialize>(&self, event: &M) -> Result<MessageId, SendError> {
        self.publish_with(event, defaults).await
    }

    /// [`Bus::publish`] with options.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn publish_with<M: Event + Serialize>(
        &self,
        event: &M,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<MessageId, SendError> {
        self.typed(event, options).await
    }

    one_way_calls!("Bus", ".", async await);

    /// Sends a command or query and waits for its answer.
    ///
    /// # Errors
    /// [`RequestError`].
    pub async fn request<M>(&self, message: &M) -> Result<M::Reply, RequestError>
    where
        M: Request + Serialize,
        M::Reply: DeserializeOwned,
    {
        self.request_with(message, defaults).await
    }

    /// [`Bus::request`] with options.
    ///
    /// # Errors
    /// As [`Bus::request`].
    pub async fn request_with<M>(
        &self,
        message: &M,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<M::Reply, RequestError>
    where
        M: Request + Serialize,
        M::Reply: DeserializeOwned,
    {
        let outgoing = self.identity.typed(message, options(Options::default()), self.request_timeout())?;
        self.decode(self.await_reply(outgoing, None).await?)
    }

    /// Sends a request by its key: as a query if a service handles such a query, else as a command.
    ///
    /// # Errors
    /// As [`Bus::request`].
    pub async fn request_key<R: DeserializeOwned>(&self, key: &str, payload: Payload) -> Result<R, RequestError> {
        self.request_key_with(key, payload, defaults).await
    }

    /// [`Bus::request_key`] with options.
    ///
    /// # Errors
    /// As [`Bus::request`].
    pub async fn request_key_with<R: DeserializeOwned>(
        &self,
        key: &str,
        payload: Payload,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<R, RequestError> {
        self.decode(self.request_raw(key, payload, options, None).await?)
    }

    /// Sends any envelope. If its `reply_to` is [`ReplyTo::Caller`], the call waits for the reply; otherwise the message goes one
    /// way.
    ///
    /// # Errors
    /// [`RequestError`]; `WrongKind` when a reply is asked for something that cannot be answered.
    pub async fn dispatch(&self, envelope: Envelope) -> Result<Option<Envelope>, RequestError> {
        self.dispatch_with(envelope, defaults).await
    }

    /// [`Bus::dispatch`] with options. Only timeout, cancellation, skipping the sender and `as_owner` apply here; the envelope
    /// carries the rest.
    ///
    /// # Errors
    /// As [`Bus::dispatch`].
    pub async fn dispatch_with(
        &self,
        envelope: Envelope,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<Option<Envelope>, RequestError> {
        let options = options(Options::default());
        let mut outgoing = self.identity.checked(envelope, options, self.confirm_timeout())?;
        if outgoing.envelope.reply_to == Some(ReplyTo::Caller) {
            as_request(&mut outgoing)?;
            return self.await_reply(outgoing, None).await.map(Some);
        }
        self.finish(outgoing).await?;
        Ok(None)
    }

    /// Opens a wire tap, which receives copies of messages. Their receivers still get them.
    ///
    /// # Errors
    /// When the broker cannot be reached.
    pub async fn tap(&self, filter: TapFilter) -> Result<Tap, BrokerError> {
        Tap::open(&*self.broker, &self.identity.names, filter).await
    }

    pub(crate) async fn request_raw(
        &self,
        key: &str,
        payload: Payload,
        options: impl FnOnce(Options) -> Options,
        origin: Option<(&Origin, u32)>,
    ) -> Result<Envelope, RequestError> {
        let mut options = options(Options::default());
        // A single recipient becomes the target service. `as_request` refuses more than one.
        let service = if options.recipients.len() == 1 { options.recipients.pop() } else { None };
        let compose = |kind| {
            let address = Address { kind, key, service: service.as_deref() };
            self.identity.keyed(&address, payload.clone(), options.clone(), self.request_timeout())
        };
        let query = compose(Kind::Query)?;
        // The query and the command share one timeout.
        let deadline = Instant::now() + query.timeout;
        let query = self.await_reply_until(query, origin, deadline).await;
        match query {
            // No service handles such a query, so try the command of this key.
            Err(RequestError::Send(SendError::Unroutable { .. })) => {
                self.await_reply_until(compose(Kind::Command)?, origin, deadline).await
            }
            other => other,
        }
    }

    pub(crate) async fn await_reply(
        &self,
        outgoing: Outgoing,
        origin: Option<(&Origin, u32)>,
    ) -> Result<Envelope, RequestError> {
        let deadline = Instant::now() + outgoing.timeout;
        self.await_reply_until(outgoing, origin, deadline).await
    }

    async fn await_reply_until(
        &self,
        mut outgoing: Outgoing,
        origin: Option<(&Origin, u32)>,
        deadline: Instant,
    ) -> Result<Envelope, RequestError> {
        as_request(&mut outgoing)?;
        if let Some((origin, ordinal)) = origin.filter(|_| !outgoing.explicit_id) {
            outgoing.envelope.id = origin.request_id(ordinal);
            outgoing.envelope.correlation_id = Some(Origin::correlation_id(&outgoing.envelope));
        }
        let (patience, cancellation) = (outgoing.timeout, outgoing.cancellation.clone());
        let envelope = stamp(outgoing, &self.identity, origin.map(|(origin, _)| origin))?;
        let Some(token) = cancellation else { return self.outlet.request(envelope, patience, deadline).await };
        if token.is_cancelled() {
            return Err(RequestError::Cancelled);
        }
        tokio::select! {
            () = token.cancelled() => Err(RequestError::Cancelled),
            reply = self.outlet.request(envelope, patience, deadline) => reply,
        }
    }

    pub(crate) fn decode<R: DeserializeOwned>(&self, reply: Envelope) -> Result<R, RequestError> {
        codec::decode_content(&reply, &self.identity.limits)
            .map_err(|error| RequestError::Decode { key: reply.key.to_string(), error })
    }

    pub(crate) fn confirm_timeout(&self) -> std::time::Duration {
        self.outlet.settings.confirm_timeout
    }

    pub(crate) fn request_timeout(&self) -> std::time::Duration {
        self.outlet.settings.request_timeout
    }

    async fn typed<M: Contract + Serialize>(
        &self,
        message: &M,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<MessageId, SendError> {
        self.finish(self.identity.typed(message, options(Options::default()), self.confirm_timeout())?).await
    }

    async fn by_key(
        &self,
        address: Address<'_>,
        payload: Payload,
        options: impl FnOnce(Options) -> Options,
    ) -> Result<MessageId, SendError> {
        self.finish(self.identity.keyed(&address, payload, options(Options::default()), self.confirm_timeout())?).await
    }

    async fn finish(&self, outgoing: Outgoing) -> Result<MessageId, SendError> {
        let (patience, cancellation) = (outgoing.timeout, outgoing.cancellation.clone());
        let envelope = stamp(outgoing, &self.identity, None)?;
        let id = envelope.id.clone();
        if cancellation.as_ref().is_some_and(tokio_util::sync::CancellationToken::is_cancelled) {
            return Err(SendError::Cancelled);
        }
        let deadline = Instant::now() + patience;
        let published = self.outlet.publish(envelope, deadline);
        let published = match cancellation {
            None => published.await,
            Some(token) => tokio::select! {
                () = token.cancelled() => return Err(SendError::Cancelled),
                published = published => published,
            },
        };
        match published {
            Ok(()) => Ok(id),
            Err(error) => Err(self.outlet.explained(error, deadline).await),
        }
    }
}
