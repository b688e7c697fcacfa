//! One life of the confirm channel.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use lapin::message::BasicReturnMessage;
use lapin::options::BasicConsumeOptions;
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Confirmation, Connection};
use tokio::time::{Instant, sleep_until, timeout};

use crate::adapter::rabbitmq::ANSWER_TIMEOUT;
use crate::adapter::rabbitmq::confirms::{Confirmed, Unconfirmed};
use crate::adapter::rabbitmq::declare::answered;
use crate::adapter::rabbitmq::entrance::Entrance;
use crate::adapter::rabbitmq::errors::on_channel;
use crate::adapter::rabbitmq::job::{CONFIRM_PATIENCE, Job, Outcome};
use crate::adapter::rabbitmq::properties::from_client;
use crate::adapter::rabbitmq::publisher::{MAX_UNCONFIRMED, Owner};
use crate::adapter::rabbitmq::rejections::{Rejections, Verdict};
use crate::adapter::rabbitmq::returns::Returns;
use crate::adapter::rabbitmq::strikes::accused;
use crate::broker::{BrokerError, DIRECT_REPLY_TO, Publication, ReplyEvent};
use crate::message::is_logged;

/// How long it may take until the messages on a channel that has ended know why.
const SAYS_WHY: Duration = Duration::from_millis(100);

/// Why an epoch ended.
pub(super) enum End {
    /// Nobody publishes any more.
    Unused,
    /// The channel or the connection is gone.
    Lost(String),
}

/// One life of the confirm channel.
pub(super) struct Epoch {
    channel: Arc<Channel>,
    connection: Arc<Connection>,
    rejections: Rejections,
    /// Whether the channel rejects what others take.
    stuck: bool,
    /// Whether somebody may still publish.
    open: bool,
    returns: Returns,
    /// Room for those that are settled in one go.
    settled: Vec<(u64, Publication)>,
    /// What is in flight.
    entrance: Arc<Entrance>,
    replies: Option<lapin::Consumer>,
}

