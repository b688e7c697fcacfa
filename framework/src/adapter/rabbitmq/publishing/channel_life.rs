//! One life of the confirm channel: from its opening until it is lost or no caller publishes any more.

mod sending;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use lapin::message::BasicReturnMessage;
use lapin::options::ConfirmSelectOptions;
use lapin::types::ShortString;
use lapin::{Channel, Confirmation, Connection};
use tokio::time::{Instant, sleep_until, timeout};

use crate::adapter::amqp::Origin;
use crate::adapter::rabbitmq::ANSWER_TIMEOUT;
use crate::adapter::rabbitmq::errors::on_channel;
use crate::adapter::rabbitmq::properties::from_client;
use crate::adapter::rabbitmq::publishing::channel_closers::closers;
use crate::adapter::rabbitmq::publishing::confirms::{Confirmed, Unconfirmed};
use crate::adapter::rabbitmq::publishing::job::{Job, Outcome};
use crate::adapter::rabbitmq::publishing::liveness::Liveness;
use crate::adapter::rabbitmq::publishing::owner::{MAX_WAITING, Owner};
use crate::adapter::rabbitmq::publishing::rejections::{Rejections, Verdict};
use crate::adapter::rabbitmq::publishing::returns::Returns;
use crate::adapter::rabbitmq::publishing::send_path::SendPath;
use crate::broker::{Publication, ReplyEvent};
use crate::message::is_logged;

/// How long the client may take to tell the messages of an ended channel why it ended.
const SAYS_WHY: Duration = Duration::from_millis(100);

/// Why a life ended.
pub(super) enum End {
    /// No caller publishes any more.
    Unused,
    /// The channel or the connection is gone.
    Lost(String),
}

/// One life of the confirm channel.
pub(super) struct ChannelLife {
    channel: Arc<Channel>,
    connection: Arc<Connection>,
    rejections: Rejections,
    /// Whether the channel rejects, or leaves unconfirmed, messages that other channels accept.
    stuck: bool,
    /// Whether callers may still publish.
    open: bool,
    returns: Returns,
    /// A reused buffer for messages that are settled together.
    settled: Vec<(u64, Publication)>,
    /// Has the messages in flight.
    send_path: Arc<SendPath>,
    replies: Option<lapin::Consumer>,
    liveness: Liveness,
    /// Whether a silent target has confirmed a message, so that the messages held aside can be sent.
    spoke: bool,
}

impl ChannelLife {
    pub(super) fn new(
        channel: Channel,
        connection: Arc<Connection>,
        send_path: Arc<SendPath>,
        replaced: Option<Instant>,
    ) -> Self {
        Self {
            channel: Arc::new(channel),
            connection,
            rejections: Rejections::new(replaced),
            stuck: false,
            open: true,
            returns: Returns::default(),
            settled: Vec::new(),
            send_path,
            replies: None,
            liveness: Liveness::new(Instant::now()),
            spoke: false,
        }
    }

    /// Publishes and awaits confirms until the channel ends. The next life sends again, in order, the messages that are unconfirmed
    /// then.
    pub(super) async fn run(mut self, owner: &mut Owner) -> End {
        self.send_path.lock().channel = Some(Arc::clone(&self.channel));
        let end = loop {
            if std::mem::take(&mut self.spoke) {
                owner.waiting.release();
            }
            if let Err(reason) = self.send_waiting(owner).await {
                break End::Lost(reason);
            }
            if !self.open && self.in_flight() == 0 && owner.waiting.is_empty() && !self.rejections.is_trying() {
                break End::Unused;
            }
            if let Err(reason) = self.look_for_overdue(owner) {
                break End::Lost(reason);
            }
            let (look_at, hear_at, hurry_at) = {
                let on_channel = self.send_path.lock();
                (on_channel.in_flight.next_deadline(), on_channel.confirms_muted_until, on_channel.one_at_a_time_until)
            };
            let wake_at = self.wake_at(owner, look_at);
            let room = self.open && owner.waiting.len() < MAX_WAITING;
            tokio::select! {
                biased;
                first = poll_fn(|cx| self.send_path.poll_confirmed(look_at, cx)) => if let Err(reason) = self.confirmed(first) {
                    break End::Lost(reason);
                },
                reply = next_reply(&mut self.replies) => match reply {
                    Some(reply) => {
                        self.send_path.lock().replied();
                        (owner.replies)(reply);
                    }
                    None => {
                        let why = self.why_ended().await;
                        break End::Lost(why.unwrap_or_else(|| "the reply consumer ended".into()));
                    }
                },
                job = owner.queue.recv(), if room => match job {
                    Some(job) => {
                        owner.take_all(job);
                        self.send_path.note_burst(owner.waiting.len());
                    }
                    None => self.open = false,
                },
                tried = self.rejections.tried() => self.was_tried(tried, owner),
                () = self.liveness.answered() => {}
                () = sleep_until(wake_at) => {}
                () = at(hear_at), if hear_at.is_some() => self.send_path.lock().confirms_muted_until = None,
                () = at(hurry_at), if hurry_at.is_some() => self.send_path.lock().one_at_a_time_until = None,
            }
            if self.stuck {
                owner.replaced = Some(Instant::now());
                break End::Lost("the broker rejects on this channel what it takes on others".into());
            }
        };
        self.hand_back(owner, &end);
        end
    }

