//! Publishes to the in-process broker, and gives each envelope the form in which any broker would deliver it.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::sync::{Mutex as FairMutex, watch};
use tokio::time::Instant;

use crate::adapter::amqp::{Delays, Routed};
use crate::adapter::in_process::connection::Connection;
use crate::adapter::in_process::publishing_channel::PublishingChannel;
use crate::broker::{
    Addressed, BrokerError, Publication, Publisher, ReplyEvent, ReplySink, To, is_of_earlier_attempts,
    reset_claimed_attempts,
};
use crate::message::{Kind, ReplyTo, Status};

pub(super) struct InProcessPublisher {
    channel: Arc<PublishingChannel>,
    delays: Arc<Delays>,
    replies: ReplySink,
}

impl InProcessPublisher {
    pub(super) fn new(connection: Arc<Connection>, delays: Arc<Delays>, address: String, replies: ReplySink) -> Self {
        let ends = watch::channel(0).0;
        let (address, blocked_until) = (address.into(), FairMutex::default());
        Self { channel: Arc::new(PublishingChannel { connection, address, ends, blocked_until }), delays, replies }
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

/// Changes an envelope as sending it through any broker would: a message to a key loses headers of earlier attempts, a message
/// without a conversation starts one, and a reply gets a status.
fn as_it_arrives(message: &mut Addressed) {
    let Addressed { to, envelope, .. } = message;
    let is_sent = matches!(to, To::Key { .. });
    let was_tried = || envelope.attempt > 1 || envelope.headers.iter().any(|(name, _)| is_of_earlier_attempts(name));
    if envelope.conversation_id.is_none() || is_sent && was_tried() {
        let envelope = Arc::make_mut(envelope);
        if is_sent {
            reset_claimed_attempts(envelope);
        } else {
            envelope.conversation_id = Some(envelope.id.clone());
        }
    }
    if envelope.kind == Kind::Reply && envelope.status.is_none() {
        Arc::make_mut(envelope).status = Some(Status::Ok);
    }
}