impl Epoch {
    pub(super) fn new(
        channel: Channel,
        connection: Arc<Connection>,
        entrance: Arc<Entrance>,
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
            entrance,
            replies: None,
        }
    }

    /// Publishes and awaits confirms until the channel ends. What is not confirmed then is sent again, in order, by the
    /// next epoch.
    pub(super) async fn run(mut self, owner: &mut Owner) -> End {
        self.entrance.lock().channel = Some(Arc::clone(&self.channel));
        let end = loop {
            if let Err(reason) = self.send_waiting(owner).await {
                break End::Lost(reason);
            }
            if !self.open && self.in_flight() == 0 && !self.rejections.is_trying() {
                break End::Unused;
            }
            if let Err(reason) = self.look_for_overdue() {
                break End::Lost(reason);
            }
            let (look_at, hear_at, hurry_at) = {
                let on_channel = self.entrance.lock();
                (on_channel.in_flight.look_at(), on_channel.unheard_until, on_channel.one_at_a_time_until)
            };
            let room = self.open && self.in_flight() < MAX_UNCONFIRMED && owner.waiting.len() < MAX_UNCONFIRMED;
            tokio::select! {
                biased;
                first = poll_fn(|cx| self.entrance.poll_confirmed(look_at, cx)) => if let Err(reason) = self.confirmed(first) {
                    break End::Lost(reason);
                },
                reply = next_reply(&mut self.replies) => match reply {
                    Some(reply) => {
                        self.entrance.lock().replied();
                        (owner.replies)(reply);
                    }
                    None => break End::Lost(self.replies_ended().await),
                },
                job = owner.queue.recv(), if room => match job {
                    Some(job) => {
                        owner.take_all(job);
                        self.entrance.came(owner.waiting.len());
                    }
                    None => self.open = false,
                },
                () = self.rejections.tried() => {}
                () = at(look_at), if look_at.is_some() => {}
                () = at(hear_at), if hear_at.is_some() => self.entrance.lock().unheard_until = None,
                () = at(hurry_at), if hurry_at.is_some() => self.entrance.lock().one_at_a_time_until = None,
            }
            if self.stuck {
                owner.replaced = Some(Instant::now());
                break End::Lost("the broker rejects on this channel what it takes on others".into());
            }
        };
        self.hand_back(owner, &end);
        end
    }

    /// Whoever waits for a confirm beyond the time gets an answer; the confirm is awaited all the same, so that it is not
    /// lost track of and nobody else on the channel suffers. An error when the channel must be dead.
    fn look_for_overdue(&mut self) -> Result<(), String> {
        let mut on_channel = self.entrance.lock();
        let Some(look_at) = on_channel.in_flight.look_at() else { return Ok(()) };
        let (now, mut dead) = (Instant::now(), false);
        if look_at <= now {
            on_channel.in_flight.look(|job| {
                if job.result.is_some() && job.deadline <= now {
                    job.give_up("no confirm came in time");
                }
                dead |= job.sent_at.is_some_and(|at| at + CONFIRM_PATIENCE <= now);
            });
        }
        if dead { Err(format!("a confirm did not come within {CONFIRM_PATIENCE:?}")) } else { Ok(()) }
    }

    async fn send_waiting(&mut self, owner: &mut Owner) -> Result<(), String> {
        while let Some(first) = owner.waiting.front() {
            // A message that may be the reason for a closed channel goes alone, so that it does not take others with it.
            if !self.entrance.lock().has_room_for(first) {
                break;
            }
            let Some(mut job) = owner.waiting.pop_front() else { break };
            if !job.is_awaited() {
                continue;
            }
            if job.deadline <= Instant::now() {
                job.give_up("the time was over");
                continue;
            }
            if job.awaits_reply && self.replies.is_none() {
                let opened = self.meanwhile(open_replies(Channel::clone(&self.channel))).await;
                match opened {
                    Ok(replies) => {
                        self.replies = Some(replies);
                        self.entrance.lock().takes_requests = true;
                    }
                    Err(error) => {
                        owner.waiting.push_front(job);
                        return Err(error.to_string());
                    }
                }
            }
            // Its deadline is looked at before anything is waited for.
            self.entrance.lock().send(&self.channel, job, Instant::now());
        }
        Ok(())
    }

    fn in_flight(&self) -> usize {
        self.entrance.lock().in_flight.len()
    }

    /// While something else is awaited nobody waits beyond the time.
    async fn meanwhile<T>(
        &mut self,
        something: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        tokio::pin!(something);
        loop {
            let look_at = self.entrance.lock().in_flight.look_at();
            tokio::select! {
                biased;
                done = &mut something => return done,
                () = at(look_at), if look_at.is_some() => {
                    self.look_for_overdue().map_err(|reason| BrokerError::Lost { reason })?;
                }
            }
        }
    }

    /// Takes all confirms that are ready.
    fn confirmed(&mut self, first: Option<Confirmed>) -> Result<(), String> {
        let (mut next, mut lost) = (first, None);
        while let Some((number, result)) = next {
            match result.map(publication) {
                Ok((publication, returned)) => {
                    if let Some(returned) = returned {
                        self.returned(&returned);
                    }
                    self.returns.confirmed(number, publication);
                }
                Err(Unconfirmed { error, written }) => {
                    let mut on_channel = self.entrance.lock();
                    // Nobody else is to put anything on it.
                    on_channel.channel = None;
                    if let Some(job) = on_channel.in_flight.get_mut(number).filter(|_| !written) {
                        job.sent -= 1;
                    }
                    lost = Some(error);
                }
            }
            next = self.entrance.next_confirmed();
        }
        let mut settled = std::mem::take(&mut self.settled);
        self.returns.settle_into(&mut settled);
        settled.drain(..).for_each(|(number, publication)| self.settle(number, publication));
        self.settled = settled;
        match lost {
            None => Ok(()),
            Some(error) => {
                self.strike(&error);
                Err(error.to_string())
            }
        }
    }

    fn returned(&mut self, returned: &BasicReturnMessage) {
        let (id, routing_key) = (returned.delivery.properties.message_id(), returned.delivery.routing_key.as_str());
        let id = id.as_ref().map(ShortString::as_str);
        let meant = |job: &Job| job.mandatory && job.message_id() == id && *job.routing_key == *routing_key;
        let found = self.entrance.lock().in_flight.iter_mut().find(|(_, job)| meant(job)).map(|(number, _)| number);
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

    /// The channel has ended, and why: what the broker says may reach its messages later than its consumer.
    async fn replies_ended(&mut self) -> String {
        let first = match self.in_flight() {
            0 => None,
            _ => timeout(SAYS_WHY, poll_fn(|cx| self.entrance.lock().confirms.poll_next(cx))).await.ok(),
        };
        self.confirmed(first).err().unwrap_or_else(|| "the reply consumer ended".into())
    }

    /// The broker closed the channel or the connection because of some message. One that must have been it hears of it.
    fn strike(&mut self, error: &lapin::Error) {
        let accused = accused(error, &mut self.entrance.lock(), self.entrance.replies_only);
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
            Verdict::TryElsewhere => self.rejections.try_elsewhere(job, &self.connection),
            Verdict::Stuck => {
                if !std::mem::replace(&mut self.stuck, true) {
                    let routing_key = &*job.routing_key;
                    tracing::warn!(
                        routing_key,
                        "the broker rejects on this channel what it takes on others; opening a new one"
                    );
                }
                // It goes out once more with all that is in flight.
                self.entrance.lock().in_flight.put_back(number, job);
            }
        }
    }

    fn resolve(&mut self, number: u64, outcome: Outcome) {
        if let Some(job) = self.take(number) {
            job.resolve(outcome);
        }
    }

    fn take(&mut self, number: u64) -> Option<Box<Job>> {
        self.entrance.lock().in_flight.remove(number)
    }

    fn hand_back(&mut self, owner: &mut Owner, end: &End) {
        let why = if let End::Lost(reason) = end { reason.as_str() } else { "nobody publishes any more" };
        let now = Instant::now();
        self.rejections.end();
        let (mut in_flight, mut confirms) = self.entrance.lock().end();
        // Requests that were not sent yet go out on the next channel. Those that were are told first that no reply will come.
        (owner.replies)(ReplyEvent::Lost);
        let mut suspects = Vec::new();
        for mut job in in_flight.take_newest_first() {
            if job.awaits_reply || job.deadline <= now {
                job.give_up(why);
            }
            // What has been told how it ended must not leave any more.
            if !job.is_awaited() {
                continue;
            }
            self.entrance.waits(&mut job);
            if self.entrance.replies_only && job.strikes > 0 {
                suspects.push(job);
            } else {
                owner.waiting.push_front(job);
            }
        }
        owner.waiting.extend(suspects.into_iter().rev());
        if self.channel.status().connected() {
            let channel = Arc::clone(&self.channel);
            owner.link.handle.spawn(async move {
                // The client lets the end of a channel overtake its messages, which cost the connection then.
                let _ = timeout(ANSWER_TIMEOUT, confirms.written()).await;
                channel.close(200, "OK".into()).await
            });
        }
    }
}

