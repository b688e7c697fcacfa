//! Messages that the client is writing to the socket, in the order in which they were published on a channel.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use lapin::options::BasicPublishOptions;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, PublisherConfirm};
use tokio_util::sync::ReusableBoxFuture;

use crate::adapter::amqp::Routed;
use crate::adapter::rabbitmq::properties::{short, to_client};
use crate::broker::BrokerError;

/// The client's future of one publication: it ends when the message is written to the socket. It is large, so its memory is reused.
type Writing = ReusableBoxFuture<'static, lapin::Result<PublisherConfirm>>;

/// The most futures whose memory is kept; each has about 2 KiB.
const SPARE: usize = 256;

/// A message in the client's types.
pub(super) struct ClientMessage {
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) mandatory: bool,
    pub(super) properties: BasicProperties,
    pub(super) payload: Bytes,
}

impl ClientMessage {
    /// Converts a message; an error if a name is too long, or its properties take more than `most` bytes.
    pub(super) fn of(message: Routed, most: usize) -> Result<Self, BrokerError> {
        Ok(Self {
            exchange: short("an exchange's name", &message.way.exchange)?,
            routing_key: short("a routing key", &message.way.routing_key)?,
            mandatory: message.mandatory,
            properties: to_client(&message, most)?,
            payload: message.envelope.payload.clone(),
        })
    }
}

/// The unfinished writes of one channel.
#[derive(Default)]
pub(super) struct Writes {
    /// The client writes in order, so only the first one needs to be polled.
    writing: VecDeque<(u64, Writing)>,
    spare: Vec<Writing>,
}

impl Writes {
    /// Publishes: lapin queues the frame on the first poll of its future. `owner` is woken when the message is written, if no other
    /// write is unfinished. Returns whether the write has ended already.
    pub(super) fn put(&mut self, number: u64, channel: &Arc<Channel>, message: ClientMessage, owner: &Waker) -> bool {
        let channel = Arc::clone(channel);
        let publish = async move {
            let ClientMessage { exchange, routing_key, mandatory, properties, payload } = message;
            let options = BasicPublishOptions { mandatory, immediate: false };
            channel.basic_publish(exchange, routing_key, options, &payload, properties).await
        };
        let mut writing = match self.spare.pop() {
            Some(mut writing) => {
                writing.set(publish);
                writing
            }
            None => Writing::new(publish),
        };
        let waker = if self.writing.is_empty() { owner } else { Waker::noop() };
        let polled = writing.poll(&mut Context::from_waker(waker));
        let at_once = polled.is_ready();
        self.writing.push_back(match polled {
            Poll::Pending => (number, writing),
            Poll::Ready(written) => (number, Writing::new(std::future::ready(written))),
        });
        at_once
    }

    /// The number of the first message that is not known to be written.
    pub(super) fn unwritten(&self) -> u64 {
        self.writing.front().map_or(u64::MAX, |(number, _)| *number)
    }

    /// The next message that was written; pending if none is being written.
    pub(super) fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<(u64, lapin::Result<PublisherConfirm>)> {
        let Some((number, writing)) = self.writing.front_mut() else { return Poll::Pending };
        let Poll::Ready(written) = writing.poll(cx) else { return Poll::Pending };
        let number = *number;
        if let Some((_, writing)) = self.writing.pop_front()
            && self.spare.len() < SPARE
        {
            self.spare.push(writing);
        }
        Poll::Ready((number, written))
    }

    /// Waits until all messages are written.
    pub(super) async fn all_written(&mut self) {
        while let Some((_, mut writing)) = self.writing.pop_front() {
            // The callers have been told of errors already.
            let _ = poll_fn(|cx| writing.poll(cx)).await;
        }
    }
}
