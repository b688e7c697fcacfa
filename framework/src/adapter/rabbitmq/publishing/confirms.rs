//! Messages that are being written to one channel, and the confirms that it awaits from the broker.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lapin::{Channel, Confirmation, PublisherConfirm};

use crate::adapter::rabbitmq::publishing::job::Job;
use crate::adapter::rabbitmq::writes::Writes;

/// The number of a message, and its confirm or why none will come.
pub(super) type Confirmed = (u64, Result<Confirmation, Unconfirmed>);

/// Why no confirm will come.
pub(super) struct Unconfirmed {
    pub(super) error: lapin::Error,
    /// Whether the message was written; if not, the broker does not have it.
    pub(super) written: bool,
}

/// Confirms of one channel.
#[derive(Default)]
pub(super) struct Confirms {
    writes: Writes,
    awaited: FuturesUnordered<Awaited>,
}

impl Confirms {
    /// Publishes a message, and wakes the owner when it is written. Returns whether it is written already, or has failed.
    pub(super) fn publish(&mut self, number: u64, channel: &Arc<Channel>, job: &mut Job, owner: &Waker) -> bool {
        self.writes.put(number, channel, job.client_message(), owner)
    }

    /// The number of the first message that is not known to be written.
    pub(super) fn unwritten(&self) -> u64 {
        self.writes.unwritten()
    }

    /// Waits until all messages are written.
    pub(super) async fn written(&mut self) {
        self.writes.all_written().await;
    }

    /// The next confirm; pending for ever if none are awaited.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Confirmed> {
        while let Poll::Ready((number, written)) = self.writes.poll_written(cx) {
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