/// Waits until then; without a time for ever.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn open_replies(channel: Channel) -> Result<lapin::Consumer, BrokerError> {
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consuming =
        channel.basic_consume(DIRECT_REPLY_TO.into(), ShortString::default(), options, FieldTable::default());
    answered("consume replies", consuming).await?.map_err(|error| on_channel(&error))
}

/// What a confirm says of its own message, and a message that came back with it, which may be another one.
fn publication(confirmation: Confirmation) -> (Publication, Option<BasicReturnMessage>) {
    match confirmation {
        Confirmation::Ack(returned) => (Publication::Confirmed, returned),
        Confirmation::Nack(returned) => (Publication::Rejected, returned),
        // Would mean that confirms are off; then nothing is known, and nothing may be called a success.
        Confirmation::NotRequested => (Publication::Unknown("the channel has no confirms".into()), None),
    }
}

/// The next reply; for ever if none are awaited.
async fn next_reply(replies: &mut Option<lapin::Consumer>) -> Option<ReplyEvent> {
    let Some(consumer) = replies else { return std::future::pending().await };
    let delivery = consumer.next().await?.ok()?;
    let properties = Arc::new(from_client(&delivery.properties));
    Some(ReplyEvent::Arrived { properties, payload: Bytes::from(delivery.data) })
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
