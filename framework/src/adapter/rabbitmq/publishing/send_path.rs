//! The send path of one confirm channel. If no message is queued or in flight, the calling thread publishes directly and the owner
//! task need not be woken. Otherwise the owner publishes all waiting messages together, which costs less per message. Order is
//! kept.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use lapin::Channel;
use tokio::time::Instant;

use crate::adapter::rabbitmq::publishing::confirms::{Confirmed, Confirms};
use crate::adapter::rabbitmq::publishing::in_flight::{InFlight, Taken};
use crate::adapter::rabbitmq::publishing::job::{Job, Waits};
use crate::adapter::rabbitmq::publishing::silent::SilentTargets;
use crate::broker::{ReplyEvent, ReplySink};

/// The most sent messages without a confirm.
pub(super) const MAX_UNCONFIRMED: usize = 1_024;

/// The send path of one owner, through all lives of its channel.
pub(super) struct SendPath {
    on_channel: Mutex<ChannelState>,
    waiting: Arc<AtomicUsize>,
    /// Whether the owner last took several messages at once. If so, callers leave the lock to the owner.
    bursts: AtomicBool,
    /// Whether this path sends only replies, whose order among each other does not matter.
    pub(super) replies_only: bool,
}

/// The present channel, and the messages on it.
pub(super) struct ChannelState {
    /// `None` while there is no channel.
    pub(super) channel: Option<Arc<Channel>>,
    /// Whether the channel has a reply consumer, so that requests can be sent.
    pub(super) takes_requests: bool,
    pub(super) in_flight: InFlight,
    pub(super) confirms: Confirms,
    /// Until this time the owner is not woken for confirms of requests: the reply wakes it.
    pub(super) confirms_muted_until: Option<Instant>,
    /// Whether a reply has come since confirms were last polled.
    replied: bool,
    /// Whether the last message sent is a suspect: one that was in flight when an earlier channel was closed, or was sent before
    /// `one_at_a_time_until`. No other message is sent beside it.
    suspect: bool,
    /// Until this time each message is alone on the channel, because an unidentified message has closed channels.
    pub(super) one_at_a_time_until: Option<Instant>,
    owner: Waker,
    /// Targets that confirm nothing.
    pub(super) silent: SilentTargets,
    /// Is told of each request that is sent.
    replies: ReplySink,
}

/// The most overdue messages that are remembered until their confirm comes. With more the channel is given up, which forgets them
/// all.
const MAX_OVERDUE: usize = 16_384;
/// How long a request's confirm may stay unread while replies arrive. The caller waits for the reply anyway; the cost is that it
/// learns this much later that its request is unroutable.
const CONFIRM_MUTE: Duration = Duration::from_millis(2);

impl ChannelState {
    fn new(replies: ReplySink) -> Self {
        Self {
            channel: None,
            takes_requests: false,
            in_flight: InFlight::default(),
            confirms: Confirms::default(),
            confirms_muted_until: None,
            replied: false,
            suspect: false,
            one_at_a_time_until: None,
            owner: Waker::noop().clone(),
            silent: SilentTargets::default(),
            replies,
        }
    }
}

impl SendPath {
    pub(super) fn new(replies: ReplySink, replies_only: bool) -> Arc<Self> {
        let on_channel = Mutex::new(ChannelState::new(replies));
        Arc::new(Self { on_channel, waiting: Arc::default(), bursts: AtomicBool::new(false), replies_only })
    }

    /// Locks the channel's state. Hold the lock only for moments, and never while awaiting.
    pub(super) fn lock(&self) -> MutexGuard<'_, ChannelState> {
        self.on_channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next confirm, for the owner task. From now on a message that another thread sends wakes the owner. `None` when the next
    /// deadline is no longer `look_at`, for which the owner waits.
    pub(super) fn poll_confirmed(&self, look_at: Option<Instant>, cx: &mut Context<'_>) -> Poll<Option<Confirmed>> {
        let mut on_channel = self.lock();
        on_channel.owner.clone_from(cx.waker());
        if on_channel.in_flight.next_deadline() != look_at {
            return Poll::Ready(None);
        }
        if !on_channel.is_unheard() {
            return on_channel.confirms.poll_next(cx).map(Some);
        }
        // The reply goes first, so that its caller is woken once.
        if on_channel.replied {
            on_channel.replied = false;
            return on_channel.confirms.poll_next(&mut Context::from_waker(Waker::noop())).map(Some);
        }
        Poll::Pending
    }

