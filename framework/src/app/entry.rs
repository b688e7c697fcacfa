//! One actor of an app, with its type erased, until it is launched on its arbiter.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor as _, Addr};
use futures::future::LocalBoxFuture;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::app::config::Config;
use crate::app::own_settings::SettingsReads;
use crate::broker::Broker;
use crate::bus::{Bus, Counters, Resend, Unsent};
use crate::handler::{
    Actor, Attributes, Failure, Guarantee, HandlerSpec, Handlers, Lane, LaneLoads, Middleware, Policy, Retry, State,
};
use crate::host::{ActorStore, ArbiterWatch, Core, Factory, Host, Running, Settings, Stops};
use crate::inbound::{
    ActorPlan, Breaker, Bridge, BridgeSettings, ConsumerTimeout, Control, LaneStates, Pace, Suspects,
};
use crate::message::Name;
use crate::store::StoreHandle;

/// What a factory can use to make an actor's state.
#[derive(Clone)]
pub struct Setup {
    service: Name,
    instance: Name,
    bus: Bus,
    config: Arc<Config>,
    reads: SettingsReads,
}

impl Setup {
    fn of(launch: &Launch) -> Self {
        Self {
            service: launch.bus.identity.service.clone(),
            instance: launch.bus.identity.instance.clone(),
            bus: launch.bus.clone(),
            config: Arc::clone(&launch.config),
            reads: launch.reads.clone(),
        }
    }

    /// The service's own settings: `[service.<name>]` in the file, `POSTRIDER_SERVICE__<NAME>__<FIELD>` in the
    /// environment. A value from the environment is parsed as the type of the field.
    ///
    /// # Errors
    /// A permanent failure that names the field and where its value was set.
    pub fn config<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        self.reads.read(&self.config, self.service.as_str())
    }

    /// Sends messages on behalf of the service, immediately.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Runs statements in the service's store, in one transaction; of several processes one does it at a time, and each
    /// once. For tables that are made unless they are there. Whoever changes tables later is better off with a migration tool, such as `sqlx::migrate!`.
    ///
    /// ```
    /// # use postrider::{App, Failure, distributed};
    /// # struct Orders;
    /// # #[distributed(service = "orders")]
    /// # impl Orders {
    /// #     #[distributed(query = "orders.none")]
    /// #     async fn none(&self, _: ()) {}
    /// # }
    /// let app = App::new("orders").actor_with(async |setup| {
    ///     setup.prepare_store("CREATE TABLE IF NOT EXISTS orders (number bigint PRIMARY KEY)").await?;
    ///     Ok(Orders)
    /// });
    /// ```
    ///
    /// # Errors
    /// A permanent failure when the service has no store, or the database refuses the statements; else a transient one.
    pub async fn prepare_store(&self, statements: &str) -> Result<(), Failure> {
        let prepared = self.bus.prepare_store(statements).await;
        prepared.map_err(|error| match error.is_permanent() {
            true => Failure::permanent(error.to_string()),
            false => Failure::transient(error.to_string()),
        })
    }

    /// The service.
    #[must_use]
    pub fn service(&self) -> &str {
        self.service.as_str()
    }

    /// The running instance.
    #[must_use]
    pub fn instance(&self) -> &str {
        self.instance.as_str()
    }
}

pub(crate) type Make<S> = Arc<dyn Fn(Setup) -> LocalBoxFuture<'static, Result<S, Failure>> + Send + Sync>;

/// One handler for listings and checks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listed {
    pub(crate) spec: HandlerSpec,
    pub(crate) exclusive: bool,
}

/// An actor of an app.
pub(crate) struct Entry {
    pub(crate) attributes: Attributes,
    pub(crate) handlers: Vec<Listed>,
    pub(crate) conflicts: Vec<(HandlerSpec, HandlerSpec)>,
    pub(crate) replicas: usize,
    pub(crate) arbiter: Option<String>,
    pub(crate) middleware: Vec<Arc<dyn Middleware>>,
    pub(crate) launch: LaunchActor,
}

pub(crate) type LaunchActor =
    Arc<dyn Fn(Launch) -> LocalBoxFuture<'static, Result<Addr<Bridge>, String>> + Send + Sync>;