    /// When to check deadlines next, if `look_at` is the time for the messages in flight.
    fn wake_at(&self, owner: &Owner, look_at: Option<Instant>) -> Instant {
        let others = owner.waiting.look_at().into_iter().chain(self.rejections.look_at());
        look_at.into_iter().chain(others).fold(self.liveness.look_at(), Instant::min)
    }

    /// Answers the callers whose deadline has passed, and checks whether the channel lives; an error when it does not.
    fn look_for_overdue(&mut self, owner: &mut Owner) -> Result<(), String> {
        let now = Instant::now();
        owner.waiting.end_overdue(now, "the channel had no room in time");
        self.rejections.end_overdue(now);
        let mut on_channel = self.send_path.lock();
        on_channel.look_for_overdue(now)?;
        // A broker that is short of memory does not answer publishers.
        let waits = !on_channel.in_flight.is_empty() || on_channel.in_flight.overdue() > 0;
        let waits = waits && !self.connection.status().blocked();
        self.liveness.look(now, waits, || ask(&self.channel))
    }

    fn in_flight(&self) -> usize {
        self.send_path.lock().in_flight.len()
    }

    /// Handles all confirms that have come.
    fn confirmed(&mut self, first: Option<Confirmed>) -> Result<(), String> {
        if first.as_ref().is_some_and(|(_, result)| result.is_ok()) {
            self.liveness.heard(Instant::now());
        }
        let (mut next, mut lost) = (first, None);
        while let Some((number, result)) = next {
            match result.map(publication) {
                Ok((publication, returned)) => {
                    if let Some(returned) = returned {
                        self.returned(number, &returned);
                    }
                    self.returns.confirmed(number, publication);
                }
                Err(Unconfirmed { error, written }) => {
                    let mut on_channel = self.send_path.lock();
                    // No caller may publish on it any more.
                    on_channel.channel = None;
                    if let Some(job) = on_channel.in_flight.get_mut(number).filter(|_| !written) {
                        job.sent -= 1;
                    }
                    lost = Some(error);
                }
            }
            next = self.send_path.next_confirmed();
        }
        let mut settled = std::mem::take(&mut self.settled);
        self.returns.settle_into(&mut settled);
        settled.drain(..).for_each(|(number, publication)| self.settle(number, publication));
        self.settled = settled;
        match lost {
            None => Ok(()),
            Some(error) => {
                self.note_closers(&error);
                Err(error.to_string())
            }
        }
    }

    /// Handles a returned message that the client attached to the confirm of this number.
    fn returned(&mut self, confirmed: u64, returned: &BasicReturnMessage) {
        let (id, routing_key) = (returned.delivery.properties.message_id(), returned.delivery.routing_key.as_str());
        let id = id.as_ref().map(ShortString::as_str);
        let found = self.send_path.lock().in_flight.returned_with(confirmed, id, routing_key);
        match found {
            Some(number) => {
                self.returns.returned(number);
                self.resolve(number, Ok(Publication::Returned));
            }
            None => {
                if is_logged("a message came back that nobody waits for", "the connection") {
                    tracing::warn!(routing_key, "a message came back that nobody waits for");
                }
            }
        }
    }

