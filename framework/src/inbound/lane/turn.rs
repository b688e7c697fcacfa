//! One turn of a lane: it hands over new deliveries, settles finished ones, and waits if there is nothing to do.

use std::future::poll_fn;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{BrokerError, Consumer, Delivery};
use crate::handler::LaneLoad;
use crate::inbound::lane::LaneLoop;
use crate::inbound::lane::event::{Ended, Event};
use crate::inbound::lane::parts::Deliveries;
use crate::inbound::lane::suspect::cleared;

/// The result of polling a consumer.
enum Heard {
    Answered(u64, bool),
    Pulled(Option<Result<Delivery, BrokerError>>),
}

/// Whether a turn may take another step. Each step uses the task's budget, so that other tasks get their turn however much a lane
/// has to do.
fn may_go_on() -> bool {
    let budget = tokio::task::coop::poll_proceed(&mut Context::from_waker(Waker::noop()));
    if let Poll::Ready(budget) = &budget {
        budget.made_progress();
    }
    budget.is_ready()
}

/// Polls the consumer. A lane that leaves pulls nothing more.
fn heard(consumer: &mut Box<dyn Consumer>, leaving: Option<Ended>, cx: &mut Context<'_>) -> Poll<Heard> {
    if let Poll::Ready((number, left)) = consumer.poll_answered(cx) {
        return Poll::Ready(Heard::Answered(number, left));
    }
    if leaving.is_some() { Poll::Pending } else { consumer.poll_next(cx).map(Heard::Pulled) }
}

impl LaneLoop {
    /// Hands over buffered deliveries while there are permits.
    pub(super) fn hand_over_buffered(&mut self) {
        // Permits are checked even if the buffer is empty, because the check ends a breaker's pause.
        while self.has_permit() {
            let Some(delivery) = self.deliveries.buffer.pop_front() else { return };
            let suspect = self.is_suspect(&delivery);
            if suspect && !self.deliveries.held.is_empty() {
                // It waits until nothing else is held, and keeps its place meanwhile.
                self.deliveries.buffer.push_front(delivery);
                return;
            }
            if self.deliveries.buffer.is_empty() {
                self.deliveries.buffered_since = None;
            }
            self.hand_over(delivery, suspect);
        }
    }

    /// Notes what the lane holds, before the handlers of what arrives can ask for it.
    pub(super) fn note_load(&self, leaves: bool) {
        let Deliveries { held, stale, ended, buffer, .. } = &self.deliveries;
        let most = match self.channel.open {
            true if self.suspect.alone.is_some() => 1,
            // A breaker that lets nothing through begins nothing before what is held has ended.
            true => self.channel.permits.max(1),
            false => 0,
        };
        // An ordered actor's consumer stays until the channel closes.
        let consumes = self.channel.open && (!leaves || self.settings.ordered);
        let unfinished = (held.len() - stale).saturating_sub(*ended);
        let load = LaneLoad { unfinished, buffered: buffer.len(), most, consumes };
        self.settings.loads.set(self.settings.plan.lane, load);
    }

    fn has_permit(&mut self) -> bool {
        let most = self.permits();
        let permits = self.breaker.permits(most, self.deliveries.next_number, Instant::now);
        self.channel.permits = permits;
        // Deliveries of earlier channels take no permit of the new channel, but their number is limited too.
        self.poison.is_none()
            && self.suspect.alone.is_none()
            && self.deliveries.held.len() - self.deliveries.stale < permits
            && self.deliveries.held.len() < 2 * most
    }

    /// The events that are ready, most important first. A busy lane does most of its work here, without a wake-up.
    pub(super) fn at_once(&mut self, consumer: &mut Box<dyn Consumer>, leaving: Option<Ended>) -> Option<Event> {
        let mut finishes = false;
        while may_go_on()
            && let Ok(finished) = self.outcomes.try_recv()
        {
            self.finished(finished);
            finishes = true;
            // A poison message comes first: the lane must leave.
            if self.poison.is_some() && leaving.is_none() {
                break;
            }
        }
        if finishes {
            return Some(Event::Progress);
        }
        if let Ok(settled) = self.settled.try_recv() {
            return Some(Event::Settled(settled));
        }
        if self.stop(leaving).is_cancelled() {
            return Some(Event::Stop);
        }
        let mut nobody = Context::from_waker(Waker::noop());
        if let Poll::Ready((number, left)) = consumer.poll_answered(&mut nobody) {
            return Some(Event::Answered(number, left));
        }
        if leaving.is_none() {
            if matches!(self.control.has_changed(), Ok(true)) {
                return Some(Event::Controlled);
            }
            if let Some(event) = self.pull_at_once(consumer) {
                return Some(event);
            }
        }
        self.channel.unflushed.is_some().then_some(Event::Quiet)
    }

