//! Channels that begin and end while deliveries are handled, in any order.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use actix::{Actor, Context, Handler};
use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::broker::any::{NoBroker, Told};
use crate::broker::{Broker, Delivery, Names, Receipt};
use crate::bus::{Bus, Identity, Outlet, PublishSettings, Unsent};
use crate::codec::Limits;
use crate::handler::LaneLoads;
use crate::handler::{Asked, Attributes, FailureClass, Guarantee, HandlerSpec, Outcome, Policy, PolicyWords, Scope};
use crate::host::{Arrival, AttemptRecord, Case, Handled, SkewPolicy, Verdict, verdict};
use crate::inbound::consumers::QueueConsumers;
use crate::inbound::suspects::Suspects;
use crate::inbound::topology::plan;
use crate::message::{Envelope, Key, Kind, MediaType, ReplyTo};

const PREFETCH: u16 = 4;

#[derive(Debug, Clone)]
enum Step {
    /// A channel begins, if none is open.
    Begin,
    /// The broker delivers this many messages together, as far as there are permits.
    Deliver(usize),
    /// A handler ends: well, with an infrastructure failure, or by being dropped.
    Finish {
        held: usize,
        how: u8,
    },
    /// An answer was sent, or will not be.
    Answered(bool),
    /// The channel is lost.
    End,
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Begin),
        6 => (1..=3_usize).prop_map(Step::Deliver),
        5 => (any::<usize>(), 0..3_u8).prop_map(|(held, how)| Step::Finish { held, how }),
        3 => any::<bool>().prop_map(Step::Answered),
        1 => Just(Step::End),
        1 => Just(Step::Flush),
    ]
}

/// A mailbox that only collects: the test decides what happens to its deliveries.
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

pub(super) fn spec(kind: Kind) -> HandlerSpec {
    let policy = PolicyWords { retry: None, give_up: None, discard: None };
    let (scope, permission) = (Scope::Shared, None);
    HandlerSpec {
        kind,
        key: "a.b",
        scope,
        permission,
        policy,
        transaction: None,
        method: "method",
        file: "file",
        line: 1,
    }
}

pub(super) async fn settings(inbox: &Arc<Mutex<Vec<Deliver>>>, spec: HandlerSpec) -> LaneSettings {
    let broker: Arc<dyn Broker> = Arc::new(NoBroker);
    let (names, counters) = (Names::default(), Arc::new(Counters::default()));
    let attributes = Attributes {
        once_by: None,
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
    let outlet = Outlet::open(&broker, Limits::default(), publishing, Arc::clone(&counters)).await.unwrap();
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
        callers: Rc::default(),
    };
    let notes = Notes {
        stopping: CancellationToken::new(),
        broker: Arc::clone(&broker),
        suspects: Suspects::default(),
        abandon: CancellationToken::new(),
        of: plan.queue.as_str().into(),
    };
    let states = LaneStates::default();
    let state = states.add("lane", Unsent::default());
    LaneSettings {
        loads: LaneLoads::default(),
        consumers: QueueConsumers::new(&broker, &plan.lanes[0]),
        mailbox: Mailbox(Arc::clone(inbox)).start().recipient(),
        plan: plan.lanes[0].clone(),
        prefetch: PREFETCH,
        ordered: false,
        running: Running::default(),
        notes,
        settler,
        states,
        state,
        abandon: CancellationToken::new(),
        control: watch::channel(Control::default()).1,
        stall_after: Duration::from_secs(3_600),
        breaker: None,
        consumer_timeout: ConsumerTimeout::new(Duration::from_secs(3_600)),
        pace: Pace {
            timeout: Duration::from_secs(1),
            exclusive: false,
            concurrency: watch::channel(1).1,
            breaker: false,
        },
    }
}

/// What the default policy makes of an outcome of the first attempt.
pub(super) fn handled(outcome: Outcome, asked: Asked) -> Handled {
    let (policy, skew) = (Policy::default(), SkewPolicy::default());
    let case = Case {
        outcome: &outcome,
        asked,
        attempt: 1,
        policy: &policy,
        skewed_for: Duration::ZERO,
        skew: &skew,
        stops: false,
        chance: 0.0,
    };
    let made = AttemptRecord { attempt: 1, ..AttemptRecord::default() };
    match verdict(&case) {
        Verdict::Settle(settlement) => Handled { outcome, made, settlement },
        Verdict::Again(_) => Handled::given_back(outcome, made),
    }
}

/// A lane, the channels it had, and the deliveries that are being handled, each with its channel and tag.
struct Model {
    lane: LaneLoop,
    /// Commands without a waiting caller, or queries.
    kind: Kind,
    inbox: Arc<Mutex<Vec<Deliver>>>,
    channels: Vec<Arc<Told>>,
    handled: Vec<(usize, u64, Arrival)>,
    /// The tags of the present channel whose answers are being sent, the oldest first.
    answering: VecDeque<u64>,
    expected: Vec<Vec<u64>>,
    tags: u64,
}

