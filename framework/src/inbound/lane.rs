//! One lane of a bridge: takes a permit, then pulls; hands over to the mailbox; settles what comes back.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::Recipient;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError, Consumer, Delivery, DeliveryChannel};
use crate::bus::Counters;
use crate::handler::{Asked, FailureClass, Outcome, Policy};
use crate::host::{Deliver, Finished, Made, Ticket};
use crate::inbound::decide::{Case, End, Settlement, SkewPolicy, after_crashes, decide};
use crate::inbound::forward::skewed_for;
use crate::inbound::open::{Opened, open};
use crate::inbound::settle::{HeldDelivery, Receive, Settler};
use crate::inbound::states::LaneStates;
use crate::inbound::topology::LanePlan;
use crate::message::{Envelope, Problem};

/// The first pause before a consumer is opened again; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before a consumer is opened again.
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// What a lane needs.
pub(super) struct LaneSettings {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) mailbox: Recipient<Deliver>,
    pub(super) plan: LanePlan,
    pub(super) prefetch: u16,
    /// By the handler's place in the table.
    pub(super) policies: Rc<[Policy]>,
    /// For a message that no handler takes.
    pub(super) policy: Policy,
    pub(super) ordered: bool,
    pub(super) skew: SkewPolicy,
    pub(super) settler: Settler,
    pub(super) states: LaneStates,
    /// Fires when running handlers are dropped: nothing is waited for any more.
    pub(super) abandon: CancellationToken,
}

/// Everything that can wake a lane.
enum Event {
    Pulled(Option<Result<Box<Delivery>, BrokerError>>),
    Finished(Finished),
    Settled(u64, Receive),
    /// Nothing else is about to happen.
    Quiet,
    Stop,
}

pub(super) struct LaneLoop {
    settings: LaneSettings,
    counters: Arc<Counters>,
    state: usize,
    held: HashMap<u64, HeldDelivery>,
    next_number: u64,
    done: mpsc::Sender<Finished>,
    outcomes: mpsc::Receiver<Finished>,
    settle: mpsc::Sender<(u64, Receive)>,
    settled: mpsc::Receiver<(u64, Receive)>,
    /// Tells the tickets of the present epoch whether it lasts.
    live: Arc<AtomicBool>,
    /// The first delivery of the present epoch; the channels of those before it have closed.
    epoch_began: u64,
    /// How many of those are still held, because their handlers run.
    stale: usize,
    /// The channel that has acknowledgements to send, if there are any.
    unflushed: Option<Arc<dyn DeliveryChannel>>,
    given_back: u64,
}

impl LaneLoop {
    pub(super) fn new(settings: LaneSettings) -> Self {
        // For every permit, and for as many deliveries whose channel has closed.
        let room = 2 * usize::from(settings.prefetch).max(1);
        let (done, outcomes) = mpsc::channel(room);
        let (settle, settled) = mpsc::channel(room);
        let state = settings.states.add(settings.plan.queue_name());
        let counters = Arc::clone(&settings.settler.counters);
        let live = Arc::new(AtomicBool::new(false));
        Self {
            settings,
            counters,
            state,
            held: HashMap::new(),
            next_number: 0,
            done,
            outcomes,
            settle,
            settled,
            live,
            epoch_began: 0,
            stale: 0,
            unflushed: None,
            given_back: 0,
        }
    }

    /// Consumes until the app stops; each turn is one channel epoch. `started` hears of the first consumer, or of
    /// the mistake that makes one impossible. Returns how many deliveries were given back at the end.
    pub(super) async fn run(mut self, started: oneshot::Sender<Result<(), BrokerError>>) -> u64 {
        let mut started = Some(started);
        let mut pause = FIRST_PAUSE;
        let mut epoch = 0;
        // Without limit of tries: a lane that gives up would look alive and consume nothing.
        loop {
            let stopping = self.settings.settler.stopping.clone();
            let spec = self.settings.plan.consumer(self.settings.prefetch, epoch);
            let opened = tokio::select! {
                () = stopping.cancelled() => return self.drained().await,
                opened = self.settings.broker.consume(&spec) => opened,
            };
            epoch += 1;
            match opened {
                Ok(consumer) => {
                    pause = FIRST_PAUSE;
                    Counters::add(&self.counters.consumers_opened);
                    self.settings.states.set(self.state, true, None);
                    if let Some(started) = started.take() {
                        // Whoever started us has given up; we will hear that we are to stop.
                        let _ = started.send(Ok(()));
                    }
                    if self.epoch(consumer).await {
                        return self.given_back;
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
                    tracing::warn!(queue = %spec.queue.name, %error, ?pause, "cannot consume; trying again");
                }
            }
            tokio::select! {
                () = stopping.cancelled() => return self.drained().await,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LAST_PAUSE),
            }
        }
    }

