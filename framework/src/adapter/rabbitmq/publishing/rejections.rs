//! Whether a queue rejects a message, or only the channel on which it was sent.
//!
//! A channel of RabbitMQ 3.10 that first publishes to a quorum queue while the node of its leader has just gone rejects
//! everything for that queue until this node is back, although the queue has another leader long since. What a new
//! channel takes, and the old one rejects again, is rejected by the channel.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation, Connection};
use tokio::time::{Instant, timeout};

use crate::adapter::amqp::Way;
use crate::adapter::rabbitmq::ANSWER_TIMEOUT;
use crate::adapter::rabbitmq::declare::{answered, confirming};
use crate::adapter::rabbitmq::publishing::job::Job;
use crate::adapter::rabbitmq::writes::ClientMessage;
use crate::broker::Publication;

/// The shortest time between two messages that are tried on another channel.
const MIN_TRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a queue may be without a leader. A request cannot be tried on another channel, as its reply comes to the
/// channel that sent it; instead it must be rejected for so long.
const ELECTION: Duration = Duration::from_secs(5);
/// The shortest time between two channels that are replaced because of requests: with one its open requests are lost, and a
/// queue that stays full rejects on every channel.
const REPLACEMENT_PAUSE: Duration = Duration::from_secs(60);
/// How long it counts that another channel took a message.
const COUNTS: Duration = Duration::from_secs(15);

/// What to do with a rejected message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Tell its sender.
    Rejected,
    /// See whether another channel takes it.
    TryElsewhere,
    /// It is the channel, which is to be replaced.
    Stuck,
}

/// The rejections of one channel.
pub(super) struct Rejections {
    /// When a channel was replaced last.
    replaced: Option<Instant>,
    /// When the last message was tried on another channel.
    tried: Option<Instant>,
    /// Where messages are taken that are sent after this; rejections of later ones are the channel's.
    taken: Option<(Way, Instant)>,
    trying: Option<Trying>,
}

/// A message that is tried on another channel.
struct Trying {
    job: Box<Job>,
    /// Whether ours has rejected it; if not, its target confirms nothing.
    rejected: bool,
    progress: Progress,
}