impl Model {
    fn is_live(&self, channel: usize) -> bool {
        self.lane.channel.open && channel + 1 == self.channels.len()
    }

    async fn deliver(&mut self, count: usize) {
        let mut tags = Vec::new();
        while tags.len() < count
            && self.lane.deliveries.held.len() - self.lane.deliveries.stale < PREFETCH.into()
            && self.lane.deliveries.held.len() < 8
        {
            self.hand_over();
            tags.push(self.tags);
        }
        if tags.is_empty() {
            return;
        }
        self.lane.deliver();
        while self.inbox.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let deliver = self.inbox.lock().unwrap().remove(0);
        assert_eq!(deliver.arrivals.len(), tags.len(), "what came together enters the mailbox together");
        let channel = self.channels.len() - 1;
        self.handled.extend(tags.into_iter().zip(deliver.arrivals).map(|(tag, arrival)| (channel, tag, arrival)));
    }

    fn hand_over(&mut self) {
        self.tags += 1;
        let channel = Arc::clone(self.channels.last().unwrap());
        let mut envelope = Envelope::new(self.kind, Key::from_wire("a.b"), MediaType::BYTES, Bytes::new());
        envelope.reply_to = (self.kind == Kind::Query).then(|| ReplyTo::Queue("reply".into()));
        envelope.foreign.get_or_insert_default().no_id = true;
        let delivery = Delivery {
            envelope: Arc::new(envelope),
            redelivered: false,
            delivery_count: None,
            receipt: Receipt::new(self.tags, channel),
        };
        self.lane.hand_over(delivery, false);
    }

    fn finish(&mut self, place: usize, how: u8) {
        let (channel, tag, Arrival { ticket, envelope, .. }) = self.handled.remove(place);
        let asked = Asked::of(&envelope);
        assert_eq!(ticket.is_live(), self.is_live(channel), "what may begin is of the present channel");
        // A failed query is answered too.
        let ends_well = how == 0 || (how == 1 && self.kind == Kind::Query);
        match (ends_well && self.is_live(channel), self.kind) {
            (true, Kind::Query) => self.answering.push_back(tag),
            (true, _) => self.expected[channel].push(tag),
            (false, _) => {}
        }
        match how {
            0 => ticket.finish(handled(Outcome::Done(None), asked), None),
            1 => ticket.finish(handled(Outcome::failed(FailureClass::Infrastructure, "code", "text"), asked), None),
            _ => drop(ticket),
        }
        let finished = self.lane.outcomes.try_recv().unwrap();
        self.lane.finished(finished);
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Begin if !self.lane.channel.open => {
                self.channels.push(Arc::new(Told { answers: Some(Mutex::default()), ..Told::default() }));
                self.expected.push(Vec::new());
                self.lane.begin();
            }
            Step::Deliver(count) if self.lane.channel.open => self.deliver(count).await,
            Step::Finish { held, how } if !self.handled.is_empty() => self.finish(held % self.handled.len(), how),
            Step::Answered(left) => {
                let Some(tag) = self.answering.pop_front() else { return };
                let channel = self.channels.last().unwrap();
                let number = channel.answers.as_ref().unwrap().lock().unwrap().remove(0);
                // A delivery whose answer will not be sent is given back, and handled again elsewhere.
                if left {
                    self.expected[self.channels.len() - 1].push(tag);
                }
                self.lane.answered(number, left);
            }
            Step::End if self.lane.channel.open => {
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
        // An answer keeps its permit until it is sent, but no longer than its channel lives.
        let held = self.handled.len() + self.answering.len();
        prop_assert_eq!(self.lane.deliveries.held.len(), held);
        prop_assert_eq!(stats.in_flight, held as u64);
        let permits = if self.lane.channel.open { usize::from(PREFETCH) - of_channel } else { 0 };
        prop_assert_eq!(stats.permits, permits as u64);
        if self.lane.channel.open {
            prop_assert_eq!(self.lane.deliveries.held.len() - self.lane.deliveries.stale, of_channel);
        }
        for (channel, expected) in self.channels.iter().zip(&self.expected) {
            // No delivery of an ended channel is acknowledged, neither there nor on the next channel.
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
        model.take(Step::Answered(true)).await;
        model.check()?;
    }
    prop_assert!(model.lane.deliveries.held.is_empty());
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

#[test]
fn a_breakers_pause_ends_although_nothing_comes() {
    actix::System::new().block_on(async {
        let mut settings = settings(&Arc::default(), spec(Kind::Command)).await;
        let (window, pause) = (Duration::from_secs(30), Duration::ZERO);
        settings.breaker = Some(Breaker { percent: 50, least: 1, window, pause });
        let mut lane = LaneLoop::new(settings);
        lane.breaker.count(&Outcome::failed(FailureClass::Transient, "code", "text"), 0, Instant::now);
        assert!(lane.breaker.opens_at().is_some());
        lane.hand_over_buffered();
        assert!(lane.breaker.opens_at().is_none(), "it would be woken for it without end");
    });
}