/// What an actor needs to be launched on its arbiter.
pub(crate) struct Launch {
    pub(crate) bus: Bus,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) plan: ActorPlan,
    pub(crate) effective: Effective,
    pub(crate) policies: Policies,
    /// The messages that all copies of the actor are handling.
    pub(crate) running: Running,
    /// Messages that its handlers sent and that are not accepted at the moment.
    pub(crate) unsent: Unsent,
    /// Messages that may have crashed a process.
    pub(crate) suspects: Suspects,
    pub(crate) concurrency: watch::Receiver<usize>,
    pub(crate) consumer_timeout: ConsumerTimeout,
    pub(crate) pace: Pace,
    pub(crate) control: watch::Receiver<Control>,
    pub(crate) config: Arc<Config>,
    pub(super) reads: SettingsReads,
    pub(crate) middleware: Arc<[Arc<dyn Middleware>]>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) watch: Arc<ArbiterWatch>,
    pub(crate) states: LaneStates,
    pub(crate) stops: Stops,
    /// The service's store, if the actor needs it.
    pub(crate) store: Option<StoreHandle>,
}

/// An actor's settings, from all sources combined.
#[derive(Debug, Clone)]
pub(crate) struct Effective {
    pub(crate) prefetch: u16,
    pub(crate) prefetch_is_explicit: bool,
    pub(crate) concurrency: usize,
    pub(crate) timeout: Duration,
    pub(crate) breaker: Option<Breaker>,
}

/// The failure policies of an actor.
#[derive(Debug, Clone)]
pub(crate) struct Policies {
    /// By the handler's index in the table.
    pub(crate) of_handlers: Vec<Policy>,
    pub(crate) of_actor: Policy,
}

impl Entry {
    pub(crate) fn new<S: Actor>(make: Make<S>) -> Self {
        let table = Handlers::of::<S>();
        let handlers =
            table.rows().iter().map(|row| Listed { spec: row.spec, exclusive: row.is_exclusive() }).collect();
        Self {
            attributes: S::attributes(),
            handlers,
            conflicts: table.conflicts(),
            replicas: 1,
            arbiter: None,
            middleware: Vec::new(),
            launch: Arc::new(move |launch| {
                let (make, setup) = (Arc::clone(&make), Setup::of(&launch));
                let factory: Factory = Rc::new(move || {
                    let making = make(setup.clone());
                    Box::pin(async move { making.await.map(State::new) })
                });
                Box::pin(launch_actor(S::attributes(), Handlers::of::<S>(), factory, launch))
            }),
        }
    }

    /// `service`, or `service.queue` for another actor of the same service.
    pub(crate) fn name(&self) -> String {
        name_of(&self.attributes)
    }

    pub(crate) fn specs(&self) -> Vec<HandlerSpec> {
        self.handlers.iter().map(|listed| listed.spec).collect()
    }

    /// Whether it promises or takes what only a store can give.
    pub(crate) fn needs_store(&self) -> bool {
        self.attributes.guarantee == Guarantee::EffectivelyOnce
            || self.handlers.iter().any(|listed| listed.spec.transaction.is_some())
    }

    pub(crate) fn effective(&self, config: &Config) -> Effective {
        let own = config.actors.get(&self.name()).cloned().unwrap_or_default();
        let attributes = &self.attributes;
        let explicit = own.prefetch.or(attributes.prefetch);
        Effective {
            prefetch: explicit.unwrap_or(config.prefetch),
            // The default value counts as not explicit, even if it is written out.
            prefetch_is_explicit: explicit.is_some_and(|prefetch| prefetch != postrider_grammar::DEFAULT_PREFETCH),
            concurrency: own.concurrency.or(attributes.concurrency).unwrap_or(config.concurrency),
            timeout: own.timeout.or(attributes.timeout).unwrap_or(config.timeout),
            breaker: own.breaker.or_else(|| config.breaker.clone()),
        }
    }

    /// How fast it handles messages in the worst case.
    pub(crate) fn pace(&self, config: &Config, concurrency: watch::Receiver<usize>) -> Pace {
        let effective = self.effective(config);
        Pace {
            timeout: effective.timeout,
            exclusive: self.handlers.iter().any(|listed| listed.exclusive),
            concurrency,
            breaker: effective.breaker.is_some(),
        }
    }

