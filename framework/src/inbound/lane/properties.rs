//! Channels that begin and end while deliveries are handled, in any order.

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use actix::{Actor, Context, Handler};
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::broker::any::{NoBroker, Told};
use crate::broker::{Names, Origin, Properties};
use crate::bus::{Bus, Identity, Outlet, PublishSettings};
use crate::codec::Limits;
use crate::handler::{Attributes, FailureClass, Guarantee, HandlerSpec, Outcome, PolicyWords, Scope};
use crate::host::Made;
use crate::inbound::topology::plan;
use crate::message::Kind;

const PREFETCH: u16 = 4;

#[derive(Debug, Clone)]
enum Step {
    /// A channel begins, if there is none.
    Begin,
    /// The broker delivers, if there is a permit.
    Deliver,
    /// A handler ends: well, with a failure of ours, or by being dropped.
    Finish {
        held: usize,
        how: u8,
    },
    /// An answer has left.
    Left,
    /// The channel is lost.
    End,
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Begin),
        6 => Just(Step::Deliver),
        5 => (any::<usize>(), 0..3_u8).prop_map(|(held, how)| Step::Finish { held, how }),
        3 => Just(Step::Left),
        1 => Just(Step::End),
        1 => Just(Step::Flush),
    ]
}

/// A mailbox whose owner does what the test says.
struct Mailbox(Arc<Mutex<Vec<Deliver>>>);

impl Actor for Mailbox {
    type Context = Context<Self>;
}

impl Handler<Deliver> for Mailbox {
    type Result = ();

    fn handle(&mut self, deliver: Deliver, _: &mut Self::Context) {
        self.0.lock().unwrap().push(deliver);
    }
}

fn spec(kind: Kind) -> HandlerSpec {
    let policy = PolicyWords { retry: None, give_up: None, discard: None };
    let (scope, permission) = (Scope::Shared, None);
    HandlerSpec { kind, key: "a.b", scope, permission, policy, method: "method", file: "file", line: 1 }
}

async fn settings(inbox: &Arc<Mutex<Vec<Deliver>>>, spec: HandlerSpec) -> LaneSettings {
    let broker: Arc<dyn Broker> = Arc::new(NoBroker);
    let (names, counters) = (Names::default(), Arc::new(Counters::default()));
    let attributes = Attributes {
        actor: "A",
        service: "invoice",
        queue: None,
        domains: &[],
        guarantee: Guarantee::AtLeastOnce,
        ordered: false,
        stops_at_poison: false,
        prefetch: None,
        concurrency: None,
        timeout: None,
        policy: spec.policy,
    };
    let plan = plan(&attributes, &[spec], &names, "i1", false, crate::inbound::QueryQueue::Classic);
    let publishing = PublishSettings::default();
    let outlet = Outlet::open(&broker, names, Limits::default(), publishing, Arc::clone(&counters)).await.unwrap();
    let bus = Bus::new(outlet, Arc::new(Identity::plain("invoice", "i1")), Arc::clone(&broker));
    let settler = Settler {
        bus,
        counters,
        actor: "A",
        queue: plan.queue.as_str().into(),
        dead_queue: plan.dead_queue.as_str().into(),
        confirm_timeout: publishing.confirm_timeout,
        stopping: CancellationToken::new(),
        handlers: Rc::new([spec]),
    };
    LaneSettings {
        broker,
        mailbox: Mailbox(Arc::clone(inbox)).start().recipient(),
        plan: plan.lanes[0].clone(),
        prefetch: PREFETCH,
        policies: Rc::new([Policy::default()]),
        policy: Policy::default(),
        ordered: false,
        stops_at_poison: false,
        running: Running::default(),
        skew: SkewPolicy::default(),
        settler,
        states: LaneStates::default(),
        abandon: CancellationToken::new(),
        control: watch::channel(Control::default()).1,
        stall_after: Duration::from_secs(3_600),
        breaker: None,
    }
}

/// A lane, the channels it had, and the deliveries that are being handled: which channel and tag they came from.
struct Model {
    lane: LaneLoop,
    /// Commands that nobody waits for, or queries.
    kind: Kind,
    inbox: Arc<Mutex<Vec<Deliver>>>,
    channels: Vec<Arc<Told>>,
    handled: Vec<(usize, u64, Deliver)>,
    /// The tags of the present channel whose answers are on their way, the oldest first.
    answering: VecDeque<u64>,
    expected: Vec<Vec<u64>>,
    tags: u64,
}

impl Model {
    fn is_live(&self, channel: usize) -> bool {
        self.lane.open && channel + 1 == self.channels.len()
    }