/// How far a message has come on another channel.
enum Progress {
    /// The channel is being opened; `None` when that fails.
    Opening(BoxFuture<'static, Option<Channel>>),
    /// `None` when it was not sent there.
    Publishing(BoxFuture<'static, Option<Publication>>),
}

/// What came of a message that was tried on another channel.
pub(super) enum Tried {
    /// Its sender was told.
    Told,
    /// It was not sent.
    NotSent(Box<Job>),
    /// Its sender was told that the broker has it, although its target is silent on our channel.
    Taken(Way),
}

impl Rejections {
    pub(super) fn new(replaced: Option<Instant>) -> Self {
        Self { replaced, tried: None, taken: None, trying: None }
    }

    pub(super) fn judge(&mut self, job: &Job, now: Instant) -> Verdict {
        let same = |(way, _): &&(Way, Instant)| *way == job.message.way;
        let since = self.taken.as_ref().filter(same).map(|(_, since)| *since);
        if let Some(since) = since.filter(|since| now < *since + COUNTS) {
            return if job.sent_at.is_some_and(|at| at >= since) { Verdict::Stuck } else { Verdict::Rejected };
        }
        let idle = self.trying.is_none() && self.tried.is_none_or(|at| now >= at + MIN_TRY_INTERVAL);
        if !idle || !job.is_awaited() {
            return Verdict::Rejected;
        }
        self.tried = Some(now);
        if job.awaits_reply() && self.replaced.is_some_and(|at| now < at + REPLACEMENT_PAUSE) {
            return Verdict::Rejected;
        }
        if job.awaits_reply() {
            self.taken = Some((job.message.way.clone(), now + ELECTION));
            return Verdict::Rejected;
        }
        Verdict::TryElsewhere
    }

    /// Tries a message on another channel that ours has rejected, or whose target confirms nothing on ours.
    pub(super) fn try_elsewhere(&mut self, job: Box<Job>, rejected: bool, connection: &Arc<Connection>) {
        let connection = Arc::clone(connection);
        let opening = async move { confirming(&connection).await.ok() };
        self.trying = Some(Trying { job, rejected, progress: Progress::Opening(opening.boxed()) });
    }

    pub(super) fn is_trying(&self) -> bool {
        self.trying.is_some()
    }

    /// When the time of the message that is tried on another channel is over.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.trying.as_ref().filter(|trying| trying.job.result.is_some()).map(|trying| trying.job.deadline)
    }

    /// Its sender is told in time, whatever the other channel does.
    pub(super) fn end_overdue(&mut self, now: Instant) {
        if let Some(trying) = self.trying.as_mut().filter(|trying| trying.job.deadline <= now) {
            trying
                .job
                .answer(Ok(Publication::Unknown("it was tried on another channel, and the time was over".into())));
        }
    }

    /// Tells the sender of a message that was tried on another channel what came of it; waits for ever if there is none.
    pub(super) async fn tried(&mut self) -> Tried {
        let Some(trying) = &mut self.trying else { return std::future::pending().await };
        if let Progress::Opening(opening) = &mut trying.progress {
            let channel = opening.await;
            // A message whose caller has its result, or has left, must not be sent after that.
            trying.progress = Progress::Publishing(match channel.filter(|_| trying.job.is_awaited()) {
                Some(channel) => publish_on(channel, trying.job.client_message()).boxed(),
                None => ready(None).boxed(),
            });
        }
        let publication = match &mut trying.progress {
            Progress::Publishing(publishing) => publishing.await,
            Progress::Opening(_) => None,
        };
        let Some(Trying { job, rejected, .. }) = self.trying.take() else { return Tried::Told };
        if !rejected {
            let Some(publication) = publication else { return Tried::NotSent(job) };
            let taken = publication == Publication::Confirmed;
            let target = job.target();
            job.resolve(Ok(publication));
            return if taken { Tried::Taken(target) } else { Tried::Told };
        }
        // What was not sent once more stays rejected.
        let publication = publication.unwrap_or(Publication::Rejected);
        if publication != Publication::Rejected {
            self.taken = Some((job.message.way.clone(), Instant::now()));
        }
        job.resolve(Ok(publication));
        Tried::Told
    }

    /// Nobody waits for another channel any more.
    pub(super) fn end(&mut self) {
        if let Some(Trying { job, .. }) = self.trying.take() {
            job.resolve(Ok(Publication::Unknown("it was tried on another channel, and that did not end".into())));
        }
    }
}

/// Publishes on a channel of its own.
async fn publish_on(channel: Channel, message: ClientMessage) -> Option<Publication> {
    let ClientMessage { exchange, routing_key, mandatory, properties, payload } = message;
    let options = BasicPublishOptions { mandatory, immediate: false };
    let writing = channel.basic_publish(exchange, routing_key, options, &payload, properties);
    let confirm = match answered("take a message", writing).await {
        Ok(Ok(confirm)) => confirm,
        Ok(Err(_)) => return None,
        Err(error) => return Some(Publication::Unknown(error.to_string())),
    };
    let publication = match answered("confirm a message", confirm).await {
        Ok(Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_)))) => Publication::Returned,
        Ok(Ok(Confirmation::Ack(None))) => Publication::Confirmed,
        Ok(Ok(Confirmation::Nack(None))) => Publication::Rejected,
        Ok(Ok(Confirmation::NotRequested)) => Publication::Unknown("the channel has no confirms".into()),
        Ok(Err(error)) => Publication::Unknown(error.to_string()),
        Err(error) => Publication::Unknown(error.to_string()),
    };
    if channel.status().connected() {
        // The channel is thrown away; whether the broker heard of it changes nothing.
        let _ = timeout(ANSWER_TIMEOUT, channel.close(200, "OK".into())).await;
    }
    Some(publication)
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::adapter::amqp::Routed;

    /// Its receiver waits for ever.
    fn job(routing_key: &str, awaits_reply: bool, sent_at: Instant) -> Box<Job> {
        let message = Routed::for_test("e", routing_key, awaits_reply);
        let (result, outcome) = oneshot::channel();
        std::mem::forget(outcome);
        let mut job = Job::new(message, sent_at + ANSWER_TIMEOUT, result, usize::MAX).unwrap();
        job.sent_at = Some(sent_at);
        job
    }

    #[test]
    fn one_message_a_second_is_tried_on_another_channel() {
        let (mut rejections, now) = (Rejections::new(None), Instant::now());
        assert_eq!(rejections.judge(&job("k", false, now), now), Verdict::TryElsewhere);
        assert_eq!(rejections.judge(&job("k", false, now), now), Verdict::Rejected);
        assert_eq!(rejections.judge(&job("k", false, now), now + MIN_TRY_INTERVAL), Verdict::TryElsewhere);
    }

    #[test]
    fn a_channel_is_stuck_when_it_rejects_what_was_sent_after_another_one_took_it() {
        let (mut rejections, now) = (Rejections::new(None), Instant::now());
        rejections.taken = Some((Way { exchange: "e".into(), routing_key: "k".into() }, now));
        rejections.tried = Some(now);
        assert_eq!(rejections.judge(&job("k", false, now - MIN_TRY_INTERVAL), now), Verdict::Rejected, "sent before");
        assert_eq!(rejections.judge(&job("other", false, now), now), Verdict::Rejected, "sent elsewhere");
        assert_eq!(rejections.judge(&job("k", false, now), now), Verdict::Stuck);
        assert_eq!(rejections.judge(&job("k", false, now), now + COUNTS), Verdict::TryElsewhere, "long ago");
    }

    #[test]
    fn a_request_is_not_sent_twice_and_its_channel_is_stuck_when_an_election_would_be_over() {
        let (mut rejections, now) = (Rejections::new(None), Instant::now());
        assert_eq!(rejections.judge(&job("k", true, now), now), Verdict::Rejected);
        assert_eq!(
            rejections.judge(&job("k", true, now + MIN_TRY_INTERVAL), now + MIN_TRY_INTERVAL),
            Verdict::Rejected
        );
        assert_eq!(rejections.judge(&job("k", true, now + ELECTION), now + ELECTION), Verdict::Stuck);
        let (mut next, now) = (Rejections::new(Some(now)), now + MIN_TRY_INTERVAL);
        for after in [Duration::ZERO, ELECTION, 2 * ELECTION] {
            assert_eq!(next.judge(&job("k", true, now + after), now + after), Verdict::Rejected, "the queue is full");
        }
    }
}