    /// The next confirm that has come already.
    pub(super) fn next_confirmed(&self) -> Option<Confirmed> {
        match self.lock().confirms.poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(confirmed) => Some(confirmed),
            Poll::Pending => None,
        }
    }

    /// Counts the message as waiting, so that no later one is sent directly.
    pub(super) fn count_as_waiting(&self, job: &mut Job) {
        if job.waits.is_none() {
            job.waits = Some(Waits::one_of(&self.waiting));
        }
    }

    /// Whether more messages wait than the owner is sure to take from the queue. Then callers watch their own deadline.
    pub(super) fn is_crowded(&self) -> bool {
        self.waiting.load(Ordering::Acquire) >= MAX_UNCONFIRMED
    }

    /// The owner has taken this number of messages at once.
    pub(super) fn note_burst(&self, together: usize) {
        self.bursts.store(together > 1, Ordering::Relaxed);
    }

    /// Publishes a message if it is the only one; gives it back if it must wait.
    pub(super) fn send_if_idle(&self, job: Box<Job>) -> Result<(), Box<Job>> {
        if self.bursts.load(Ordering::Relaxed) {
            return Err(job);
        }
        // Another thread has the lock and uses the channel; do not wait for it.
        let mut on_channel = match self.on_channel.try_lock() {
            Ok(on_channel) => on_channel,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(job),
        };
        let now = Instant::now();
        let busy = !on_channel.in_flight.is_empty() || self.waiting.load(Ordering::Acquire) > 0;
        if busy
            || (job.awaits_reply() && !on_channel.takes_requests)
            || job.deadline <= now
            || on_channel.silent.holds(|| job.target())
        {
            return Err(job);
        }
        let Some(channel) = on_channel.channel.clone() else { return Err(job) };
        let owner = on_channel.send(&channel, job, now).then(|| on_channel.owner.clone());
        drop(on_channel);
        if let Some(owner) = owner {
            owner.wake();
        }
        Ok(())
    }
}

impl ChannelState {
    /// Sends a message. Returns whether the owner must be woken now: the client is done with the message already, or the next
    /// deadline has changed.
    pub(super) fn send(&mut self, channel: &Arc<Channel>, mut job: Box<Job>, now: Instant) -> bool {
        job.sent += 1;
        job.sent_at = Some(now);
        job.waits = None;
        if let Some(id) = job.reply_id() {
            (self.replies)(ReplyEvent::Sent { id: id.clone() });
        }
        self.silent.sent(|| job.target());
        self.suspect = job.closed_channels > 0 || self.one_at_a_time_until.is_some_and(|until| now < until);
        let (number, look_at) = (self.in_flight.next_number(), self.in_flight.next_deadline());
        let owner = if self.is_unheard() && job.awaits_reply() { Waker::noop() } else { &self.owner };
        let sent_at_once = self.confirms.publish(number, channel, &mut job, owner);
        self.in_flight.push(job);
        sent_at_once || self.in_flight.next_deadline() != look_at
    }

    /// Whether the message may be sent now: the channel has room, and no message must be alone.
    pub(super) fn has_room_for(&self, job: &Job) -> bool {
        let alone = self.suspect || job.closed_channels > 0 || self.one_at_a_time_until.is_some();
        self.in_flight.is_empty() || (!alone && self.in_flight.len() < MAX_UNCONFIRMED)
    }

    /// Answers the callers whose deadline has passed, and frees their places. Their confirms are still awaited, so that no message
    /// gets lost and no other caller on the channel suffers. An error when more are unconfirmed than can be remembered.
    pub(super) fn look_for_overdue(&mut self, now: Instant) -> Result<(), String> {
        if self.in_flight.next_deadline().is_none_or(|at| at > now) {
            return Ok(());
        }
        for (target, unconfirmed) in self.in_flight.visit_due(now, self.confirms.unwritten()) {
            self.silent.note(target, unconfirmed, now);
        }
        match self.in_flight.overdue() {
            0..MAX_OVERDUE => Ok(()),
            overdue => Err(format!("{overdue} messages were never confirmed")),
        }
    }

    /// Takes out a message that the broker has confirmed, rejected or returned. Also returns whether its target was silent until
    /// now.
    pub(super) fn take(&mut self, number: u64) -> (Option<Box<Job>>, bool) {
        match self.in_flight.take(number) {
            Some(Taken::Job(job)) => {
                let spoke = self.silent.heard(|| job.target());
                (Some(job), spoke)
            }
            Some(Taken::Overdue(target)) => (None, self.silent.heard(|| target)),
            None => (None, false),
        }
    }

    /// A reply has come, and more may follow: mutes confirms for a while.
    pub(super) fn replied(&mut self) {
        self.confirms_muted_until = Some(Instant::now() + CONFIRM_MUTE);
        self.replied = true;
    }

    fn is_unheard(&self) -> bool {
        self.confirms_muted_until.is_some() && self.in_flight.only_requests()
    }

    /// The channel has ended: takes out its messages and confirms.
    pub(super) fn end(&mut self) -> (InFlight, Confirms) {
        (self.channel, self.takes_requests, self.confirms_muted_until, self.suspect) = (None, false, None, false);
        self.silent.channel_ended();
        (std::mem::take(&mut self.in_flight), std::mem::take(&mut self.confirms))
    }
}