    async fn deliver(&mut self) {
        self.tags += 1;
        let channel = Arc::clone(self.channels.last().unwrap());
        let reply_to = (self.kind == Kind::Query).then(|| "reply".into());
        let exchange = Names::default().exchange(self.kind);
        let properties = Properties { reply_to, ..Properties::default() };
        self.lane.hand_over(Delivery {
            origin: Arc::new(Origin { exchange, routing_key: "a.b".into() }),
            redelivered: false,
            delivery_count: None,
            properties: Arc::new(properties),
            payload: Bytes::new(),
            receipt: Receipt::new(self.tags, channel),
        });
        while self.inbox.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let deliver = self.inbox.lock().unwrap().remove(0);
        self.handled.push((self.channels.len() - 1, self.tags, deliver));
    }

    fn finish(&mut self, place: usize, how: u8) {
        let (channel, tag, Deliver { ticket, .. }) = self.handled.remove(place);
        assert_eq!(ticket.is_live(), self.is_live(channel), "what may begin is of the present channel");
        // Also a query that failed is answered.
        let ends_well = how == 0 || (how == 1 && self.kind == Kind::Query);
        match (ends_well && self.is_live(channel), self.kind) {
            (true, Kind::Query) => self.answering.push_back(tag),
            (true, _) => self.expected[channel].push(tag),
            (false, _) => {}
        }
        match how {
            0 => {
                ticket.finish(Outcome::Done(None), Made::default());
            }
            1 => ticket.finish(Outcome::failed(FailureClass::Infrastructure, "code", "text"), Made::default()),
            _ => drop(ticket),
        }
        let finished = self.lane.outcomes.try_recv().unwrap();
        self.lane.finished(finished);
    }

    async fn take(&mut self, step: Step) {
        let of_channel = self.lane.held.len() - self.lane.stale;
        match step {
            Step::Begin if !self.lane.open => {
                self.channels.push(Arc::new(Told { answers: Some(Mutex::default()), ..Told::default() }));
                self.expected.push(Vec::new());
                self.lane.begin();
            }
            Step::Deliver if self.lane.open && of_channel < PREFETCH.into() && self.lane.held.len() < 8 => {
                self.deliver().await;
            }
            Step::Finish { held, how } if !self.handled.is_empty() => self.finish(held % self.handled.len(), how),
            Step::Left => {
                let Some(tag) = self.answering.pop_front() else { return };
                let channel = self.channels.last().unwrap();
                let number = channel.answers.as_ref().unwrap().lock().unwrap().remove(0);
                self.expected[self.channels.len() - 1].push(tag);
                self.lane.answered(number, true);
            }
            Step::End if self.lane.open => {
                self.answering.clear();
                self.channels.last().unwrap().closed.store(true, Ordering::Release);
                self.lane.end(Ended::Lost, Box::new(NoBroker)).await;
            }
            Step::Flush => self.lane.flush(),
            _ => {}
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let stats = self.lane.counters.snapshot();
        let of_channel = self.handled.iter().filter(|(channel, ..)| self.is_live(*channel)).count();
        let of_channel = of_channel + self.answering.len();
        // An answer keeps its permit until it has left, and no longer than its channel.
        let held = self.handled.len() + self.answering.len();
        prop_assert_eq!(self.lane.held.len(), held);
        prop_assert_eq!(stats.in_flight, held as u64);
        let permits = if self.lane.open { usize::from(PREFETCH) - of_channel } else { 0 };
        prop_assert_eq!(stats.permits, permits as u64);
        if self.lane.open {
            prop_assert_eq!(self.lane.held.len() - self.lane.stale, of_channel);
        }
        for (channel, expected) in self.channels.iter().zip(&self.expected) {
            // Nothing of a channel that has ended is acknowledged: neither there, nor on the next one.
            let (acked, back) = (channel.acked.lock().unwrap(), channel.given_back.lock().unwrap());
            prop_assert_eq!(&*acked, expected);
            prop_assert!(!acked.iter().any(|tag| back.contains(tag)), "settled twice");
        }
        Ok(())
    }
}

async fn run(kind: Kind, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let inbox = Arc::default();
    let lane = LaneLoop::new(settings(&inbox, spec(kind)).await);
    let (channels, handled, expected) = (Vec::new(), Vec::new(), Vec::new());
    let mut model = Model { lane, kind, inbox, channels, handled, answering: VecDeque::new(), expected, tags: 0 };
    for step in steps {
        model.take(step).await;
        model.check()?;
    }
    while !model.handled.is_empty() {
        model.finish(0, 0);
        model.check()?;
    }
    while !model.answering.is_empty() {
        model.take(Step::Left).await;
        model.check()?;
    }
    prop_assert!(model.lane.held.is_empty());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_receipt_of_an_ended_channel_settles_nothing_and_no_permit_is_lost(
        kind in prop::sample::select(&[Kind::Command, Kind::Query][..]), steps in prop::collection::vec(step(), 1..60)
    ) {
        actix::System::new().block_on(run(kind, steps))?;
    }
}
