//! The publisher over confirm channels. One task owns each confirm channel: it publishes the messages that callers did not send
//! directly, and awaits all confirms.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::future::BoxFuture;
use lapin::{Channel, Connection};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::adapter::amqp::{Delays, Routed};
use crate::adapter::rabbitmq::declare;
use crate::adapter::rabbitmq::publishing::channel_life::{ChannelLife, End};
use crate::adapter::rabbitmq::publishing::job::{Job, Outcome};
use crate::adapter::rabbitmq::publishing::owner::{MAX_WAITING, Owner, QUEUE};
use crate::adapter::rabbitmq::publishing::send_path::SendPath;
use crate::adapter::rabbitmq::publishing::waiting::Waiting;
use crate::adapter::rabbitmq::reconnect::{Link, LinkState};
use crate::broker::{
    Addressed, BrokerError, Names, Publication, Publisher, ReplyEvent, ReplySink, To, is_direct_reply,
};
use crate::supervise::supervise;

/// Bytes that routing may add to a message's properties after they were cut to fit, such as the queue to which a delay leads.
const ROUTE_BYTES: usize = 512;
/// How long the link may take to notice that its connection is gone.
const LOSS_NOTICE_TIME: Duration = Duration::from_millis(20);

/// Publishes over one link, and direct replies over another. The broker closes the whole connection over a made-up reply address;
/// with a separate link only replies are lost.
pub(in crate::adapter::rabbitmq) struct RabbitPublisher {
    all: ConfirmChannel,
    replies: OnceLock<ConfirmChannel>,
    answering: Arc<Link>,
    delays: Arc<Delays>,
    names: Names,
}

impl RabbitPublisher {
    pub(in crate::adapter::rabbitmq) fn open(
        link: Arc<Link>,
        answering: Arc<Link>,
        delays: Arc<Delays>,
        names: Names,
        replies: ReplySink,
    ) -> Self {
        Self { all: ConfirmChannel::open(link, replies, false), replies: OnceLock::new(), answering, delays, names }
    }
}

impl Publisher for RabbitPublisher {
    fn publish(&self, message: Addressed, deadline: Instant) -> BoxFuture<'static, Outcome> {
        if message.delay.is_some() {
            let (delays, all) = (Arc::clone(&self.delays), self.all.clone());
            let publish = move |routed| all.publish(routed, deadline, 0);
            return Box::pin(async move { delays.publish(message, deadline, publish).await });
        }
        self.channel_for(&message.to).publish(Routed::of(message, &self.names), deadline, 0)
    }

    fn publish_suspect(&self, message: Addressed, deadline: Instant) -> BoxFuture<'static, Outcome> {
        self.channel_for(&message.to).publish(Routed::of(message, &self.names), deadline, 1)
    }

    fn max_properties_bytes(&self) -> usize {
        self.all.link.max_properties().saturating_sub(ROUTE_BYTES)
    }
}

impl RabbitPublisher {
    fn channel_for(&self, to: &To) -> &ConfirmChannel {
        if !matches!(to, To::Queue(queue) if is_direct_reply(queue)) {
            return &self.all;
        }
        self.replies.get_or_init(|| {
            self.answering.begin();
            // This channel sends no requests.
            ConfirmChannel::open(Arc::clone(&self.answering), Arc::new(|_| {}), true)
        })
    }
}

/// A handle to one confirm channel.
#[derive(Clone)]
struct ConfirmChannel {
    send_path: Arc<SendPath>,
    jobs: mpsc::Sender<Box<Job>>,
    link: Arc<Link>,
}

impl ConfirmChannel {
    /// Spawns the owner task on the adapter's runtime, which no caller can block.
    fn open(link: Arc<Link>, replies: ReplySink, replies_only: bool) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let handle = link.handle.clone();
        let (owned, send_path) = (Arc::clone(&link), SendPath::new(Arc::clone(&replies), replies_only));
        let waiting = Waiting::default();
        let mut owner =
            Owner { link: owned, replies, send_path: Arc::clone(&send_path), queue, waiting, replaced: None };
        let (tasks, closed) = (link.tasks.clone(), Arc::clone(&link));
        let closed = async move { closed.until_closed().await };
        handle.spawn(supervise(tasks, "confirm channel".into(), closed, async move || owner.run().await));
        Self { send_path, jobs, link }
    }

    /// Publishes a message. `closed_channels` says how often it was in flight when a channel was closed.
    fn publish(&self, message: Routed, deadline: Instant, closed_channels: u8) -> BoxFuture<'static, Outcome> {
        let (send_path, jobs, link) = (Arc::clone(&self.send_path), self.jobs.clone(), Arc::clone(&self.link));
        Box::pin(async move {
            if link.is_closed() {
                return Err(BrokerError::Stopped);
            }
            let (result, outcome) = oneshot::channel();
            let mut job = Job::new(message, deadline, result, link.max_properties())?;
            job.closed_channels = closed_channels;
            let job = match send_path.send_if_idle(job) {
                Ok(()) => None,
                Err(mut job) => {
                    send_path.count_as_waiting(&mut job);
                    // With room no timer is needed. If the queue is full, callers wait; the order among more than 1 024 waiting
                    // callers is not kept.
                    match jobs.try_send(job) {
                        Ok(()) => None,
                        Err(TrySendError::Full(job)) => Some(job),
                        Err(TrySendError::Closed(_)) => return Err(BrokerError::Stopped),
                    }
                }
            };
            if let Some(job) = job {
                // Unconstrained: a task with an exhausted budget would let the next message overtake this one.
                match timeout_at(deadline, tokio::task::unconstrained(jobs.send(job))).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err(BrokerError::Stopped),
                    Err(_) => {
                        let reason =
                            "the queue to the channel stayed full until the deadline; the message was not sent".into();
                        return Err(BrokerError::Lost { reason });
                    }
                }
            }
            if send_path.is_crowded() {
                return timeout_at(deadline, outcome).await.map_or_else(
                    |_| Ok(Publication::Unknown("too many messages wait for the channel".into())),
                    |outcome| outcome.unwrap_or(Err(BrokerError::Stopped)),
                );
            }
            // The owner answers at the deadline in any case, or when it stops.
            outcome.await.unwrap_or(Err(BrokerError::Stopped))
        })
    }
}

