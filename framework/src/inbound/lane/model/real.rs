//! The real lane and the real host with its handlers, driven one step at a time and compared with the model.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{Actor, Addr};
use futures::FutureExt;
use futures::future::ready;
use tokio::sync::{oneshot, watch};

use super::steps::Attempt;
use super::world::{Copy_, End, Process, Stage};
use crate::broker::any::NoBroker;
use crate::broker::{Delivery, DeliveryChannel, REPLAYED, Receipt, any};
use crate::bus::{Resend, Unsent};
use crate::handler::{FailureClass, HeldLimits, Invocation, Lane, Outcome, Policy, State, Table};
use crate::host::{ArbiterWatch, Arrival, Core, Deliver, Factory, Finished, Host, Settings, SkewPolicy, Stops};
use crate::inbound::lane::event::{Ended, Settled};
use crate::inbound::lane::property_tests::{settings, spec};
use crate::inbound::lane::{LaneLoop, LaneSettings};
use crate::message::{Kind, MessageId};

/// How often each step yields to other tasks. After that, everything that could happen has happened.
const TURNS: usize = 40;

type Gates = Arc<Mutex<BTreeMap<String, oneshot::Sender<Attempt>>>>;

/// The actor's state: its handlers wait at gates, one for each message.
#[derive(Clone, Default)]
struct Gated(Gates);

fn handle<'a>(state: &'a Gated, invocation: &'a mut Invocation) -> futures::future::LocalBoxFuture<'a, Outcome> {
    let (open, gate) = oneshot::channel();
    let id = invocation.envelope().id.as_str().to_owned();
    assert!(state.0.lock().unwrap().insert(id, open).is_none(), "it runs twice at once");
    Box::pin(async move {
        match gate.await {
            Ok(Attempt::Ok) => Outcome::Done(None),
            _ => Outcome::failed(FailureClass::Permanent, "code", "text"),
        }
    })
}

/// A channel that keeps acknowledgements until they are flushed.
#[derive(Default)]
struct Channel {
    closed: AtomicBool,
    unflushed: Mutex<Vec<u64>>,
    given_back: Mutex<Vec<u64>>,
}

impl DeliveryChannel for Channel {
    fn ack(&self, tag: u64) {
        self.unflushed.lock().unwrap().push(tag);
    }

    fn flush(&self) {
        self.unflushed.lock().unwrap().clear();
    }

    fn give_back(&self, tag: u64) {
        self.given_back.lock().unwrap().push(tag);
    }

    fn is_live(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }
}

/// A process: its lane, its host, and the messages between them, which arrive when the test says.
pub(super) struct Real {
    lane: LaneLoop,
    host: Addr<Host>,
    inbox: Arc<Mutex<Vec<Deliver>>>,
    gates: Gates,
    stops: Stops,
    channel: Arc<Channel>,
    tags: u64,
    /// The numbers of the deliveries that the model holds, in its order.
    numbers: Vec<u64>,
    handed_over: u64,
    arrived: BTreeMap<u64, Arrival>,
    finished: BTreeMap<u64, Finished>,
    settled: BTreeMap<u64, Settled>,
}

impl Real {
    pub(super) async fn start(prefetch: usize) -> Self {
        let (inbox, gates, stops) = (Arc::default(), Gates::default(), Stops::default());
        let mut of_lane = settings(&inbox, spec(Kind::Command)).await;
        of_lane.prefetch = prefetch as u16;
        of_lane.settler.stopping = stops.stopping.clone();
        of_lane.abandon = stops.abandon.clone();
        let host = Host::new(core(&of_lane, &gates, &stops)).start();
        let mut lane = LaneLoop::new(of_lane);
        lane.begin();
        let (channel, numbers) = (Arc::default(), Vec::new());
        let (arrived, finished, settled) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self { lane, host, inbox, gates, stops, channel, tags: 0, numbers, handed_over: 0, arrived, finished, settled }
    }

    pub(super) fn pulled(&mut self, copy: Copy_) {
        self.tags += 1;
        let mut envelope = any::command(id(copy.message).as_str());
        if copy.life > 0 {
            envelope.headers.set(REPLAYED, format!("letter {}", copy.life));
        }
        self.lane.deliveries.buffer.push_back(Delivery {
            envelope: Arc::new(envelope),
            redelivered: copy.redelivered,
            delivery_count: None,
            receipt: Receipt::new(self.tags, Arc::clone(&self.channel) as Arc<dyn DeliveryChannel>),
        });
    }

    pub(super) fn enter(&mut self, n: usize) {
        // A delivery that entered before enters again by itself.
        let Some(arrival) = self.arrived.remove(&self.numbers[n]) else { return };
        self.host.do_send(Deliver { lane: Lane::Durable, arrivals: vec![arrival] });
    }

    pub(super) fn attempt(&mut self, message: u8, how: Attempt) {
        let gate = self.gates.lock().unwrap().remove(id(message).as_str());
        gate.expect("its handler runs").send(how).expect("it waits");
    }

    pub(super) fn finished(&mut self, n: usize) {
        let finished = self.finished.remove(&self.numbers[n]).expect("it has an outcome");
        self.lane.finished(finished);
    }

    pub(super) fn release(&mut self, n: usize) {
        let number = self.numbers[n];
        self.lane.settled(self.settled.remove(&number).expect("all else is done"));
    }

    pub(super) fn flush(&mut self) {
        self.lane.flush();
    }

    pub(super) fn closes(&mut self) {
        self.channel.closed.store(true, Ordering::Release);
    }

