use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::future::BoxFuture;
use once_cell::sync::Lazy;
use tokio::sync::{Mutex as FairMutex, watch};
use tokio::time::Instant;

use crate::adapter::amqp::{Delays, Routed};
use crate::adapter::in_process::connection::Connection;
use crate::adapter::in_process::publishing_channel::PublishingChannel;
use crate::broker::{
    Addressed, BrokerError, Publication, Publisher, ReplyEvent, ReplySink, To, is_of_earlier_attempts,
};
use crate::message::ReplyTo;

const REPLY_PREFIX: &str = "in-process.reply.";

/// Everybody in this process who waits for replies, by address. The key is the number of the publisher, unique in the
/// process, so that apps on different in-process brokers do not meet.
type Waiting = Mutex<HashMap<String, (Weak<()>, ReplySink)>>;

static WAITING: Lazy<Waiting> = Lazy::new(Waiting::default);

/// The reply addresses of one session.
#[derive(Default)]
pub(super) struct Replies {
    addresses: Mutex<Vec<(String, Arc<()>)>>,
}

impl Replies {
    pub(super) fn register(&self, number: u64, sink: ReplySink) -> String {
        let token = Arc::new(());
        let address = format!("{REPLY_PREFIX}{number}.{:p}", Arc::as_ptr(&token));
        WAITING.lock().unwrap_or_else(PoisonError::into_inner).insert(address.clone(), (Arc::downgrade(&token), sink));
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner).push((address.clone(), token));
        address
    }

    /// Those who wait for a reply will not get it; new requests may come.
    pub(super) fn interrupt(&self) {
        let addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (address, _) in addresses {
            Self::interrupt_at(&address);
        }
    }

    /// Those who wait for a reply at one address will not get it.
    pub(super) fn interrupt_at(address: &str) {
        let waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
        let sink = waiting.get(address).map(|(_, sink)| Arc::clone(sink));
        drop(waiting);
        if let Some(sink) = sink {
            sink(ReplyEvent::Lost);
        }
    }

    pub(super) fn lose_all(&self) {
        let addresses = std::mem::take(&mut *self.addresses.lock().unwrap_or_else(PoisonError::into_inner));
        for (address, _) in addresses {
            let sink = WAITING.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
            if let Some((_, sink)) = sink {
                sink(ReplyEvent::Lost);
            }
        }
    }
}

pub(super) struct InProcessPublisher {
    channel: Arc<PublishingChannel>,
    delays: Arc<Delays>,
    replies: ReplySink,
}

impl InProcessPublisher {
    pub(super) fn new(connection: Arc<Connection>, delays: Arc<Delays>, address: String, replies: ReplySink) -> Self {
        let ends = watch::channel(0).0;
        let (address, entrance) = (address.into(), FairMutex::default());
        Self { channel: Arc::new(PublishingChannel { connection, address, ends, entrance }), delays, replies }
    }
}

impl Publisher for InProcessPublisher {
    fn publish(
        &self,
        mut message: Addressed,
        deadline: Instant,
    ) -> BoxFuture<'static, Result<Publication, BrokerError>> {
        let channel = Arc::clone(&self.channel);
        let mut replies = None;
        if message.awaits_reply() {
            Arc::make_mut(&mut message.envelope).reply_to = Some(ReplyTo::Queue(Arc::clone(&channel.address)));
            replies = Some(Arc::clone(&self.replies));
        }
        as_it_arrives(&mut message);
        if message.delay.is_some() {
            let delays = Arc::clone(&self.delays);
            let publish = move |routed| {
                let channel = Arc::clone(&channel);
                Box::pin(async move { channel.publish(routed, deadline).await }) as BoxFuture<'static, _>
            };
            return Box::pin(async move { delays.publish(message, deadline, publish).await });
        }
        let message = Routed::of(message, &channel.connection.names);
        Box::pin(async move {
            if let Some(replies) = replies {
                replies(ReplyEvent::Sent { id: message.envelope.reply_id().clone() });
            }
            channel.publish(message, deadline).await
        })
    }
}

/// The envelope as every broker hands it over. What goes to a key comes straight from its sender, and was tried by nobody yet.
fn as_it_arrives(message: &mut Addressed) {
    let Addressed { to, envelope, .. } = message;
    if envelope.conversation_id.is_none() {
        let envelope = Arc::make_mut(envelope);
        envelope.conversation_id = Some(envelope.id.clone());
    }
    let was_tried = || envelope.attempt > 1 || envelope.headers.iter().any(|(name, _)| is_of_earlier_attempts(name));
    if matches!(to, To::Key { .. }) && was_tried() {
        let envelope = Arc::make_mut(envelope);
        envelope.attempt = 1;
        envelope.headers.retain(|name| !is_of_earlier_attempts(name));
    }
}

/// Takes a message at once: to whoever waits for the reply, or into its queues.
pub(super) fn publish(
    connection: &Connection,
    message: Routed,
    is_duplicated: bool,
) -> Result<Publication, BrokerError> {
    connection.open()?;
    connection.inner.published(&message);
    let publication = if is_reply(&message) {
        Ok(reply(message))
    } else {
        let mut state = connection.inner.lock();
        if is_duplicated {
            // The same again is taken as the first was.
            let _ = state.publish(message.clone());
        }
        state.publish(message)
    };
    connection.inner.changed();
    publication
}

pub(super) fn is_reply(message: &Routed) -> bool {
    message.way.exchange.is_empty() && message.way.routing_key.starts_with(REPLY_PREFIX)
}

fn reply(message: Routed) -> Publication {
    let waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    let sink = waiting
        .get(&*message.way.routing_key)
        .filter(|(token, _)| token.strong_count() > 0)
        .map(|(_, sink)| Arc::clone(sink));
    drop(waiting);
    match sink {
        Some(sink) => {
            sink(ReplyEvent::Arrived(Box::new(Arc::unwrap_or_clone(message.envelope))));
            Publication::Confirmed
        }
        None if message.mandatory => Publication::Returned,
        None => Publication::Confirmed,
    }
}
