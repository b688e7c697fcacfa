//! One channel of a lane, from its first delivery to its end.

use std::task::{Context, Poll, Waker};

use foldhash::HashSet;

use crate::broker::{BrokerError, Consumer};
use crate::bus::Counters;
use crate::handler::Lane;
use crate::host::Epoch;
use crate::inbound::lane::event::Found;
use crate::inbound::lane::event::{Ended, Event};
use crate::inbound::lane::probe::Probe;
use crate::inbound::lane::suspect::id_of;
use crate::inbound::lane::{LaneLoop, Pace};
use crate::inbound::settle::Receive;
use crate::message::{MessageId, is_logged};

impl LaneLoop {
    /// One channel epoch.
    pub(super) async fn consume(&mut self, mut consumer: Box<dyn Consumer>) -> Ended {
        self.begin();
        // Set once the lane leaves: it pulls nothing more and finishes what it holds.
        let mut leaving = None;
        let ended = loop {
            if leaving.is_none()
                && let Some(why) = self.wants_to_leave()
            {
                leaving = Some(self.leave_for(why, &mut consumer).await);
            }
            let left = match leaving {
                None => false,
                // A stop also waits for deliveries of earlier channels, whose handlers still run.
                Some(Ended::Stopped) => self.deliveries.held.is_empty(),
                Some(_) => self.deliveries.held.len() == self.deliveries.stale,
            };
            if let Some(why) = leaving.filter(|_| left) {
                break why;
            }
            match self.next_event(&mut consumer, leaving).await {
                Event::Progress => {}
                Event::Ended(Some(error)) => {
                    self.heed(&error);
                    if is_logged("the consumer ended", self.settings.plan.queue_name()) {
                        tracing::warn!(queue = self.settings.plan.queue_name(), %error, "the consumer ended; opening it again");
                    }
                    break Ended::Lost;
                }
                Event::Ended(None) => {
                    tracing::warn!(
                        queue = self.settings.plan.queue_name(),
                        "the consumer was cancelled by the broker; opening it again"
                    );
                    break Ended::Lost;
                }
                Event::Finished(finished) => self.finished(finished),
                Event::Settled(settled) => self.settled(settled),
                Event::Cleared(number, cleared) => self.cleared(number, cleared),
                Event::Answered(number, left) => self.answered(number, left),
                Event::Unanswered => self.unanswered(),
                Event::Quiet => self.flush(),
                Event::Probe => {
                    self.settings.running.forget_old();
                    let (consumers, name) = (&self.settings.consumers, &self.channel.queue_in_epoch);
                    self.probe.ask(|| consumers.look(name));
                }
                Event::Probed(found) if self.stalls(&found) => break Ended::Lost,
                Event::Probed(_) => {}
                Event::Controlled if self.controlled() => {
                    // If the channel closed now, another instance would run these messages a second time, or their answers would
                    // be lost.
                    if !self.finishes_before_it_leaves() {
                        break Ended::Lost;
                    }
                    leaving = Some(self.leave_for(Ended::Lost, &mut consumer).await);
                }
                Event::Controlled => {}
                Event::Stop if leaving == Some(Ended::Stopped) => break Ended::Stopped,
                Event::Stop => {
                    if leaving.replace(Ended::Stopped).is_none() {
                        self.leave(Ended::Stopped, &mut consumer).await;
                    }
                }
            }
        };
        self.end(ended, consumer).await;
        ended
    }

    /// Why the lane should leave by itself, if it should.
    fn wants_to_leave(&mut self) -> Option<Ended> {
        // It may have been paused while the consumer was opened.
        if self.poison.is_some() || self.control.borrow().paused {
            return Some(Ended::Paused);
        }
        if self.waits_too_long() {
            self.rests = true;
            return Some(Ended::Paused);
        }
        let returns = self.deliveries.returns && !self.settings.settler.stopping.is_cancelled();
        returns.then_some(Ended::Lost)
    }

