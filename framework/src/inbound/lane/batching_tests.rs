//! What a lane does in one turn when much has happened at once.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, ready};
use proptest::prelude::*;

use super::property_tests::{handled, settings, spec};
use super::*;
use crate::broker::any::Told;
use crate::broker::{BrokerError, Consumer, Delivery, DeliveryChannel, Receipt, any};
use crate::handler::{Asked, FailureClass, Outcome};
use crate::host::{Arrival, End};
use crate::inbound::lane::event::Event;
use crate::message::Kind;

/// More deliveries than enter the mailbox together.
const PREFETCH: u16 = 20;

/// A consumer with deliveries that are ready.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<VecDeque<Delivery>>>);

impl Consumer for Script {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Delivery, BrokerError>>> {
        let come = self.0.lock().unwrap().pop_front();
        come.map_or(Poll::Pending, |delivery| Poll::Ready(Some(Ok(delivery))))
    }

    fn cancel(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(ready(()))
    }

    fn is_live(&self) -> bool {
        true
    }
}

/// A lane whose deliveries are numbered and tagged in their order.
struct Turns {
    lane: LaneLoop,
    inbox: Arc<Mutex<Vec<Deliver>>>,
    channel: Arc<Told>,
    come: u64,
    handled: VecDeque<Arrival>,
}

impl Turns {
    async fn begin(change: impl FnOnce(&mut LaneSettings)) -> Self {
        let inbox = Arc::default();
        let mut settings = settings(&inbox, spec(Kind::Command)).await;
        settings.prefetch = PREFETCH;
        change(&mut settings);
        let mut lane = LaneLoop::new(settings);
        lane.begin();
        Self { lane, inbox, channel: Arc::default(), come: 0, handled: VecDeque::new() }
    }

    fn delivery(&mut self) -> Delivery {
        self.come += 1;
        Delivery {
            envelope: Arc::new(any::command(&self.come.to_string())),
            redelivered: false,
            delivery_count: None,
            receipt: Receipt::new(self.come, Arc::clone(&self.channel) as Arc<dyn DeliveryChannel>),
        }
    }

    /// One turn, without waiting for events. Afterwards the mailbox has what was handed over.
    async fn turn(&mut self, consumer: &mut Box<dyn Consumer>) -> Option<Event> {
        // A lane that has used up its budget yields too.
        tokio::task::yield_now().await;
        self.lane.hand_over_buffered();
        let event = self.lane.at_once(consumer, None);
        self.lane.deliver();
        // A delivery without an outcome is in the mailbox, or was taken out of it.
        while self.handled.len() < self.lane.deliveries.held.len() - self.lane.outcomes.len() {
            for deliver in self.inbox.lock().unwrap().drain(..) {
                assert!(!deliver.arrivals.is_empty() && deliver.arrivals.len() <= 8, "{}", deliver.arrivals.len());
                self.handled.extend(deliver.arrivals);
            }
            tokio::task::yield_now().await;
        }
        event
    }

    fn finish(&mut self, class: Option<FailureClass>) {
        let Some(arrival) = self.handled.pop_front() else { return };
        let outcome = class.map_or(Outcome::Done(None), |class| Outcome::failed(class, "code", "text"));
        let mut handled = handled(outcome, Asked::OneWay);
        if handled.settlement.end == End::DeadLetter {
            // The policy of an actor that stops at poison says so.
            handled.settlement.end = End::Stop;
        }
        arrival.ticket.finish(handled, None);
    }
}

