//! One lane of a bridge: takes a permit, pulls a delivery, hands it to the mailbox, and settles it by its outcome.

#[cfg(test)]
mod batching_tests;
mod breaker;
mod deliveries;
mod epoch;
mod event;
mod known_redeliveries;
#[cfg(test)]
mod leaving_tests;
#[cfg(test)]
mod model;
mod pace;
mod parts;
mod probe;
#[cfg(test)]
mod property_tests;
mod suspect;
mod turn;

use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bus::Counters;
use crate::handler::{Lane, LaneLoads};
use crate::host::{Deliver, Finished, Running};
use crate::inbound::consumers::Consumers;
use crate::inbound::lane::breaker::BreakerState;
use crate::inbound::lane::event::{Ended, Event, Settled};
use crate::inbound::lane::known_redeliveries::KnownRedeliveries;
use crate::inbound::lane::parts::{Answers, ChannelState, Deliveries, Suspect};
use crate::inbound::lane::suspect::cleared;
use crate::inbound::settle::Settler;
use crate::inbound::states::LaneStates;
use crate::inbound::states::Started;
use crate::inbound::suspects::Notes;
use crate::inbound::topology::LanePlan;
use crate::supervise::Backoff;

pub use breaker::Breaker;
pub use pace::{ConsumerTimeout, Pace};
pub(super) use probe::Probe;

/// Orders to the lanes of an actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Control {
    /// Whether the lanes pause: they consume nothing.
    pub paused: bool,
    /// How often a restart, opening the consumers again, was ordered.
    pub restarts: u64,
}

/// The first pause before a consumer is opened again; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before a consumer is opened again.
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// The state shown for a lane that handles a suspect.
const ALONE: &str = "handles a message alone that may have ended the processes which handled it";
/// A consumer that lasted this long is opened again after the first pause.
const STABLE_AFTER: Duration = Duration::from_secs(5);

/// The settings of a lane.
#[derive(Clone)]
pub(super) struct LaneSettings {
    pub(super) consumers: Arc<dyn Consumers>,
    pub(super) mailbox: Recipient<Deliver>,
    pub(super) plan: LanePlan,
    pub(super) prefetch: u16,
    pub(super) ordered: bool,
    /// The messages that the actor handles right now.
    pub(super) running: Running,
    /// Where the lane notes what it holds.
    pub(super) loads: LaneLoads,
    /// Notes about messages that may end their process.
    pub(super) notes: Notes,
    pub(super) settler: Settler,
    pub(super) states: LaneStates,
    /// Its index in `states`.
    pub(super) state: usize,
    /// Fires when running handlers are dropped. From then on the lane waits for nothing.
    pub(super) abandon: CancellationToken,
    /// Pause, resume, restart.
    pub(super) control: watch::Receiver<Control>,
    /// How long a queue may have messages that are not delivered to a free lane.
    pub(super) stall_after: Duration,
    /// When the lane pauses by itself.
    pub(super) breaker: Option<Breaker>,
    /// How long the broker lets a delivery stay unacknowledged.
    pub(super) consumer_timeout: ConsumerTimeout,
    /// How fast the actor handles messages in the worst case.
    pub(super) pace: Pace,
}

pub(super) struct LaneLoop {
    settings: LaneSettings,
    counters: Arc<Counters>,
    /// Its index in `settings.states`.
    state: usize,
    deliveries: Deliveries,
    answers: Answers,
    channel: ChannelState,
    suspect: Suspect,
    done: mpsc::Sender<Finished>,
    outcomes: mpsc::Receiver<Finished>,
    settle: mpsc::Sender<Settled>,
    settled: mpsc::Receiver<Settled>,
    /// Whether the lane has no consumer because its circuit breaker pauses.
    rests: bool,
    /// Redeliveries that this process itself has caused.
    known_redeliveries: KnownRedeliveries,
    probe: Probe,
    breaker: BreakerState,
    control: watch::Receiver<Control>,
    /// The message that this lane stopped at, and why.
    poison: Option<String>,
    /// The number of ordered restarts when this epoch began.
    restarts: u64,
    given_back: u64,
}

impl LaneLoop {
    pub(super) fn new(settings: LaneSettings) -> Self {
        // Room for one delivery per permit, and for as many deliveries whose channel has closed.
        let room = 2 * usize::from(settings.prefetch).max(1);
        let (done, outcomes) = mpsc::channel(room);
        let (settle, settled) = mpsc::channel(room);
        let state = settings.state;
        let counters = Arc::clone(&settings.settler.counters);
        let channel = ChannelState::none(settings.prefetch, &settings.abandon);
        let (probe, control) = (Probe::new(settings.stall_after), settings.control.clone());
        let breaker = BreakerState::new(settings.breaker.clone());
        Self {
            settings,
            counters,
            state,
            deliveries: Deliveries::default(),
            answers: Answers::default(),
            channel,
            suspect: Suspect::default(),
            done,
            outcomes,
            settle,
            settled,
            rests: false,
            known_redeliveries: KnownRedeliveries::default(),
            probe,
            breaker,
            control,
            poison: None,
            restarts: 0,
            given_back: 0,
        }
    }

