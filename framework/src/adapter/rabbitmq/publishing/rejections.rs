//! Tells whether a queue rejects a message, or only the channel on which it was sent.
//!
//! With RabbitMQ 3.10, a channel can get stuck: it first publishes to a quorum queue just after the leader's node went down. It
//! then rejects every message to that queue until the node is back, although the queue has long had another leader. If a new
//! channel accepts a message to a target and the old channel still rejects later ones, the old channel is the cause.

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
/// How long a queue may be without a leader. A request cannot be tried on another channel: its reply comes to the channel that sent
/// it. Instead the channel counts as stuck if it also rejects a message sent this long after the request's rejection.
const ELECTION: Duration = Duration::from_secs(5);
/// The shortest time between two replacements of a channel because of requests. A replacement loses the channel's open requests,
/// and a queue that stays full rejects on every channel.
const REPLACEMENT_PAUSE: Duration = Duration::from_secs(60);
/// How long an acceptance on another channel counts.
const COUNTS: Duration = Duration::from_secs(15);

/// What to do with a rejected message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Tell its caller.
    Rejected,
    /// Try whether another channel accepts it.
    TryElsewhere,
    /// The channel is the cause, and must be replaced.
    Stuck,
}

/// The rejections of one channel.
pub(super) struct Rejections {
    /// When a channel was last replaced.
    replaced: Option<Instant>,
    /// When a message was last tried on another channel, or a request was rejected.
    tried: Option<Instant>,
    /// Target that another channel accepted, and since when. If ours still rejects later messages to it, our channel is stuck. For
    /// a rejected request: its target, and when an election must be over.
    taken: Option<(Way, Instant)>,
    trying: Option<Trying>,
}

/// A message that is being tried on another channel.
struct Trying {
    job: Box<Job>,
    /// Whether our channel has rejected it; if not, its target confirms nothing.
    rejected: bool,
    progress: Progress,
}

/// How far a message has come on another channel.
enum Progress {
    /// The channel is being opened; `None` when that fails.
    Opening(BoxFuture<'static, Option<Channel>>),
    /// `None` if it was not sent there.
    Publishing(BoxFuture<'static, Option<Publication>>),
}

/// The outcome of a message that was tried on another channel.
pub(super) enum Tried {
    /// Its caller has its answer.
    Told,
    /// It was not sent.
    NotSent(Box<Job>),
    /// Its caller was told that the broker has it, although its target is silent on our channel.
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

    /// Tries a message on another channel after ours has rejected it, or because its target confirms nothing on ours.
    pub(super) fn try_elsewhere(&mut self, job: Box<Job>, rejected: bool, connection: &Arc<Connection>) {
        let connection = Arc::clone(connection);
        let opening = async move { confirming(&connection).await.ok() };
        self.trying = Some(Trying { job, rejected, progress: Progress::Opening(opening.boxed()) });
    }

    pub(super) fn is_trying(&self) -> bool {
        self.trying.is_some()
    }

    /// The deadline of the message that is being tried, unless its caller has its answer.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.trying.as_ref().filter(|trying| trying.job.result.is_some()).map(|trying| trying.job.deadline)
    }

    /// Answers the caller at its deadline, whatever the other channel does.
    pub(super) fn end_overdue(&mut self, now: Instant) {
        if let Some(trying) = self.trying.as_mut().filter(|trying| trying.job.deadline <= now) {
            trying
                .job
                .answer(Ok(Publication::Unknown("it was tried on another channel, and the time was over".into())));
        }
    }

    /// Waits for the outcome of the message that is being tried, and tells its caller; waits for ever if there is none.
    pub(super) async fn tried(&mut self) -> Tried {
        let Some(trying) = &mut self.trying else { return std::future::pending().await };
        if let Progress::Opening(opening) = &mut trying.progress {
            let channel = opening.await;
            // A message must not be sent once its caller has its result or has left.
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
        // A message that was not sent again stays rejected.
        let publication = publication.unwrap_or(Publication::Rejected);
        if publication != Publication::Rejected {
            self.taken = Some((job.message.way.clone(), Instant::now()));
        }
        job.resolve(Ok(publication));
        Tried::Told
    }

    /// The channel ends: the caller of the message being tried is told that its outcome is unknown.
    pub(super) fn end(&mut self) {
        if let Some(Trying { job, .. }) = self.trying.take() {
            job.resolve(Ok(Publication::Unknown("it was tried on another channel, and that did not end".into())));
        }
    }
}

/// Publishes the message as the only one on this channel, and closes the channel.
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
        // The channel is not used again, so a failed close does no harm.
        let _ = timeout(ANSWER_TIMEOUT, channel.close(200, "OK".into())).await;
    }
    Some(publication)
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::adapter::amqp::Routed;

    /// A job whose caller never stops waiting.
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
