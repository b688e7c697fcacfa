//! Held deliveries, from the permit to the receipt.

use std::sync::Arc;

use tokio::time::Instant;

use crate::broker::{Answered, Delivery};
use crate::bus::Counters;
use crate::handler::{Asked, Lane, Outcome};
use crate::host::{Arrival, Deliver, End, Finished, Handled, Nameless, Settlement, Ticket, Turn};
use crate::inbound::forward::skewed_for;
use crate::inbound::lane::LaneLoop;
use crate::inbound::lane::event::{ONLY_ACK, Settled, Unsettled};
use crate::inbound::open::{Opened, open};
use crate::inbound::settle::{HeldDelivery, Receive, Settler};
use crate::message::{Envelope, MessageId, is_logged};

/// The most deliveries that enter the mailbox together. Larger batches gave no gain and missed the allocator's fast size class.
const MOST_TOGETHER: usize = 8;
/// The largest payload, in bytes, of an acknowledged message that is recognised when it comes again. Larger messages would keep
/// too much memory; they run again.
const MOST_NOTED: usize = 64 * 1024;
/// The most queries remembered as answered twice.
const MOST_ANSWERED_TWICE: usize = 256;

impl LaneLoop {
    /// Takes a permit for a delivery. A suspect must be cleared before it goes to its handler.
    pub(super) fn hand_over(&mut self, mut delivery: Delivery, suspect: bool) {
        let identity = &self.settings.settler.bus.identity;
        let redelivered = delivery.redelivered;
        if self.settings.plan.lane == Lane::Durable {
            self.settings.running.set_active(true);
        }
        let nameless = self.settings.running.name(&mut delivery, self.settings.plan.lane);
        let Opened { envelope, receipt } = match open(delivery, self.settings.plan.lane, identity) {
            Ok(opened) => opened,
            Err(receipt) => {
                Counters::add(&self.counters.skipped);
                return receipt.ack();
            }
        };
        if redelivered && self.answers.answered_twice.contains(&envelope.id) {
            Counters::add(&self.counters.skipped);
            return receipt.ack();
        }
        let receipt = if self.settings.plan.ack_on_receipt {
            receipt.ack();
            None
        } else {
            Some(receipt)
        };
        let number = self.deliveries.next_number;
        self.deliveries.next_number += 1;
        let held = HeldDelivery { receipt, redelivered, nameless, envelope, ended: false, handled: None, alone: None };
        self.deliveries.held.insert(number, held);
        Counters::add(&self.counters.in_flight);
        Counters::sub(&self.counters.permits);
        if suspect { self.clear(number) } else { self.arrives(number, false) }
    }

    /// Sends a delivery to its handler.
    pub(super) fn arrives(&mut self, number: u64, condemned: bool) {
        let Some(held) = self.deliveries.held.get(&number) else { return };
        let envelope = Arc::clone(&held.envelope);
        let epoch = (!self.settings.plan.ack_on_receipt).then(|| Arc::clone(&self.channel.epoch));
        // Only a query is useless once its caller has stopped waiting. Everything else is handled.
        let patience = envelope.timeout.filter(|_| Asked::of(&envelope) == Asked::Query);
        let waited_for_until = patience.and_then(|timeout| Instant::now().checked_add(timeout));
        let skewed_for = skewed_for(&held.envelope);
        let ticket = Ticket::new(number, epoch, self.done.clone());
        let redelivered = held.redelivered;
        if self.deliveries.arrivals.is_empty() {
            self.deliveries.arrivals.reserve_exact(MOST_TOGETHER);
        }
        self.deliveries.arrivals.push(Arrival {
            envelope,
            redelivered,
            waited_for_until,
            skewed_for,
            condemned,
            ticket,
        });
        if self.deliveries.arrivals.len() == MOST_TOGETHER {
            self.deliver();
        }
    }

    /// Puts the deliveries that were handed over into the mailbox.
    pub(super) fn deliver(&mut self) {
        if !self.deliveries.arrivals.is_empty() {
            let (lane, arrivals) = (self.settings.plan.lane, std::mem::take(&mut self.deliveries.arrivals));
            // A mailbox that is gone drops the tickets, which gives the deliveries back.
            self.settings.mailbox.do_send(Deliver { lane, arrivals });
        }
    }

    pub(super) fn finished(&mut self, finished: Finished) {
        let Finished { number, handled, turn } = finished;
        let Some(held) = self.deliveries.held.get_mut(&number) else { return };
        if number >= self.deliveries.epoch_began && !std::mem::replace(&mut held.ended, true) {
            self.deliveries.ended += 1;
        }
        self.breaker.count(&handled.outcome, number, Instant::now);
        let settlement = handled.settlement;
        if held.receipt.as_ref().is_some_and(|receipt| !receipt.is_live()) {
            // Its channel has closed: the broker delivers it again.
            held.handled = turn.map(|turn| (turn, handled));
            return self.settle_alone(number, Receive::GiveBack);
        }
        if settlement.end == End::Stop {
            return self.stop_at(number, &handled.outcome);
        }
        if settlement == (Settlement { answer: true, end: End::Ack })
            && self.answer_on_channel(number, &handled.outcome)
        {
            return;
        }
        if !Settler::needs_io(settlement) {
            let receive = if settlement.end == End::Ack { Receive::Ack } else { Receive::GiveBack };
            if let Some(held) = self.deliveries.held.get_mut(&number) {
                held.handled = turn.map(|turn| (turn, handled));
            }
            return self.settle_alone(number, receive);
        }
        self.acknowledge_before_second_answer(number);
        self.settle(number, handled, turn);
    }