    /// The app stops while there is no consumer: what still runs is waited for, until running handlers are dropped.
    async fn drained(&mut self) -> u64 {
        while !self.held.is_empty() {
            tokio::select! {
                Some(finished) = self.outcomes.recv() => self.finished(finished),
                Some((number, receive)) = self.settled.recv() => self.release(number, receive),
                () = self.settings.abandon.cancelled() => break,
            }
        }
        self.given_back
    }

    /// One channel epoch. Whether the lane has stopped for good.
    async fn epoch(&mut self, mut consumer: Box<dyn Consumer>) -> bool {
        self.live = Arc::new(AtomicBool::new(true));
        (self.epoch_began, self.stale) = (self.next_number, self.held.len());
        let permits = usize::from(self.settings.prefetch).max(1);
        Self::count_permits(&self.counters, permits, true);
        let mut stopping = false;
        let stopped = loop {
            if stopping && self.held.is_empty() {
                break true;
            }
            // Those that are held from before take no permit of the new channel, but their number is limited too.
            let permit = self.held.len() - self.stale < permits && self.held.len() < 2 * permits;
            match self.next_event(&mut consumer, stopping, permit).await {
                Event::Pulled(Some(Ok(delivery))) => self.hand_over(*delivery),
                Event::Pulled(Some(Err(error))) => {
                    tracing::warn!(queue = self.settings.plan.queue_name(), %error, "the consumer ended; opening it again");
                    break false;
                }
                Event::Pulled(None) => {
                    tracing::warn!(
                        queue = self.settings.plan.queue_name(),
                        "the consumer was cancelled by the broker; opening it again"
                    );
                    break false;
                }
                Event::Finished(finished) => self.finished(finished),
                Event::Settled(number, receive) => self.release(number, receive),
                Event::Quiet => self.flush(),
                Event::Stop if stopping => break true,
                Event::Stop => {
                    stopping = true;
                    consumer.cancel().await;
                }
            }
        };
        self.live.store(false, Ordering::Release);
        self.settings.states.set(self.state, false, None);
        self.unflushed = None;
        Self::count_permits(&self.counters, permits.saturating_sub(self.held.len() - self.stale), false);
        if stopped {
            self.give_rest_back();
            consumer.close().await;
        }
        stopped
    }

    async fn next_event(&mut self, consumer: &mut Box<dyn Consumer>, stopping: bool, permit: bool) -> Event {
        let stop = if stopping { &self.settings.abandon } else { &self.settings.settler.stopping };
        tokio::select! {
            biased;
            Some(finished) = self.outcomes.recv() => Event::Finished(finished),
            Some((number, receive)) = self.settled.recv() => Event::Settled(number, receive),
            () = stop.cancelled() => Event::Stop,
            pulled = consumer.next(), if permit && !stopping => Event::Pulled(pulled.map(|pulled| pulled.map(Box::new))),
            () = std::future::ready(()), if self.unflushed.is_some() => Event::Quiet,
        }
    }

    fn hand_over(&mut self, delivery: Delivery) {
        let identity = &self.settings.settler.bus.identity;
        let (redelivered, count) = (delivery.redelivered, delivery.delivery_count.unwrap_or(0));
        let Opened { envelope, original, receipt } = match open(delivery, self.settings.plan.lane, identity) {
            Ok(opened) => opened,
            Err(receipt) => {
                Counters::add(&self.counters.skipped);
                return receipt.ack();
            }
        };
        let receipt = if self.settings.plan.ack_on_receipt {
            receipt.ack();
            None
        } else {
            Some(receipt)
        };
        let number = self.next_number;
        self.next_number += 1;
        self.held.insert(number, HeldDelivery { receipt, original, envelope: Rc::new(envelope.clone()) });
        Counters::add(&self.counters.in_flight);
        Counters::sub(&self.counters.permits);
        if !self.settings.plan.ack_on_receipt
            && let Some(end) = self.suspected(&envelope, count)
        {
            return self.give_up_suspect(number, end, &envelope);
        }
        let live = (!self.settings.plan.ack_on_receipt).then(|| Arc::clone(&self.live));
        let ticket = Ticket::new(number, live, self.done.clone());
        // A mailbox that is gone drops the ticket, which gives the delivery back.
        self.settings.mailbox.do_send(Deliver {
            lane: self.settings.plan.lane,
            envelope,
            redelivered,
            received: Instant::now(),
            ticket,
        });
    }