    /// The failure policies from the app, the block, the configuration and the methods. Later ones override earlier
    /// ones.
    ///
    /// # Errors
    /// When a retry plan cannot be parsed, or would break an ordered actor's order.
    pub(crate) fn policies(&self, config: &Config) -> Result<Policies, String> {
        let own = config.actors.get(&self.name()).and_then(|own| own.retry.clone());
        let delays = own.as_ref().is_some_and(|retry| retry.delays.count() > 0);
        if self.attributes.ordered && delays {
            return Err(format!(
                "actor.{}.retry: {} is ordered, which a delayed attempt would break; write the attempts in place alone, such as \"5\"",
                self.name(),
                self.attributes.actor
            ));
        }
        let readable = |error| format!("{}: {error}", self.attributes.actor);
        let mut of_actor = Policy { retry: config.retry.clone(), ..Policy::default() };
        of_actor = of_actor.with(&self.attributes.policy).map_err(readable)?;
        if let Some(own) = own {
            of_actor.retry = Retry { pause: config.retry.pause, ..own };
        }
        let of = |listed: &Listed| {
            let mut policy = of_actor.clone().with(&listed.spec.policy).map_err(readable)?;
            if self.attributes.ordered || listed.spec.lane() == Lane::Instance {
                policy.retry = policy.retry.blocking();
            }
            Ok::<_, String>(policy)
        };
        let of_handlers = self.handlers.iter().map(of).collect::<Result<_, _>>()?;
        Ok(Policies { of_handlers, of_actor })
    }
}

fn name_of(attributes: &Attributes) -> String {
    match attributes.queue {
        None => attributes.service.to_owned(),
        Some(queue) => format!("{}.{queue}", attributes.service),
    }
}

fn cannot_be_made(attributes: &Attributes, failure: &Failure) -> String {
    format!("actor {} of service {:?} cannot be made: {failure}", attributes.actor, attributes.service)
}

/// The store as the actor uses it.
async fn store_of(
    attributes: &Attributes,
    store: Option<StoreHandle>,
    config: &Config,
) -> Result<Option<Rc<ActorStore>>, String> {
    let Some(handle) = store else { return Ok(None) };
    let number = handle.store().actor(&name_of(attributes)).await.map_err(|error| error.to_string())?;
    let shared = config.store_settings.shared_commit;
    Ok(Some(Rc::new(ActorStore::new(handle, number, attributes, config.limits, shared))))
}

async fn launch_actor(
    attributes: Attributes,
    table: Handlers,
    factory: Factory,
    launch: Launch,
) -> Result<Addr<Bridge>, String> {
    let identity = Arc::clone(&launch.bus.identity);
    let state = factory().await.map_err(|failure| cannot_be_made(&attributes, &failure))?;
    let handlers: Rc<[HandlerSpec]> = table.rows().iter().map(|row| row.spec).collect();
    let Effective { prefetch, timeout, .. } = launch.effective;
    let (actor, unsent) = (attributes.actor, launch.unsent.clone());
    let resend = Resend { actor, stopping: launch.stops.stopping.clone(), unsent };
    let (store, loads) = (store_of(&attributes, launch.store, &launch.config).await?, LaneLoads::default());
    let settings = Settings {
        actor: attributes.actor,
        name: name_of(&attributes),
        waiter: format!("{}.{}@{}", attributes.service, attributes.actor, identity.instance),
        queues: launch.plan.lanes.iter().map(|lane| (lane.lane, lane.queue_name().to_owned())).collect(),
        timeout,
        concurrency: launch.concurrency,
        prefetch,
        ordered: attributes.ordered,
        stops_at_poison: attributes.stops_at_poison,
        policies: launch.policies.of_handlers.into(),
        policy: launch.policies.of_actor,
        skew: launch.config.skew,
        running: launch.running.clone(),
        loads: loads.clone(),
        held: launch.config.held,
        confirm_timeout: launch.config.publish.confirm_timeout,
        resend,
        store,
    };
    let core = Core::new(
        table,
        state,
        factory,
        settings,
        launch.bus.clone(),
        launch.middleware,
        Arc::clone(&launch.counters),
        launch.watch,
        launch.stops.clone(),
    );
    let host = Host::new(core).start();
    let bridge = BridgeSettings {
        broker: launch.broker,
        mailbox: host.recipient(),
        plan: launch.plan,
        bus: launch.bus,
        actor: attributes.actor,
        handlers,
        prefetch,
        ordered: attributes.ordered,
        confirm_timeout: launch.config.publish.confirm_timeout,
        stops: launch.stops,
        states: launch.states,
        counters: launch.counters,
        running: launch.running,
        loads,
        unsent: launch.unsent,
        suspects: launch.suspects,
        control: launch.control,
        stall_after: launch.config.stall_after,
        breaker: launch.effective.breaker,
        consumer_timeout: launch.consumer_timeout,
        pace: launch.pace,
    };
    Bridge::start(bridge).await.map_err(|error| error.to_string())
}