    /// Acknowledges a redelivered query before its second answer. The broker may close the connection over the answer's address;
    /// the acknowledgement would then be lost, and the query would come again forever.
    fn acknowledge_before_second_answer(&mut self, number: u64) {
        let is_query = self.settings.plan.lane == Lane::Query;
        let Some(held) = self.deliveries.held.get_mut(&number).filter(|held| is_query && held.redelivered) else {
            return;
        };
        if self.answers.answered_twice.len() >= MOST_ANSWERED_TWICE {
            self.answers.answered_twice.pop_front();
        }
        self.answers.answered_twice.push_back(held.envelope.id.clone());
        if let Some(receipt) = held.receipt.take().filter(crate::broker::Receipt::is_live) {
            self.channel.unflushed = receipt.ack_with_next_flush();
            self.flush();
        }
    }

    /// Sends an answer on the channel of its query, and returns whether the channel took it. A redelivered query is not answered
    /// here: perhaps its first answer cost the channel.
    fn answer_on_channel(&mut self, number: u64, outcome: &Outcome) -> bool {
        let Some(held) = self.deliveries.held.get(&number).filter(|held| !held.redelivered) else { return false };
        let Some(receipt) = held.receipt.as_ref().filter(|_| self.settings.plan.lane == Lane::Query) else {
            return false;
        };
        let Some(answer) = self.settings.settler.addressed_reply(outcome, &held.envelope) else { return false };
        match receipt.answer(number, answer) {
            Answered::Left => self.answered(number, true),
            Answered::Leaving => {
                self.answers.answering.push_back((Instant::now() + self.settings.settler.confirm_timeout, number));
            }
            Answered::Refused(_) => return false,
        }
        true
    }

    /// The answer to a delivery was sent, or will not be.
    pub(super) fn answered(&mut self, number: u64, left: bool) {
        self.answers.answering.retain(|(_, answering)| *answering != number);
        if left {
            Counters::add(&self.counters.sent);
        }
        self.release(number, if left { Receive::Ack } else { Receive::GiveBack });
    }

    /// Gives up the oldest answer, which was not sent in time: its caller no longer waits.
    pub(super) fn unanswered(&mut self) {
        let Some((_, number)) = self.answers.answering.pop_front() else { return };
        if let Some(held) = self.deliveries.held.get(&number)
            && is_logged("the answer could not be sent in time", self.settings.plan.queue_name())
        {
            tracing::warn!(message_id = %held.envelope.id, key = %held.envelope.key, "the answer could not be sent in time");
        }
        self.release(number, Receive::Ack);
    }

    /// Stops the actor at this message: it returns to its place, and nothing after it is handled.
    fn stop_at(&mut self, number: u64, outcome: &Outcome) {
        let Some(held) = self.deliveries.held.get(&number) else { return };
        let error = if let Outcome::Failed(failed) = outcome { failed.in_short() } else { outcome.as_str().to_owned() };
        let problem = format!("stopped at message {}: {error}; resume the actor when that is mended", held.envelope.id);
        tracing::error!(
            queue = self.settings.plan.queue_name(),
            problem,
            "an ordered actor has stopped, as its policy says"
        );
        self.poison = Some(problem);
        // Later messages keep their places too, even if they end before the lane begins to leave.
        self.deliveries.keeps_places = self.settings.ordered;
        // The receipt is kept until the channel closes. Then the message returns to its place.
        let receipt = self.deliveries.held.get_mut(&number).and_then(|held| held.receipt.take());
        self.deliveries.parked.extend(receipt);
        // `Ack` makes the message no longer a suspect: the operator mends the cause before resuming.
        self.settle_alone(number, Receive::Ack);
    }

    /// Answers and forwards, then uses the receipt. The run is under way until then: a redelivery waits for it.
    fn settle(&mut self, number: u64, handled: Handled, turn: Option<Turn>) {
        let Some(held) = self.deliveries.held.get_mut(&number) else { return };
        let alone = held.alone.take();
        let is_alone = alone.is_some();
        let again =
            HeldDelivery { receipt: None, envelope: Arc::clone(&held.envelope), handled: None, alone: None, ..*held };
        let unsettled = Unsettled { number, settle: Some(self.settle.clone()) };
        let ends = turn.map(|turn| (turn, handled.clone()));
        let (settler, lane) = (self.settings.settler.clone(), self.settings.plan.lane);
        let settling = actix_rt::spawn(async move {
            let receive = settler.settle(handled, lane, &again).await;
            // The run ends with this task, also if the lane panics meanwhile.
            let settled = Settled { number, receive, handled: ends };
            let settled = move || unsettled.end(settled);
            match alone {
                Some(run) => run.end(receive == Receive::Ack, settled).await,
                None => settled(),
            }
        });
        if is_alone {
            self.suspect.removals.retain(|removal| !removal.is_finished());
            self.suspect.removals.push(settling);
        }
    }