    /// Begins to leave: held deliveries that have not begun do not begin any more.
    async fn leave_for(&mut self, why: Ended, consumer: &mut Box<dyn Consumer>) -> Ended {
        self.channel.epoch.begin_nothing_more();
        self.leave(why, consumer).await;
        why
    }

    /// Cancels the consumer. An ordered actor's consumer stays until the channel closes: after a cancel the next instance would
    /// begin beside it, and messages given back one by one would lose their place.
    async fn leave(&mut self, why: Ended, consumer: &mut Box<dyn Consumer>) {
        self.deliveries.keeps_places = self.settings.ordered;
        if self.deliveries.keeps_places {
            return;
        }
        self.note_load(true);
        let (stop, mut cancelling) = (self.stop(Some(why)).clone(), consumer.cancel());
        // The broker may take its time to answer. Meanwhile outcomes are settled, and a stop does not wait.
        loop {
            tokio::select! {
                biased;
                () = &mut cancelling => return,
                Some(finished) = self.outcomes.recv() => self.finished(finished),
                Some(settled) = self.settled.recv() => self.settled(settled),
                () = stop.cancelled() => return,
            }
            self.flush();
        }
    }

    /// Whether handlers must finish before the channel closes: otherwise another instance would run the same messages, or their
    /// answers would be lost.
    fn finishes_before_it_leaves(&self) -> bool {
        self.settings.ordered || self.settings.plan.lane == Lane::Query
    }

    /// Whether buffered deliveries would wait for the circuit breaker until the broker closes the channel.
    fn waits_too_long(&self) -> bool {
        let Some((until, since)) = self.breaker.opens_at().zip(self.deliveries.buffered_since) else { return false };
        Pace::is_too_long(until.duration_since(since), self.settings.consumer_timeout.get())
    }

    /// Holds fewer deliveries from now on, if the broker's consumer timeout is shorter than believed.
    fn heed(&self, error: &BrokerError) {
        let BrokerError::Unsettled { limit } = error else { return };
        let Some(believed) = self.settings.consumer_timeout.shorten(*limit) else { return };
        let timeout = self.settings.pace.timeout;
        let prefetch = self.settings.prefetch.min(self.settings.pace.most_prefetch(*limit));
        let too_slow =
            if timeout > *limit { "; its handlers may run longer than that: shorten their time-out" } else { "" };
        tracing::warn!(
            queue = self.settings.plan.queue_name(),
            ?believed,
            prefetch,
            "the broker's consumer_timeout is {limit:?}: fewer deliveries are held from now on; set POSTRIDER_CONSUMER_TIMEOUT{too_slow}"
        );
    }

    pub(super) fn permits(&self) -> usize {
        usize::from(self.channel.prefetch).max(1)
    }

    pub(super) fn begin(&mut self) {
        self.channel.epoch = Epoch::begin(&self.settings.abandon, self.settings.ordered);
        (self.deliveries.epoch_began, self.deliveries.stale) =
            (self.deliveries.next_number, self.deliveries.held.len());
        self.deliveries.ended = 0;
        self.channel.open = true;
        self.channel.permits = self.permits();
        self.note_load(false);
        self.rests = false;
        Self::count_permits(&self.counters, self.permits(), true);
        self.restarts = self.control.borrow_and_update().restarts;
        self.probe = Probe::new(self.settings.stall_after);
    }

