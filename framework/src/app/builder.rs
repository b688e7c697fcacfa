//! `App`: the builder for a process.

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::{BoxFuture, LocalBoxFuture};
use tokio_util::sync::CancellationToken;

use crate::adapter::in_process::InProcess;
use crate::app::config::Config;
use crate::app::entry::{Entry, Setup};
use crate::app::own_settings;
use crate::broker::{Broker, BrokerError, Names};
use crate::bus::{Bus, SendHook};
use crate::handler::{Actor, Failure, Invocation, Middleware, Next, Outcome};
use crate::message::{Envelope, MediaType, Problem};

/// Which broker an app uses when neither file nor environment names one.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum BrokerChoice {
    /// A broker of its own, inside the process.
    #[default]
    InProcess,
    /// An in-process broker that several apps of a process share.
    Shared(InProcess),
    /// A broker of another adapter.
    Adapter(Connector),
}

/// Connects an app, in a namespace, to a broker of an adapter that is not Postrider's own. It is called again after an
/// error that is not permanent.
pub type Connector = Arc<dyn Fn(Names) -> BoxFuture<'static, Result<Arc<dyn Broker>, BrokerError>> + Send + Sync>;

impl BrokerChoice {
    /// A broker of another adapter. `postrider::testing::conformance` has the suite that it must pass.
    pub fn adapter<F>(connect: impl Fn(Names) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Arc<dyn Broker>, BrokerError>> + Send + 'static,
    {
        Self::Adapter(Arc::new(move |names| Box::pin(connect(names))))
    }
}

impl From<InProcess> for BrokerChoice {
    fn from(broker: InProcess) -> Self {
        Self::Shared(broker)
    }
}

pub(crate) type OnReady = Arc<dyn Fn(Bus) -> LocalBoxFuture<'static, Result<(), Failure>> + Send + Sync>;

/// A process: its actors and its settings.
///
/// ```no_run
/// use postrider::{App, distributed};
///
/// #[derive(Default)]
/// struct Greeter;
///
/// #[distributed(service = "greeter")]
/// impl Greeter {
///     #[distributed(command = "greeter.greet")]
///     async fn greet(&self, name: String) {
///         println!("Hello, {name}!");
///     }
/// }
///
/// fn main() -> std::process::ExitCode {
///     postrider::main(App::new("greeter").actor(Greeter::default))
/// }
/// ```
#[must_use]
pub struct App {
    pub(crate) name: String,
    pub(crate) entries: Vec<Entry>,
    pub(crate) middleware: Vec<Arc<dyn Middleware>>,
    pub(crate) hooks: Vec<SendHook>,
    pub(crate) propagate: Vec<String>,
    pub(crate) media_type: MediaType,
    pub(crate) broker: BrokerChoice,
    /// Services of other processes that the app waits for.
    pub(crate) needs: Vec<String>,
    pub(crate) on_ready: Vec<OnReady>,
    /// The index in `on_ready` of the work whose end stops the process.
    pub(crate) ends: Option<usize>,
    pub(crate) config: Config,
    pub(crate) config_file: Option<PathBuf>,
    pub(crate) problems: Vec<String>,
    /// Cancels a start that has not finished.
    pub(crate) give_up: CancellationToken,
}

impl App {
    /// An app without actors. It sends its own messages as the service of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            entries: Vec::new(),
            middleware: Vec::new(),
            hooks: Vec::new(),
            propagate: Vec::new(),
            media_type: MediaType::MSGPACK,
            broker: BrokerChoice::default(),
            needs: Vec::new(),
            on_ready: Vec::new(),
            ends: None,
            config: Config::default(),
            config_file: None,
            problems: Vec::new(),
            give_up: CancellationToken::new(),
        }
    }

    /// Adds an actor. A plain function makes its state, at the start and again after a panic.
    pub fn actor<S: Actor>(mut self, make: impl Fn() -> S + Send + Sync + 'static) -> Self {
        let make = Arc::new(make);
        self.entries.push(Entry::new::<S>(Arc::new(move |_| {
            let make = Arc::clone(&make);
            Box::pin(async move { Ok(make()) })
        })));
        self
    }

    /// Adds an actor. An async function makes its state, which can read the configuration or wait.
    pub fn actor_with<S: Actor, F>(mut self, make: F) -> Self
    where
        F: AsyncFn(&Setup) -> Result<S, Failure> + Send + Sync + 'static,
    {
        let make = Arc::new(make);
        self.entries.push(Entry::new::<S>(Arc::new(move |setup| {
            let make = Arc::clone(&make);
            Box::pin(async move { make(&setup).await })
        })));
        self
    }

    /// Runs this many competing copies of the actor added last, each with a state of its own.
    pub fn replicas(self, replicas: usize) -> Self {
        self.of_last_actor("replicas", |entry| {
            entry.replicas = replicas;
            (replicas == 0)
                .then(|| format!("{}: zero replicas would handle nothing; leave the actor out instead", entry.name()))
        })
    }

    /// Runs the actor added last on the arbiter thread of this name; actors that name the same one share it.
    pub fn arbiter(self, name: impl Into<String>) -> Self {
        self.of_last_actor("arbiter", |entry| {
            entry.arbiter = Some(name.into());
            None
        })
    }

    /// Adds middleware around the handlers of the actor added last. It runs inside the app's middleware.
    pub fn actor_middleware(self, middleware: impl Middleware) -> Self {
        self.of_last_actor("actor_middleware", |entry| {
            entry.middleware.push(Arc::new(middleware));
            None
        })
    }

    /// Adds middleware around all handlers; the first one added is the outermost. See [`Middleware`]; [`App::around`]
    /// takes a closure.
    pub fn middleware(mut self, middleware: impl Middleware) -> Self {
        self.middleware.push(Arc::new(middleware));
        self
    }

    /// Adds a closure as middleware: `app.around(async |invocation, next| next.run(invocation).await)`.
    pub fn around<F>(self, middleware: F) -> Self
    where
        F: AsyncFn(&mut Invocation, Next<'_>) -> Outcome + Send + Sync + 'static,
    {
        self.middleware(middleware)
    }

    /// Runs before every message is sent. It can change the message, or refuse it with a problem.
    pub fn before_send(mut self, hook: impl Fn(&mut Envelope) -> Result<(), Problem> + Send + Sync + 'static) -> Self {
        self.hooks.push(Arc::new(hook));
        self
    }

    /// Copies these headers from the message being handled to everything that its handler sends. Include
    /// `authorization` to pass on the sender's identity.
    pub fn propagate<N: Into<String>>(mut self, headers: impl IntoIterator<Item = N>) -> Self {
        self.propagate.extend(headers.into_iter().map(Into::into));
        self
    }

    /// The encoding of typed messages whose contract names none. Default: MessagePack.
    pub fn media_type(mut self, media_type: MediaType) -> Self {
        self.media_type = media_type;
        self
    }

    /// The broker to use when neither file nor environment names one.
    pub fn broker(mut self, broker: impl Into<BrokerChoice>) -> Self {
        self.broker = broker.into();
        self
    }

    /// Names services that must have answered before [`App::on_ready`] and [`App::until`] run, and before `/ready` says
    /// yes. The app handles messages meanwhile, so that two services can need each other. The processes can then start
    /// in any order, and no event is lost because its subscriber has never run. If a service does not answer within
    /// [`Config::needs_timeout`] (default: 60 s), the process stops with a failing exit code.
    ///
    /// Services of this app count as present. [`Bus::wait_for_services`] waits at any other time.
    pub fn needs<S: Into<String>>(mut self, services: impl IntoIterator<Item = S>) -> Self {
        self.needs.extend(services.into_iter().map(Into::into));
        self
    }

    /// Runs this once all actors consume and the services that the app [needs](App::needs) have answered. If it fails
    /// or panics, the process stops with a failing exit code.
    pub fn on_ready<F>(mut self, run: F) -> Self
    where
        F: AsyncFn(&Bus) -> Result<(), Failure> + Send + Sync + 'static,
    {
        let run = Arc::new(run);
        self.on_ready.push(Arc::new(move |bus| {
            let run = Arc::clone(&run);
            Box::pin(async move { run(&bus).await })
        }));
        self
    }

    /// Runs this as [`App::on_ready`] does, and stops the process when it ends: for programs with a single job. If it
    /// fails, the process has a failing exit code.
    pub fn until<F>(mut self, run: F) -> Self
    where
        F: AsyncFn(&Bus) -> Result<(), Failure> + Send + Sync + 'static,
    {
        self = self.on_ready(run);
        self.ends = Some(self.on_ready.len() - 1);
        self
    }

    /// Changes the defaults; file and environment override them.
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Sets a service's own settings, which its factory reads with [`Setup::config`]; file and environment override
    /// them. Tests, which read neither, set what they need: `app.settings("loans", &json!({ "days": 3 }))`.
    pub fn settings(mut self, service: &str, settings: &impl serde::Serialize) -> Self {
        self.problems.extend(own_settings::add(&mut self.config, service, settings).err());
        self
    }

    /// Reads this configuration file. Default: `POSTRIDER_CONFIG`, or `postrider.toml` if it exists.
    pub fn config_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.config_file = Some(path.into());
        self
    }

    /// The app's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The services in this app.
    #[must_use]
    pub fn services(&self) -> Vec<&'static str> {
        let mut services = Vec::new();
        for entry in &self.entries {
            if !services.contains(&entry.attributes.service) {
                services.push(entry.attributes.service);
            }
        }
        services
    }

    fn of_last_actor(mut self, call: &str, change: impl FnOnce(&mut Entry) -> Option<String>) -> Self {
        match self.entries.last_mut() {
            Some(entry) => self.problems.extend(change(entry)),
            None => self.problems.push(format!("`.{call}(…)` belongs after the `.actor(…)` it is about")),
        }
        self
    }
}