    /// Uses the receipt of a delivery that needs nothing published. If it was handled alone, its note is removed first.
    pub(super) fn settle_alone(&mut self, number: u64, receive: Receive) {
        let Some(run) = self.deliveries.held.get_mut(&number).and_then(|held| held.alone.take()) else {
            return self.release(number, receive);
        };
        let unsettled = Unsettled { number, settle: Some(self.settle.clone()) };
        self.end_alone_run(run, receive == Receive::Ack, move || {
            unsettled.end(Settled { number, receive, handled: None });
        });
    }

    /// Everything of a delivery is published.
    pub(super) fn settled(&mut self, mut settled: Settled) {
        if let Some(held) = self.deliveries.held.get_mut(&settled.number)
            && let Some(handled) = settled.handled.take()
        {
            held.handled = Some(handled);
        }
        self.release(settled.number, settled.receive);
    }

    pub(super) fn release(&mut self, number: u64, receive: Receive) {
        let Some(mut held) = self.deliveries.held.remove(&number) else { return };
        Counters::sub(&self.counters.in_flight);
        self.is_through(number);
        if number < self.deliveries.epoch_began {
            self.deliveries.stale = self.deliveries.stale.saturating_sub(1);
        } else {
            self.deliveries.ended -= usize::from(held.ended);
            if self.channel.open {
                Counters::add(&self.counters.permits);
            }
        }
        let (handled, id) = (held.handled.take(), held.envelope.id.clone());
        let Some(receipt) = held.receipt else {
            if receive == Receive::GiveBack && is_logged("dropped unhandled", self.settings.plan.queue_name()) {
                tracing::warn!(queue = self.settings.plan.queue_name(), message_id = %held.envelope.id,
                    "a message that was acknowledged on receipt was dropped unhandled, as at_most_once allows");
            }
            return self.forget(held.nameless, &id);
        };
        let is_live = receipt.is_live();
        if receive == Receive::Ack && is_live && handled.is_some() {
            self.note_acknowledged(held.envelope);
        } else if let Some((turn, mut handled)) = handled {
            if receive == Receive::Ack {
                // Only the acknowledgement is left to do.
                handled.settlement = ONLY_ACK;
            }
            turn.pass_on(handled);
        }
        match receive {
            // The broker takes back the deliveries of a closed channel by itself.
            Receive::Ack if is_live => {
                self.channel.unflushed = receipt.ack_with_next_flush();
                self.forget(held.nameless, &id);
            }
            Receive::Ack => drop(receipt),
            Receive::GiveBack => {
                if is_live {
                    Counters::add(&self.counters.given_back);
                    self.given_back += 1;
                    self.known_redeliveries.add(id.clone());
                    self.lose(held.nameless, &id);
                }
                // One by one, messages would lose their places. The host may see a stop before this lane does.
                if self.deliveries.keeps_places || self.settings.ordered {
                    self.deliveries.parked.push(receipt);
                    self.deliveries.returns = true;
                } else {
                    receipt.give_back();
                }
            }
        }
    }

    /// Notes a message whose acknowledgement may not reach the broker before the channel ends. At most as many as the prefetch: a
    /// later delivery shows that the broker got the earlier acknowledgements.
    fn note_acknowledged(&mut self, envelope: Arc<Envelope>) {
        if self.deliveries.acknowledged.len() >= usize::from(self.channel.prefetch).max(1) {
            self.deliveries.acknowledged.pop_front();
        }
        if envelope.payload.len() <= MOST_NOTED {
            self.deliveries.acknowledged.push_back(envelope);
        }
    }

    /// Forgets the id that a settled delivery was given here.
    fn forget(&self, nameless: Option<Nameless>, id: &MessageId) {
        if let Some(nameless) = nameless {
            self.settings.running.settled(nameless, id);
        }
    }

    /// Remembers the id that a delivery was given here, for its redelivery.
    pub(super) fn lose(&self, nameless: Option<Nameless>, id: &MessageId) {
        if let Some(nameless) = nameless {
            self.settings.running.lose(nameless, id.clone());
        }
    }

    pub(super) fn flush(&mut self) {
        if let Some(channel) = self.channel.unflushed.take() {
            channel.flush();
        }
    }

    pub(super) fn give_rest_back(&mut self) {
        let is_answered = |number: &u64| self.answers.answering.iter().any(|(_, answering)| answering == number);
        let mut numbers: Vec<u64> =
            self.deliveries.held.keys().copied().filter(|number| !is_answered(number)).collect();
        numbers.sort_unstable();
        for number in numbers {
            self.release(number, Receive::GiveBack);
        }
    }

    pub(super) fn count_permits(counters: &Counters, permits: usize, add: bool) {
        for _ in 0..permits {
            if add { Counters::add(&counters.permits) } else { Counters::sub(&counters.permits) }
        }
    }
}