/// In each step deliveries come or are finished, and then the lane takes a turn.
async fn take_turns(steps: Vec<(bool, usize)>) -> Result<(), TestCaseError> {
    let mut turns = Turns::begin(|_| {}).await;
    let script = Script::default();
    let mut consumer: Box<dyn Consumer> = Box::new(script.clone());
    let mut taken = 0;
    for (come, count) in steps.into_iter().chain(std::iter::repeat_n((false, 8), 60)) {
        if come {
            script.0.lock().unwrap().extend((0..count).map(|_| turns.delivery()));
        } else {
            taken += count.min(turns.handled.len());
            (0..count).for_each(|_| turns.finish(None));
        }
        let event = turns.turn(&mut consumer).await;
        prop_assert!(!matches!(event, Some(Event::Ended(_) | Event::Stop | Event::Controlled)));
        prop_assert!(
            turns.lane.deliveries.held.len() <= PREFETCH.into(),
            "{} are held",
            turns.lane.deliveries.held.len()
        );
        let acked = turns.channel.acked.lock().unwrap().clone();
        prop_assert_eq!(&acked, &(1..=acked.len() as u64).collect::<Vec<_>>(), "in the order in which they came");
        prop_assert!(acked.len() <= taken);
        prop_assert!(turns.channel.given_back.lock().unwrap().is_empty());
    }
    prop_assert_eq!(turns.channel.acked.lock().unwrap().len() as u64, turns.come, "all of them");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn what_comes_at_once_is_handed_over_in_its_order_as_far_as_there_are_permits_and_settled(
        steps in prop::collection::vec((any::<bool>(), 0..30_usize), 0..12)
    ) {
        actix::System::new().block_on(take_turns(steps))?;
    }
}

#[test]
fn what_ends_behind_the_message_that_an_ordered_actor_stops_at_keeps_its_place() {
    actix::System::new().block_on(async {
        let mut turns = Turns::begin(|settings| settings.ordered = true).await;
        let script = Script::default();
        script.0.lock().unwrap().extend((0..4).map(|_| turns.delivery()));
        let mut consumer: Box<dyn Consumer> = Box::new(script);
        turns.turn(&mut consumer).await;
        let classes = [None, Some(FailureClass::Permanent), Some(FailureClass::Shutdown), Some(FailureClass::Shutdown)];
        classes.into_iter().for_each(|class| turns.finish(class));
        for _ in 0..4 {
            turns.turn(&mut consumer).await;
        }
        assert_eq!(*turns.channel.acked.lock().unwrap(), [1]);
        assert_eq!(*turns.channel.given_back.lock().unwrap(), [0; 0], "one by one they would lose their places");
        turns.lane.end(Ended::Paused, consumer).await;
        assert_eq!(turns.channel.given_back.lock().unwrap().len(), 3, "the channel takes them back as it closes");
    });
}

#[test]
fn a_lane_that_leaves_is_not_woken_for_its_breaker() {
    actix::System::new().block_on(async {
        let (window, pause) = (Duration::from_secs(30), Duration::ZERO);
        let breaker = Breaker { percent: 50, least: 1, window, pause };
        let mut turns = Turns::begin(|settings| settings.breaker = Some(breaker)).await;
        turns.lane.breaker.count(&Outcome::failed(FailureClass::Transient, "code", "text"), 0, Instant::now);
        let mut consumer: Box<dyn Consumer> = Box::new(Script::default());
        let leaving = turns.lane.next_event(&mut consumer, Some(Ended::Paused));
        tokio::pin!(leaving);
        // The pause is over already: if the lane listened for its end, the next poll would see it.
        for _ in 0..20 {
            assert!(futures::poll!(&mut leaving).is_pending(), "there is nothing to do");
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_message_that_an_ordered_actor_gives_back_goes_to_its_place_with_all_that_follow_and_the_channel_is_opened_again() {
    actix::System::new().block_on(async {
        let mut turns = Turns::begin(|settings| settings.ordered = true).await;
        let script = Script::default();
        script.0.lock().unwrap().extend((0..3).map(|_| turns.delivery()));
        let mut consumer: Box<dyn Consumer> = Box::new(script);
        turns.turn(&mut consumer).await;
        for class in [FailureClass::Infrastructure, FailureClass::Shutdown, FailureClass::Shutdown] {
            turns.finish(Some(class));
        }
        for _ in 0..3 {
            turns.turn(&mut consumer).await;
        }
        assert_eq!(*turns.channel.given_back.lock().unwrap(), [0; 0], "one by one they would lose their places");
        assert!(turns.lane.deliveries.returns, "it is opened again at once");
        turns.lane.end(Ended::Lost, consumer).await;
        assert_eq!(turns.channel.given_back.lock().unwrap().len(), 3, "the channel takes them back as it closes");
    });
}
