//! The owner of a confirm channel: its state, and how it treats the messages of a channel that has ended.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::adapter::rabbitmq::publishing::in_flight::InFlight;
use crate::adapter::rabbitmq::publishing::job::Job;
use crate::adapter::rabbitmq::publishing::send_path::{MAX_UNCONFIRMED, SendPath};
use crate::adapter::rabbitmq::publishing::waiting::Waiting;
use crate::adapter::rabbitmq::reconnect::Link;
use crate::broker::{ReplyEvent, ReplySink};

/// The most messages in the queue to the owner; callers with more messages wait.
pub(super) const QUEUE: usize = 1_024;
/// The most messages that wait with the owner, without those that are held aside.
pub(super) const MAX_WAITING: usize = QUEUE + MAX_UNCONFIRMED;

pub(super) struct Owner {
    pub(super) link: Arc<Link>,
    pub(super) replies: ReplySink,
    pub(super) send_path: Arc<SendPath>,
    pub(super) queue: mpsc::Receiver<Box<Job>>,
    /// Messages to send, oldest first.
    pub(super) waiting: Waiting,
    /// When a channel was last replaced because it rejected messages that other channels accepted.
    pub(super) replaced: Option<Instant>,
}

impl Drop for Owner {
    /// Gives up the messages in flight. Dropping them answers their callers.
    fn drop(&mut self) {
        let in_flight = self.send_path.lock().end();
        drop(in_flight);
    }
}

impl Owner {
    /// Takes over the messages of a channel that has ended. The next channel sends the unconfirmed ones again, in order. Requests
    /// are not sent again: their callers are told first that no reply will come.
    pub(super) fn take_back(&mut self, mut in_flight: InFlight, why: &str) {
        let now = Instant::now();
        (self.replies)(ReplyEvent::Lost);
        self.waiting.release();
        let mut again = Vec::new();
        for mut job in in_flight.take_newest_first() {
            if job.awaits_reply() || job.deadline <= now {
                job.give_up(why);
            }
            // A message whose caller has its answer must not be sent any more.
            if job.is_awaited() {
                self.send_path.count_as_waiting(&mut job);
                again.push(job);
            }
        }
        self.waiting.send_again(again.into_iter().rev(), self.send_path.replies_only);
    }

    /// Takes this message and all that are queued by now.
    pub(super) fn take_all(&mut self, first: Box<Job>) {
        self.waiting.push_back(first);
        while self.waiting.len() < MAX_WAITING
            && let Ok(job) = self.queue.try_recv()
        {
            self.waiting.push_back(job);
        }
    }
}