    /// Pulls ready deliveries while they can be handed over.
    fn pull_at_once(&mut self, consumer: &mut Box<dyn Consumer>) -> Option<Event> {
        let mut progress = None;
        while may_go_on() {
            let Poll::Ready(pulled) = consumer.poll_next(&mut Context::from_waker(Waker::noop())) else { break };
            match self.pulled(pulled) {
                Event::Progress => progress = Some(Event::Progress),
                ended => return Some(ended),
            }
            self.hand_over_buffered();
            if !self.deliveries.buffer.is_empty() {
                break;
            }
        }
        progress
    }

    fn pulled(&mut self, pulled: Option<Result<Delivery, BrokerError>>) -> Event {
        match pulled {
            Some(Ok(delivery)) => {
                self.probe.delivered();
                // A lane with a breaker must know how long a delivery has waited.
                if self.settings.breaker.is_some() && self.deliveries.buffer.is_empty() {
                    self.deliveries.buffered_since = Some(Instant::now());
                }
                self.deliveries.buffer.push_back(delivery);
                Event::Progress
            }
            Some(Err(error)) => Event::Ended(Some(error)),
            None => Event::Ended(None),
        }
    }

    /// The token that ends the lane. While it stops, this is the one that drops running handlers.
    pub(super) fn stop(&self, leaving: Option<Ended>) -> &CancellationToken {
        if leaving == Some(Ended::Stopped) { &self.settings.abandon } else { &self.settings.settler.stopping }
    }

    pub(super) async fn next_event(&mut self, consumer: &mut Box<dyn Consumer>, leaving: Option<Ended>) -> Event {
        // A lane that always has something to do lets other tasks have their turn.
        tokio::task::coop::consume_budget().await;
        // A permit that becomes free while the app stops takes no new delivery.
        if leaving.is_none() && !self.settings.settler.stopping.is_cancelled() {
            self.hand_over_buffered();
        }
        let event = self.at_once(consumer, leaving);
        self.note_load(leaving.is_some());
        self.deliver();
        if let Some(event) = event {
            return event;
        }
        let stop = self.stop(leaving).clone();
        // With all permits taken the broker sends no more. The consumer is polled all the same, to see the channel end.
        let room =
            self.deliveries.buffer.is_empty() && self.deliveries.held.len() - self.deliveries.stale < self.permits();
        self.probe.watch(room && leaving.is_none());
        let half_open = self.breaker.opens_at().filter(|_| leaving.is_none());
        let unanswered = self.answers.answering.front().map(|(until, _)| *until);
        tokio::select! {
            biased;
            Some(finished) = self.outcomes.recv() => Event::Finished(finished),
            Some(settled) = self.settled.recv() => Event::Settled(settled),
            cleared = cleared(&mut self.suspect.clearing) => cleared,
            () = stop.cancelled() => Event::Stop,
            Ok(()) = self.control.changed(), if leaving.is_none() => Event::Controlled,
            heard = poll_fn(|cx| heard(consumer, leaving, cx)) => match heard {
                Heard::Answered(number, left) => Event::Answered(number, left),
                Heard::Pulled(pulled) => self.pulled(pulled),
            },
            // The lane never waits with unflushed acknowledgements.
            () = std::future::ready(()), if self.channel.unflushed.is_some() => Event::Quiet,
            found = self.probe.next() => found,
            () = tokio::time::sleep_until(unanswered.unwrap_or_else(Instant::now)), if unanswered.is_some() => Event::Unanswered,
            // The breaker's pause ends, and one delivery is let through.
            () = tokio::time::sleep_until(half_open.unwrap_or_else(Instant::now)), if half_open.is_some() => Event::Quiet,
        }
    }
}
