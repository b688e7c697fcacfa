//! The bridge actor: runs one lane for each queue of an actor.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler, Message, Recipient, ResponseFuture};
use futures::future::join_all;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::broker::{Broker, BrokerError};
use crate::bus::{Bus, Unsent};
use crate::handler::{HandlerSpec, LaneLoads};
use crate::host::{Deliver, Running, Stops};
use crate::inbound::consumers::QueueConsumers;
use crate::inbound::lane::{Breaker, ConsumerTimeout, Control, LaneLoop, LaneSettings, Pace};
use crate::inbound::reopen::FirstStart;
use crate::inbound::settle::Settler;
use crate::inbound::states::LaneStates;
use crate::inbound::states::Started;
use crate::inbound::suspects::{Notes, Suspects};
use crate::inbound::topology::ActorPlan;
use crate::supervise::supervise;

/// The settings of a bridge.
pub struct BridgeSettings {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// The mailbox of the host.
    pub mailbox: Recipient<Deliver>,
    /// The actor's queues and subscriptions.
    pub plan: ActorPlan,
    /// Sends replies and dead letters.
    pub bus: Bus,
    /// The actor's type.
    pub actor: &'static str,
    /// Its handlers.
    pub handlers: Rc<[HandlerSpec]>,
    /// The most deliveries held per lane.
    pub prefetch: u16,
    /// Whether the order of its queue is kept.
    pub ordered: bool,
    /// How long replies and dead letters may take to be confirmed.
    pub confirm_timeout: Duration,
    /// The tokens that stop the actor.
    pub stops: Stops,
    /// Where the lanes report whether they consume.
    pub states: LaneStates,
    /// Counts what happens.
    pub counters: Arc<crate::bus::Counters>,
    /// The messages that all copies of the actor handle right now.
    pub running: Running,
    /// What the lanes of this copy hold.
    pub loads: LaneLoads,
    /// Messages that its handlers sent and the broker has not accepted.
    pub unsent: Unsent,
    /// The suspects of this process: messages that may end it.
    pub suspects: Suspects,
    /// Pause, resume, restart.
    pub control: watch::Receiver<Control>,
    /// How long a queue may have messages that are not delivered although there is room.
    pub stall_after: Duration,
    /// When a lane pauses by itself.
    pub breaker: Option<Breaker>,
    /// How long the broker lets a delivery stay unacknowledged; shared by the process.
    pub consumer_timeout: ConsumerTimeout,
    /// How fast the actor handles messages in the worst case.
    pub pace: Pace,
}

/// The bridge actor: connects an actor's queues to its mailbox. It runs on the host's arbiter.
pub struct Bridge {
    lanes: Vec<JoinHandle<u64>>,
}

impl Bridge {
    /// Opens all lanes of an actor. Runs on the arbiter of the host.
    ///
    /// # Errors
    /// When a lane can never be opened. Temporary failures are waited out.
    pub async fn start(settings: BridgeSettings) -> Result<actix::Addr<Self>, BrokerError> {
        let settler = Settler {
            bus: settings.bus.clone(),
            counters: Arc::clone(&settings.counters),
            actor: settings.actor,
            queue: settings.plan.queue.as_str().into(),
            dead_queue: settings.plan.dead_queue.as_str().into(),
            confirm_timeout: settings.confirm_timeout,
            stopping: settings.stops.stopping.clone(),
            handlers: Rc::clone(&settings.handlers),
            callers: Rc::default(),
        };
        let notes = Notes {
            broker: Arc::clone(&settings.broker),
            suspects: settings.suspects,
            of: settings.plan.queue.as_str().into(),
            stopping: settings.stops.stopping.clone(),
            abandon: settings.stops.abandon.clone(),
        };
        let (mut lanes, mut starting) = (Vec::new(), Vec::new());
        for plan in settings.plan.lanes {
            let (started, waiting) = oneshot::channel();
            let state = settings.states.add(plan.queue_name(), settings.unsent.clone());
            let lane = LaneSettings {
                consumers: QueueConsumers::new(&settings.broker, &plan),
                mailbox: settings.mailbox.clone(),
                plan,
                prefetch: settings.prefetch,
                ordered: settings.ordered,
                running: settings.running.clone(),
                loads: settings.loads.clone(),
                notes: notes.clone(),
                settler: settler.clone(),
                states: settings.states.clone(),
                state,
                abandon: settings.stops.abandon.clone(),
                control: settings.control.clone(),
                stall_after: settings.stall_after,
                breaker: settings.breaker.clone(),
                consumer_timeout: settings.consumer_timeout.clone(),
                pace: settings.pace.clone(),
            };
            lanes.push(actix_rt::spawn(keep_lane(lane, started)));
            starting.push(waiting);
        }
        for waiting in starting {
            waiting.await.unwrap_or(Err(BrokerError::Stopped))?;
        }
        Ok(Self { lanes }.start())
    }
}

/// Runs a lane until the app stops. Each run has a new loop, because the state of a loop that panicked cannot be trusted.
async fn keep_lane(settings: LaneSettings, started: Started) -> u64 {
    let (tasks, name) = (settings.consumers.tasks(), format!("lane of {}", settings.plan.queue_name()));
    let (stopping, first) = (settings.settler.stopping.clone(), FirstStart::new(started));
    let run = async || first.run(|started| LaneLoop::new(settings.clone()).run(started)).await;
    // A loop that panicked closed its channel, so the broker took back its deliveries.
    supervise(tasks, name, stopping.cancelled(), run).await.unwrap_or(0)
}

impl Actor for Bridge {
    type Context = Context<Self>;
}

/// Waits until all lanes have stopped; the answer is how many deliveries they gave back.
pub struct AwaitStopped;

impl Message for AwaitStopped {
    type Result = u64;
}

impl Handler<AwaitStopped> for Bridge {
    type Result = ResponseFuture<u64>;

    fn handle(&mut self, _: AwaitStopped, _: &mut Self::Context) -> Self::Result {
        let lanes = std::mem::take(&mut self.lanes);
        Box::pin(async move { join_all(lanes).await.into_iter().map(|lane| lane.unwrap_or(0)).sum() })
    }
}