    /// Finds out why the channel has ended: the broker's reason may reach the messages later than the reply consumer.
    async fn why_ended(&mut self) -> Option<String> {
        let first = match self.in_flight() {
            0 => return None,
            _ => timeout(SAYS_WHY, poll_fn(|cx| self.send_path.lock().confirms.poll_next(cx))).await.ok(),
        };
        self.confirmed(first).err()
    }

    /// The broker closed the channel or the connection because of a message. If only one message can be the reason, its caller is
    /// told.
    fn note_closers(&mut self, error: &lapin::Error) {
        let accused = closers(error, &mut self.send_path.lock(), self.send_path.replies_only);
        for number in accused {
            self.resolve(number, Err(on_channel(error)));
        }
    }

    fn settle(&mut self, number: u64, publication: Publication) {
        if publication != Publication::Rejected {
            return self.resolve(number, Ok(publication));
        }
        let Some(job) = self.take(number) else { return };
        match self.rejections.judge(&job, Instant::now()) {
            Verdict::Rejected => job.resolve(Ok(publication)),
            Verdict::TryElsewhere => self.rejections.try_elsewhere(job, true, &self.connection),
            Verdict::Stuck => {
                if !std::mem::replace(&mut self.stuck, true) {
                    let routing_key = &*job.message.way.routing_key;
                    tracing::warn!(
                        routing_key,
                        "the broker rejects on this channel what it takes on others; opening a new one"
                    );
                }
                // The next channel sends it again, with all others in flight.
                self.send_path.lock().in_flight.put_back(number, job);
            }
        }
    }

    fn resolve(&mut self, number: u64, outcome: Outcome) {
        if let Some(job) = self.take(number) {
            job.resolve(outcome);
        }
    }

    fn take(&mut self, number: u64) -> Option<Box<Job>> {
        let (job, spoke) = self.send_path.lock().take(number);
        self.spoke |= spoke;
        job
    }

    fn hand_back(&mut self, owner: &mut Owner, end: &End) {
        let why = if let End::Lost(reason) = end { reason.as_str() } else { "nobody publishes any more" };
        self.rejections.end();
        let (in_flight, mut confirms) = self.send_path.lock().end();
        owner.take_back(in_flight, why);
        if self.channel.status().connected() {
            let channel = Arc::clone(&self.channel);
            owner.link.handle.spawn(async move {
                // The client lets the close of a channel overtake its messages, for which the broker would close the connection.
                let _ = timeout(ANSWER_TIMEOUT, confirms.written()).await;
                channel.close(200, "OK".into()).await
            });
        }
    }
}

/// Sends the broker a request that it answers on this channel.
fn ask(channel: &Arc<Channel>) -> BoxFuture<'static, bool> {
    let channel = Arc::clone(channel);
    // This request changes nothing and needs no permissions.
    Box::pin(async move { channel.confirm_select(ConfirmSelectOptions::default()).await.is_ok() })
}

/// Waits until this time; for ever without one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The outcome that a confirm states for its own message, and a returned message that came with it, which may be another one.
fn publication(confirmation: Confirmation) -> (Publication, Option<BasicReturnMessage>) {
    match confirmation {
        Confirmation::Ack(returned) => (Publication::Confirmed, returned),
        Confirmation::Nack(returned) => (Publication::Rejected, returned),
        // Confirms would be off. Then the outcome is unknown, and must not count as a success.
        Confirmation::NotRequested => (Publication::Unknown("the channel has no confirms".into()), None),
    }
}

/// The next reply; pending for ever if there is no reply consumer.
async fn next_reply(replies: &mut Option<lapin::Consumer>) -> Option<ReplyEvent> {
    let Some(consumer) = replies else { return std::future::pending().await };
    let delivery = consumer.next().await?.ok()?;
    // It comes by the default exchange, to a queue without a name.
    let origin = Origin::Queue(Arc::default());
    Some(ReplyEvent::Arrived(Box::new(from_client(&delivery.properties, &origin, delivery.data.into()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_without_confirms_is_never_a_success() {
        assert!(matches!(publication(Confirmation::NotRequested), (Publication::Unknown(_), None)));
        assert_eq!(publication(Confirmation::Nack(None)).0, Publication::Rejected);
        assert_eq!(publication(Confirmation::Ack(None)).0, Publication::Confirmed);
    }
}