    pub(super) async fn end(&mut self, ended: Ended, mut consumer: Box<dyn Consumer>) {
        while let Poll::Ready((number, left)) = consumer.poll_answered(&mut Context::from_waker(Waker::noop())) {
            self.answered(number, left);
        }
        self.channel.epoch.end();
        self.channel.open = false;
        self.note_load(true);
        let why = match ended {
            Ended::Paused if self.rests => Some("paused by its circuit breaker"),
            Ended::Paused => Some("paused"),
            Ended::Stopped | Ended::Lost => None,
        };
        let on_purpose = why.is_some() && self.poison.is_none();
        let problem = self.poison.clone().or_else(|| why.map(str::to_owned));
        self.settings.states.set(self.state, on_purpose, problem);
        Self::count_permits(
            &self.counters,
            self.permits().saturating_sub(self.deliveries.held.len() - self.deliveries.stale),
            false,
        );
        if ended != Ended::Lost {
            self.flush();
            if ended == Ended::Stopped {
                self.end_alone_runs().await;
                self.give_rest_back();
            }
            consumer.close().await;
        }
        let mut acknowledged = std::mem::take(&mut self.deliveries.acknowledged);
        if ended == Ended::Lost {
            // If an id was delivered once more, nobody can tell which of the two comes again. So it is handled.
            let here = self.ids_of_channel();
            acknowledged.retain(|envelope| !here.contains(&envelope.id));
            self.settings.running.acknowledged(acknowledged);
            self.lose_alone_runs();
        }
        self.lose_all();
        if self.settings.plan.lane == Lane::Durable {
            self.settings.running.set_active(false);
        }
        // The channel closes first, so that all messages return to their places at once.
        drop(consumer);
        // No other event reports the end of these answers.
        for (_, number) in std::mem::take(&mut self.answers.answering) {
            self.release(number, Receive::Ack);
        }
        self.channel.unflushed = None;
        self.deliveries.buffered_since = None;
        self.deliveries.buffer.clear();
        self.deliveries.parked.clear();
        (self.deliveries.keeps_places, self.deliveries.returns) = (false, false);
    }

    /// The ids of unsettled deliveries of the present channel.
    fn ids_of_channel(&self) -> HashSet<MessageId> {
        let held = self.deliveries.held.iter().filter(|(number, _)| **number >= self.deliveries.epoch_began);
        let buffered = self.deliveries.buffer.iter().filter_map(id_of);
        held.map(|(_, held)| held.envelope.id.clone()).chain(buffered).collect()
    }

    /// Remembers that this process survived its unsettled deliveries: their redelivery raises no suspicion. Those without an id
    /// keep the id they have here.
    fn lose_all(&mut self) {
        for delivery in &mut self.deliveries.buffer {
            let nameless = self.settings.running.name(delivery, self.settings.plan.lane);
            if let Some(id) = id_of(delivery) {
                self.known_redeliveries.add(id.clone());
                nameless.into_iter().for_each(|nameless| self.settings.running.lose(nameless, id.clone()));
            }
        }
        let held = self.deliveries.held.iter().map(|(number, held)| (*number, held.nameless, held.envelope.id.clone()));
        for (number, nameless, id) in held.collect::<Vec<_>>() {
            // Deliveries of earlier channels were lost with their channels.
            if number >= self.deliveries.epoch_began {
                self.lose(nameless, &id);
            }
            self.known_redeliveries.add(id);
        }
    }

    /// Whether the queue has messages that are not delivered, although there is room.
    fn stalls(&mut self, found: &Found) -> bool {
        // While the broker takes no messages, it takes no answers and delivers no more than the prefetch.
        if self.settings.plan.lane == Lane::Query && self.settings.consumers.is_blocked() {
            return false;
        }
        let Some(stall) = self.probe.judge(found, self.settings.ordered) else { return false };
        Counters::add(&self.counters.stalls);
        tracing::error!(queue = self.settings.plan.queue_name(), stall, "the consumer is stalled; opening it again");
        true
    }

    /// Reads a new order. Returns whether the consumer must be opened again.
    fn controlled(&mut self) -> bool {
        let control = *self.control.borrow_and_update();
        let restart = control.restarts != self.restarts;
        if restart || control.paused {
            let queue = self.settings.plan.queue_name();
            if is_logged("a lane was told to pause or restart", queue) {
                let told = if control.paused { "pause" } else { "restart" };
                tracing::info!(queue, told, "a lane was told to pause or restart");
            }
        }
        restart
    }
}