    /// What becomes of a message that was delivered so often without an end that it may have killed its process.
    fn suspected(&self, envelope: &Envelope, deliveries: u32) -> Option<End> {
        let most = self.settings.settler.place_of(envelope).and_then(|index| self.settings.policies.get(index));
        let most = most.unwrap_or(&self.settings.policy).retry.most_attempts();
        after_crashes(deliveries, self.settings.ordered, envelope.attempt, most)
    }

    fn give_up_suspect(&mut self, number: u64, end: End, envelope: &Envelope) {
        let settlement = Settlement { answer: Asked::of(envelope) == Asked::Reply && end == End::DeadLetter, end };
        let text = "it was delivered again and again without an end; perhaps it ends the process that handles it";
        let outcome = Outcome::failed(FailureClass::CrashSuspected, Problem::FAILED, text);
        let handler = self.settings.settler.place_of(envelope);
        let made = Made { attempt: envelope.attempt, handler, first_error: None };
        self.settle(number, settlement, outcome, made);
    }

    fn finished(&mut self, finished: Finished) {
        let Finished { number, outcome, made } = finished;
        let Some(held) = self.held.get(&number) else { return };
        if held.receipt.as_ref().is_some_and(|receipt| !receipt.is_live()) {
            // Its channel has closed: the broker delivers it again.
            return self.release(number, Receive::GiveBack);
        }
        let policy = made.handler.and_then(|index| self.settings.policies.get(index)).unwrap_or(&self.settings.policy);
        let settlement = decide(&Case {
            outcome: &outcome,
            asked: Asked::of(&held.envelope),
            attempt: made.attempt,
            policy,
            skewed_for: skewed_for(&held.original.properties),
            skew: &self.settings.skew,
            chance: fastrand::f64(),
        });
        if !Settler::needs_io(settlement) {
            let receive = if settlement.end == End::Ack { Receive::Ack } else { Receive::GiveBack };
            return self.release(number, receive);
        }
        self.settle(number, settlement, outcome, made);
    }

    fn settle(&self, number: u64, settlement: Settlement, outcome: Outcome, made: Made) {
        let Some(held) = self.held.get(&number) else { return };
        let held =
            HeldDelivery { receipt: None, original: Rc::clone(&held.original), envelope: Rc::clone(&held.envelope) };
        let (settler, settle, lane) = (self.settings.settler.clone(), self.settle.clone(), self.settings.plan.lane);
        actix_rt::spawn(async move {
            let receive = settler.settle(settlement, outcome, made, lane, &held).await;
            // Never full, as there are not more deliveries than permits; a lane that is gone gave all back.
            let _ = settle.try_send((number, receive));
        });
    }

    fn release(&mut self, number: u64, receive: Receive) {
        let Some(held) = self.held.remove(&number) else { return };
        Counters::sub(&self.counters.in_flight);
        if number < self.epoch_began {
            self.stale = self.stale.saturating_sub(1);
        } else if self.live.load(Ordering::Acquire) {
            Counters::add(&self.counters.permits);
        }
        let Some(receipt) = held.receipt else {
            if receive == Receive::GiveBack {
                tracing::warn!(queue = self.settings.plan.queue_name(), message_id = %held.envelope.id,
                    "a message that was acknowledged on receipt was dropped unhandled, as at_most_once allows");
            }
            return;
        };
        match receive {
            Receive::Ack => {
                self.unflushed = receipt.ack_with_next_flush().or(self.unflushed.take());
            }
            Receive::GiveBack => {
                if receipt.is_live() {
                    Counters::add(&self.counters.given_back);
                    self.given_back += 1;
                }
                receipt.give_back();
            }
        }
    }

    fn flush(&mut self) {
        if let Some(channel) = self.unflushed.take() {
            channel.flush();
        }
    }

    fn give_rest_back(&mut self) {
        let numbers: Vec<u64> = self.held.keys().copied().collect();
        for number in numbers {
            self.release(number, Receive::GiveBack);
        }
    }

    fn count_permits(counters: &Counters, permits: usize, add: bool) {
        for _ in 0..permits {
            if add { Counters::add(&counters.permits) } else { Counters::sub(&counters.permits) }
        }
    }
}

impl Drop for LaneLoop {
    fn drop(&mut self) {
        // An arbiter that ends before the lane has stopped: receipts give back as they drop.
        self.live.store(false, Ordering::Release);
    }
}