    pub(super) async fn lost(&mut self) {
        self.lane.end(Ended::Lost, Box::new(NoBroker)).await;
        self.channel = Arc::default();
        self.lane.begin();
    }

    pub(super) fn stop(&mut self) {
        self.stops.stopping.cancel();
    }

    pub(super) async fn stopped(&mut self) {
        self.lane.end(Ended::Stopped, Box::new(NoBroker)).await;
    }

    /// Drops a delivery that the model no longer holds.
    pub(super) fn forget(&mut self, n: usize) {
        self.numbers.remove(n);
    }

    /// How many deliveries were given back on the present channel.
    pub(super) fn given_back(&self) -> usize {
        self.channel.given_back.lock().unwrap().len()
    }

    /// Lets everything happen that does not wait for the test.
    pub(super) async fn settle_down(&mut self, stopping: bool) {
        if !stopping {
            self.lane.hand_over_buffered();
        }
        self.lane.deliver();
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        for arrival in self.inbox.lock().unwrap().drain(..).flat_map(|deliver| deliver.arrivals) {
            self.arrived.insert(self.handed_over, arrival);
            self.numbers.push(self.handed_over);
            self.handed_over += 1;
        }
        while let Ok(finished) = self.lane.outcomes.try_recv() {
            self.finished.insert(finished.number, finished);
        }
        while let Ok(settled) = self.lane.settled.try_recv() {
            self.settled.insert(settled.number, settled);
        }
    }

    /// The first difference from the model.
    pub(super) fn differs(&self, process: &Process) -> Option<String> {
        let differs = |what: &str, real: String, model: String| {
            (real != model).then(|| format!("{what}: {real}, by the model {model}"))
        };
        let of_channel = process.held.iter().filter(|held| held.current).count();
        let lane = &self.lane;
        let counts = (
            lane.deliveries.buffer.len(),
            lane.deliveries.held.len(),
            lane.deliveries.held.len() - lane.deliveries.stale,
        );
        let by_model = (process.buffer.len(), process.held.len(), of_channel);
        let unflushed = if process.closed { 0 } else { self.channel.unflushed.lock().unwrap().len() };
        let runs: Vec<String> = self.gates.lock().unwrap().keys().cloned().collect();
        let attempts = process.held.iter().filter(|held| held.stage == Stage::Attempt);
        let mut by_model_runs: Vec<String> = attempts.map(|held| id(held.copy.message).as_str().to_owned()).collect();
        by_model_runs.sort_unstable();
        differs("buffered, held, of this channel", format!("{counts:?}"), format!("{by_model:?}"))
            .or_else(|| differs("unflushed", unflushed.to_string(), process.unflushed.len().to_string()))
            .or_else(|| differs("handlers that run", format!("{runs:?}"), format!("{by_model_runs:?}")))
            .or_else(|| {
                let has = |message: u8| format!("{}", lane.settings.running.has(&id(message)));
                (0..2).find_map(|message| differs("under way", has(message), process.has(message).to_string()))
            })
            .or_else(|| {
                let held = self.numbers.iter().zip(&process.held);
                held.map(|(number, held)| (self.stage(*number), stage(held.stage)))
                    .find_map(|(real, model)| differs("stage", real, model))
            })
    }

    fn stage(&self, number: u64) -> String {
        if self.arrived.contains_key(&number) {
            return "arrived".into();
        }
        if let Some(finished) = self.finished.get(&number) {
            return format!("finished {:?}", finished.handled.settlement.end);
        }
        if let Some(settled) = self.settled.get(&number) {
            return format!("settled {:?}", settled.receive);
        }
        "under way".into()
    }
}

fn stage(stage: Stage) -> String {
    match stage {
        Stage::Arrived { .. } => "arrived".into(),
        Stage::Finished(End::DeadLetter { .. }) => "finished DeadLetter".into(),
        Stage::Finished(end) => format!("finished {end:?}"),
        // The test's broker confirms at once.
        Stage::Settling(_) => "settled Ack".into(),
        Stage::Settled(receive) => format!("settled {receive:?}"),
        _ => "under way".into(),
    }
}

fn id(message: u8) -> MessageId {
    format!("m{message}").into()
}

fn core(of_lane: &LaneSettings, gates: &Gates, stops: &Stops) -> Core {
    let mut table = Table::default();
    table.shared(spec(Kind::Command), handle);
    let state = Gated(Arc::clone(gates));
    let again = state.clone();
    let factory: Factory = std::rc::Rc::new(move || ready(Ok(State::new(again.clone()))).boxed_local());
    let settler = &of_lane.settler;
    let actor = Settings {
        store: None,
        actor: "A",
        name: "invoice".into(),
        waiter: "invoice.A@i1".into(),
        queues: Vec::new(),
        timeout: Duration::from_secs(3_600),
        concurrency: watch::channel(8).1,
        prefetch: of_lane.prefetch,
        ordered: false,
        stops_at_poison: false,
        policies: std::rc::Rc::new([Policy::default()]),
        policy: Policy::default(),
        skew: SkewPolicy::default(),
        held: HeldLimits::default(),
        running: of_lane.running.clone(),
        loads: of_lane.loads.clone(),
        confirm_timeout: settler.confirm_timeout,
        resend: Resend { actor: "A", stopping: stops.stopping.clone(), unsent: Unsent::default() },
    };
    let (bus, counters) = (settler.bus.clone(), Arc::clone(&settler.counters));
    Core::new(
        table.into_handlers(),
        State::new(state),
        factory,
        actor,
        bus,
        Arc::new([]),
        counters,
        ArbiterWatch::new("test"),
        stops.clone(),
    )
}