/// Opens a channel, unless the link changes first.
async fn open(connection: &Connection, mut state: watch::Receiver<LinkState>) -> Result<Channel, BrokerError> {
    tokio::select! {
        opened = declare::confirming_at_last(connection) => opened,
        _ = state.changed() => Err(BrokerError::Lost { reason: "the link changed before a channel was open".into() }),
    }
}

impl Owner {
    async fn run(&mut self) {
        self.leave_broken();
        let mut state = self.link.subscribe();
        loop {
            let now = state.borrow_and_update().clone();
            let connection = match now {
                LinkState::Closed => return self.stop().await,
                LinkState::Down(error) => {
                    if !self.wait_down(&mut state, &error).await {
                        return self.stop().await;
                    }
                    continue;
                }
                LinkState::Up(connection, _) => connection,
            };
            let opened = self.meanwhile(open(&connection, state.clone())).await;
            let end = match opened {
                Ok(channel) => {
                    let send_path = Arc::clone(&self.send_path);
                    ChannelLife::new(channel, connection, send_path, self.replaced).run(self).await
                }
                Err(error) => End::Lost(error.to_string()),
            };
            match end {
                End::Unused => return,
                End::Lost(reason) => {
                    tracing::debug!(reason, "the confirm channel ended");
                    let pause = Instant::now() + LOSS_NOTICE_TIME;
                    let changed = async {
                        tokio::select! { changed = state.changed() => changed.is_ok(), () = sleep_until(pause) => true }
                    };
                    if !self.meanwhile(changed).await {
                        return self.stop().await;
                    }
                }
            }
        }
    }

    /// Only a run that panicked leaves a channel behind. That channel counts as lost.
    fn leave_broken(&mut self) {
        let in_flight = {
            let mut on_channel = self.send_path.lock();
            if on_channel.channel.is_none() {
                return;
            }
            on_channel.end().0
        };
        self.take_back(in_flight, "the task of the channel ended");
    }

    /// Awaits `something`. Meanwhile it queues new messages, and answers those whose deadline has passed: a broker that blocks this
    /// connection answers late.
    async fn meanwhile<T>(&mut self, something: impl Future<Output = T>) -> T {
        tokio::pin!(something);
        let mut open = true;
        loop {
            let deadline = self.waiting.look_at();
            tokio::select! {
                biased;
                done = &mut something => return done,
                job = self.queue.recv(), if open && self.waiting.len() < MAX_WAITING => match job {
                    Some(job) => self.waiting.push_back(job),
                    None => open = false,
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    self.waiting.end_overdue(Instant::now(), "the broker takes no messages");
                }
            }
        }
    }

    /// Waits while there is no connection: queues new messages, and answers those whose deadline has passed. Returns whether to go
    /// on.
    async fn wait_down(&mut self, state: &mut watch::Receiver<LinkState>, why: &BrokerError) -> bool {
        loop {
            let deadline = self.waiting.look_at();
            tokio::select! {
                changed = state.changed() => return changed.is_ok(),
                job = self.queue.recv(), if self.waiting.len() < MAX_WAITING => match job {
                    Some(job) => self.waiting.push_back(job),
                    None => return false,
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    self.waiting.end_overdue(Instant::now(), &why.to_string());
                }
            }
        }
    }

    /// Closes the queue and drops the messages in it. Dropping a message answers its caller.
    async fn stop(&mut self) {
        self.queue.close();
        (self.replies)(ReplyEvent::Lost);
        // A caller may be putting a message into the queue at this moment.
        while let Some(job) = self.queue.recv().await {
            drop(job);
        }
    }
}
