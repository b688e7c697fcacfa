//! Publications on their way to the broker, and the confirms that are awaited of it.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation, PublisherConfirm};
use tokio_util::sync::ReusableBoxFuture;

use crate::adapter::rabbitmq::job::Job;

/// What awaiting one confirm brought.
pub(super) type Confirmed = (u64, Result<Confirmation, Unconfirmed>);

/// Why no confirm will come.
pub(super) struct Unconfirmed {
    pub(super) error: lapin::Error,
    /// Whether the message was written; if not, the broker cannot have it.
    pub(super) written: bool,
}

/// The client's future of one publication: it ends when the message was written to the socket. It is large, so that its
/// memory is used again.
type Writing = ReusableBoxFuture<'static, lapin::Result<PublisherConfirm>>;

/// The most futures whose memory is kept.
const SPARE: usize = 64;

/// Confirms of one channel.
#[derive(Default)]
pub(super) struct Confirms {
    /// The client writes in order, so that only the first one needs to be asked.
    writing: VecDeque<(u64, Writing)>,
    spare: Vec<Writing>,
    awaited: FuturesUnordered<Awaited>,
}

impl Confirms {
    /// Puts a message on the channel: the first poll of the client's future does.
    pub(super) fn publish(&mut self, number: u64, channel: &Arc<Channel>, job: &mut Job) {
        let (channel, payload, properties) = (Arc::clone(channel), job.payload.clone(), job.client_properties());
        let (exchange, routing_key, mandatory) = job.client_address();
        let publish = async move {
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
        match writing.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => self.writing.push_back((number, writing)),
            Poll::Ready(written) => self.writing.push_back((number, Writing::new(std::future::ready(written)))),
        }
    }

    /// Waits until all messages are written.
    pub(super) async fn written(&mut self) {
        while let Some((_, mut writing)) = self.writing.pop_front() {
            // What goes wrong has been told to whoever is concerned.
            let _ = poll_fn(|cx| writing.poll(cx)).await;
        }
    }

    /// The next confirm; for ever if none are awaited.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Confirmed> {
        while let Some((number, writing)) = self.writing.front_mut() {
            let Poll::Ready(written) = writing.poll(cx) else { break };
            let number = *number;
            if let Some((_, writing)) = self.writing.pop_front()
                && self.spare.len() < SPARE
            {
                self.spare.push(writing);
            }
            match written {
                Ok(confirm) => self.awaited.push(Awaited { number, confirm }),
                Err(error) => return Poll::Ready((number, Err(Unconfirmed { error, written: false }))),
            }
        }
        match self.awaited.poll_next_unpin(cx) {
            Poll::Ready(Some(confirmed)) => Poll::Ready(confirmed),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

struct Awaited {
    number: u64,
    confirm: PublisherConfirm,
}

impl Future for Awaited {
    type Output = Confirmed;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Confirmed> {
        let number = self.number;
        let confirmed = Pin::new(&mut self.confirm).poll(cx);
        confirmed.map(|confirmed| (number, confirmed.map_err(|error| Unconfirmed { error, written: true })))
    }
}
