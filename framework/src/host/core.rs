//! The settings of an actor, and what all its lanes share.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, Counters, Resend};
use crate::handler::{
    Answers, Environment, HandlerSpec, Handlers, HeldLimits, Lane, LaneLoads, Middleware, OwnAnswers, Policy, Row,
    State, Waiters,
};
use crate::host::actor_store::ActorStore;
use crate::host::blocked::ArbiterWatch;
use crate::host::running::Running;
use crate::host::state::{Factory, StateCell};
use crate::host::verdict::SkewPolicy;
use crate::message::Kind;

/// How an actor handles messages.
#[derive(Clone)]
pub struct Settings {
    /// The actor's type.
    pub actor: &'static str,
    /// The actor's name, the same in every instance: `service`, or `service.queue`.
    pub name: String,
    /// How the actor appears in call paths: `service.actor@instance`.
    pub waiter: String,
    /// Its queues, by lane.
    pub queues: Vec<(Lane, String)>,
    /// How long a handler may run.
    pub timeout: Duration,
    /// The most `&self` handlers that run at once per lane.
    pub concurrency: watch::Receiver<usize>,
    /// The most deliveries held per lane.
    pub prefetch: u16,
    /// What its lanes hold.
    pub loads: LaneLoads,
    /// Whether one message is finished, its sends confirmed, before the next begins.
    pub ordered: bool,
    /// Whether the actor stops at a message that it would otherwise dead-letter.
    pub stops_at_poison: bool,
    /// What happens when an attempt fails, by the handler's place in the table.
    pub policies: Rc<[Policy]>,
    /// The same for a message that no handler takes.
    pub policy: Policy,
    /// What happens to messages whose key has no handler.
    pub skew: SkewPolicy,
    /// Limits on what a handler holds.
    pub held: HeldLimits,
    /// The messages that this actor handles right now, in all its copies.
    pub running: Running,
    /// How long a handler's message may wait for its confirm before it is sent again.
    pub confirm_timeout: Duration,
    /// How a handler's messages are sent again.
    pub resend: Resend,
    /// Where effects, sends and handled messages are committed together.
    pub store: Option<Rc<ActorStore>>,
}

/// What all lanes of one actor share.
pub struct Core {
    pub(super) table: Handlers,
    pub(super) state: StateCell,
    pub(super) settings: Settings,
    pub(super) bus: Bus,
    pub(super) middleware: Arc<[Arc<dyn Middleware>]>,
    pub(super) counters: Arc<Counters>,
    pub(super) watch: Arc<ArbiterWatch>,
    /// What all attempts share.
    pub(super) environment: Rc<Environment>,
    /// Fires when running handlers are to be dropped.
    pub(super) abandon: CancellationToken,
    /// Fires when nothing new is to be started.
    pub(super) stopping: CancellationToken,
}

/// The tokens that stop an actor, and the one by which it asks the process to stop.
#[derive(Clone, Default)]
pub struct Stops {
    /// Fires when nothing new is to be started.
    pub stopping: CancellationToken,
    /// Fires when running handlers are to be dropped.
    pub abandon: CancellationToken,
    /// Asks the process to stop.
    pub stop_app: CancellationToken,
}

impl Core {
    /// Assembles an actor.
    #[must_use]
    #[allow(clippy::too_many_arguments, reason = "the parts of an actor, put together in one place only")]
    pub fn new(
        table: Handlers,
        state: State,
        factory: Factory,
        settings: Settings,
        bus: Bus,
        middleware: Arc<[Arc<dyn Middleware>]>,
        counters: Arc<Counters>,
        watch: Arc<ArbiterWatch>,
        stops: Stops,
    ) -> Self {
        let state = StateCell::new(state, factory, settings.actor);
        let Stops { stopping, abandon, stop_app } = stops;
        let own = OwnAnswers {
            handlers: table.rows().iter().filter_map(|row| answers(row)).collect(),
            queues: settings.queues.clone(),
            ordered: settings.ordered,
            concurrency: Some(settings.concurrency.clone()),
            loads: settings.loads.clone(),
            active: settings.running.active(),
            writers: state.writers(),
        };
        let environment = Rc::new(Environment {
            identity: Arc::clone(&bus.identity),
            bus: Some(bus.clone()),
            abandon: abandon.clone(),
            stop_app,
            held: settings.held,
            name: settings.name.as_str().into(),
            waiter: settings.waiter.as_str().into(),
            own,
            waiters: Rc::new(Waiters::default()),
        });
        Self { table, state, settings, bus, middleware, counters, watch, environment, abandon, stopping }
    }
}

/// The requests that a handler answers; `None` if its kind has no answer.
fn answers(row: &Row) -> Option<Answers> {
    let HandlerSpec { kind, key, .. } = row.spec;
    let (lane, exclusive) = (row.spec.lane(), row.is_exclusive());
    matches!(kind, Kind::Command | Kind::Query).then_some(Answers { kind, key, lane, exclusive })
}
