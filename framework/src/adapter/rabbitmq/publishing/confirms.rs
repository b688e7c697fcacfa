//! Publications on their way to the broker, and the confirms that are awaited of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lapin::{Channel, Confirmation, PublisherConfirm};

use crate::adapter::rabbitmq::publishing::job::Job;
use crate::adapter::rabbitmq::writes::Writes;

/// What awaiting one confirm brought.
pub(super) type Confirmed = (u64, Result<Confirmation, Unconfirmed>);

/// Why no confirm will come.
pub(super) struct Unconfirmed {
    pub(super) error: lapin::Error,
    /// Whether the message was written; if not, the broker cannot have it.
    pub(super) written: bool,
}

/// Confirms of one channel.
#[derive(Default)]
pub(super) struct Confirms {
    writes: Writes,
    awaited: FuturesUnordered<Awaited>,
}

impl Confirms {
    /// Puts a message on the channel, and wakes the task that awaits the confirms when it was written. Whether there is nothing
    /// to wait for.
    pub(super) fn publish(&mut self, number: u64, channel: &Arc<Channel>, job: &mut Job, owner: &Waker) -> bool {
        self.writes.put(number, channel, job.client_message(), owner)
    }

    /// From which number on nothing is known to be written.
    pub(super) fn unwritten(&self) -> u64 {
        self.writes.unwritten()
    }

    /// Waits until all messages are written.
    pub(super) async fn written(&mut self) {
        self.writes.all_written().await;
    }

    /// The next confirm; for ever if none are awaited.
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