    /// Consumes until the app stops; each turn is one channel epoch. `started`, if given, is told of the first consumer, or of
    /// the mistake that makes one impossible. Returns how many deliveries this loop gave back.
    pub(super) async fn run(mut self, mut started: Option<Started>) -> u64 {
        let mut backoff = Backoff::new(FIRST_PAUSE, LAST_PAUSE);
        let mut epoch = 0;
        let stopping = self.settings.settler.stopping.clone();
        // The tries have no limit: a lane that gives up would look alive and consume nothing.
        loop {
            tokio::select! {
                biased;
                () = stopping.cancelled() => return self.drained().await,
                () = self.wanted(started.is_some()) => {}
            }
            let most = self.settings.pace.most_prefetch(self.settings.consumer_timeout.get());
            self.channel.prefetch = self.settings.prefetch.min(most);
            let consumers = Arc::clone(&self.settings.consumers);
            let (name, opening) = consumers.open(self.channel.prefetch, epoch);
            let opened = tokio::select! {
                biased;
                () = stopping.cancelled() => return self.drained().await,
                opened = opening => opened,
            };
            epoch += 1;
            self.channel.queue_in_epoch.clone_from(&name);
            match opened {
                Ok(consumer) => {
                    Counters::add(&self.counters.consumers_opened);
                    self.settings.states.set(self.state, true, None);
                    if let Some(started) = started.take() {
                        // Fails only if the caller no longer waits for the start. The stop token follows.
                        let _ = started.send(Ok(()));
                    }
                    let (opened, first) = (Instant::now(), self.deliveries.next_number);
                    match self.consume(consumer).await {
                        Ended::Stopped => return self.given_back,
                        Ended::Paused => continue,
                        Ended::Lost => {}
                    }
                    // An answer to an address that a stranger made up costs the connection on which queries come. Others must not
                    // wait for that.
                    let has_answered = self.settings.plan.lane == Lane::Query && self.deliveries.next_number > first;
                    if has_answered || opened.elapsed() >= STABLE_AFTER {
                        backoff.reset();
                    }
                }
                Err(error) => {
                    self.settings.states.set(self.state, false, Some(error.to_string()));
                    if error.is_permanent()
                        && let Some(started) = started.take()
                    {
                        let _ = started.send(Err(error));
                        return self.given_back;
                    }
                    tracing::warn!(queue = name, %error, pause = ?backoff.pause(), "cannot consume; trying again");
                }
            }
            tokio::select! {
                biased;
                () = stopping.cancelled() => return self.drained().await,
                Ok(()) = self.control.changed() => {}
                () = tokio::time::sleep(backoff.random()) => backoff.grow(),
            }
        }
    }

    /// Waits until the lane should open a consumer.
    async fn wanted(&mut self, starting: bool) {
        if self.is_paused() && !starting {
            let why = self.poison.clone().unwrap_or_else(|| "paused".into());
            self.settings.states.set(self.state, self.poison.is_none(), Some(why));
            resumed(&mut self.control).await;
            self.poison = None;
        } else if self.poison.take().is_some() {
            // The operator mends the cause, then resumes or restarts the actor.
            let _ = self.control.changed().await;
        } else if let Some(until) = self.breaker.opens_at().filter(|_| std::mem::take(&mut self.rests)) {
            tokio::select! {
                biased;
                // The order is carried out once there is a consumer.
                Ok(()) = self.control.changed() => {}
                () = tokio::time::sleep_until(until) => {}
            }
        }
    }

    /// The app stops while there is no consumer: waits for running handlers until they are dropped.
    async fn drained(&mut self) -> u64 {
        while !self.deliveries.held.is_empty() {
            tokio::select! {
                biased;
                Some(finished) = self.outcomes.recv() => self.finished(finished),
                Some(settled) = self.settled.recv() => self.settled(settled),
                Event::Cleared(number, suspect) = cleared(&mut self.suspect.clearing) => self.cleared(number, suspect),
                () = self.settings.abandon.cancelled() => break,
            }
        }
        self.end_alone_runs().await;
        self.given_back
    }

    fn is_paused(&self) -> bool {
        self.control.borrow().paused
    }
}

/// Waits until a lane may consume again.
async fn resumed(control: &mut watch::Receiver<Control>) {
    // A lane that nobody can resume any more stays paused.
    if control.wait_for(|control| !control.paused).await.is_err() {
        std::future::pending().await
    }
}

impl Drop for LaneLoop {
    fn drop(&mut self) {
        // The arbiter ended before the lane stopped, or the lane panicked. Receipts give back when they drop.
        self.channel.epoch.end();
        if self.channel.open {
            self.settings.states.set(self.state, false, Some("its task ended".into()));
            let permits = usize::from(self.channel.prefetch)
                .max(1)
                .saturating_sub(self.deliveries.held.len() - self.deliveries.stale);
            Self::count_permits(&self.counters, permits, false);
        }
        self.deliveries.held.iter().for_each(|_| Counters::sub(&self.counters.in_flight));
    }
}
