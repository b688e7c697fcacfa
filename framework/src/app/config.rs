//! The settings of a process, with their defaults.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use postrider_grammar::{CONSUMER_TIMEOUT, DEFAULT_PREFETCH};

use crate::app::read_config::origin::Origins;
use crate::broker::Names;
use crate::bus::PublishSettings;
use crate::codec::Limits;
use crate::handler::{HeldLimits, Retry};
use crate::host::SkewPolicy;
use crate::inbound::{Breaker, QueryQueue};
use crate::message::Secret;

/// How a process runs. The code overrides the defaults, the file overrides the code, and the environment overrides the
/// file; see `docs/configuration.md`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Config {
    /// The broker's address, `amqp://…` or `amqps://…`; several separated by commas. `None`: in process.
    pub broker: Option<Secret>,
    /// A file with certificates (PEM) to trust for `amqps://`, in addition to the usual ones.
    pub broker_ca: Option<PathBuf>,
    /// The prefix of every exchange and queue. Default: `postrider`.
    pub namespace: Names,
    /// The most deliveries held per lane. Default: 64.
    pub prefetch: u16,
    /// The most `&self` handlers that run at once per lane. Default: 16.
    pub concurrency: usize,
    /// How long a handler may run. Default: 30 s.
    pub timeout: Duration,
    /// How long the broker lets a delivery stay unacknowledged. Clients cannot ask the broker, so set here what the
    /// broker is configured with. Default: 30 min, as RabbitMQ's
    /// (<https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout>).
    pub consumer_timeout: Duration,
    /// When a failed message is retried. Default: three attempts in place, then after 1 s, 10 s and 1 min.
    pub retry: Retry,
    /// When an actor pauses by itself because its handlers keep failing. Default: never.
    pub breaker: Option<Breaker>,
    /// How long a queue may hold messages that the broker does not deliver although the prefetch has room, before its
    /// consumer is opened again. Default: 10 s.
    pub stall_after: Duration,
    /// The queue type of query queues; the same for all processes of a service. Default: classic.
    pub query_queue: QueryQueue,
    /// Where `/live` and `/ready` are served over HTTP, such as `0.0.0.0:8080`. Default: nowhere.
    pub health: Option<SocketAddr>,
    /// What happens to messages whose key no handler of this build takes. Default: retry every 5 s for 10 min.
    pub skew: SkewPolicy,
    /// Threads that run actors. Default: one per core.
    pub arbiters: usize,
    /// How long the start tries to reach the broker before it fails. Default: 30 s.
    pub start_timeout: Duration,
    /// How long to wait for the services that the app needs; see [`App::needs`](crate::App::needs). Default: 60 s.
    pub needs_timeout: Duration,
    /// How long running handlers may take when the process stops. Default: 30 s.
    pub stop_timeout: Duration,
    /// Limits on publishing and requests.
    pub publish: PublishSettings,
    /// Limits on payloads.
    pub limits: Limits,
    /// Limits on the messages that one handler holds back until it succeeds.
    pub held: HeldLimits,
    /// The address of the services' store, such as `sqlite:orders.db`; `service.<name>.store` gives one service its own. `None`:
    /// no store.
    pub store: Option<Secret>,
    /// The address of a pooler in front of `store`, which gives a connection for one transaction. `None`: handlers use the database
    /// itself.
    pub store_pooler: Option<Secret>,
    /// The stores of single services, by service.
    pub stores: BTreeMap<String, Secret>,
    /// The poolers in front of the stores of single services, by service.
    pub store_poolers: BTreeMap<String, Secret>,
    /// How stores are used.
    pub store_settings: StoreSettings,
    /// Settings of single actors, by `service` or `service.queue`.
    pub actors: BTreeMap<String, ActorOverrides>,
    /// The services' own settings, by service; see `Setup::config`.
    pub services: BTreeMap<String, toml::Table>,
    /// When the process stops by itself.
    pub run: RunLimits,
    /// Where each setting was set.
    pub(crate) origins: Origins,
}

/// How a process uses its services' stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreSettings {
    /// How long a transaction waits for a lock that another one holds. Default: 5 s.
    pub lock_timeout: Duration,
    /// How often the relay looks into the outbox although nobody has woken it. Default: 1 s.
    pub publish_interval: Duration,
    /// How long the inbox remembers a handled message. Default: 7 days.
    pub inbox_retention: Duration,
    /// How long messages of the outbox are kept after they were sent. Default: not at all.
    pub sent_retention: Option<Duration>,
    /// The most transactions outside of handlers at once. Default: 16.
    pub connections: usize,
    /// The most waiting messages that handlers with `&mut self` commit together; 1 commits each alone. Default: 32.
    pub shared_commit: usize,
    /// How old the oldest message of the outbox may be before the app is not ready. Default: 5 min.
    pub outbox_alarm: Duration,
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            lock_timeout: Duration::from_secs(5),
            publish_interval: Duration::from_secs(1),
            inbox_retention: Duration::from_secs(7 * 24 * 3_600),
            sent_retention: None,
            connections: 16,
            shared_commit: 32,
            outbox_alarm: Duration::from_secs(300),
        }
    }
}

/// What file and environment may set for one actor. They never change its guarantee or order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActorOverrides {
    /// The most deliveries held per lane.
    pub prefetch: Option<u16>,
    /// The most `&self` handlers that run at once per lane.
    pub concurrency: Option<usize>,
    /// How long a handler may run.
    pub timeout: Option<Duration>,
    /// When a failed message is retried, unless its handler has a plan of its own.
    pub retry: Option<Retry>,
    /// When it pauses by itself.
    pub breaker: Option<Breaker>,
}

/// When a process stops by itself. Default: never.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunLimits {
    /// After this many handled messages.
    pub messages: Option<u64>,
    /// After this long.
    pub time: Option<Duration>,
    /// When the process uses more than this many MiB of memory.
    pub memory_mib: Option<u64>,
    /// When nothing was handled for this long.
    pub idle: Option<Duration>,
    /// When a message is given up or rejected.
    pub first_failure: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            broker: None,
            broker_ca: None,
            namespace: Names::default(),
            prefetch: DEFAULT_PREFETCH,
            concurrency: 16,
            timeout: Duration::from_secs(30),
            consumer_timeout: CONSUMER_TIMEOUT,
            retry: Retry::default(),
            breaker: None,
            stall_after: Duration::from_secs(10),
            query_queue: QueryQueue::Classic,
            health: None,
            skew: SkewPolicy::default(),
            arbiters: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            start_timeout: Duration::from_secs(30),
            needs_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(30),
            publish: PublishSettings::default(),
            limits: Limits::default(),
            held: HeldLimits::default(),
            store: None,
            store_pooler: None,
            stores: BTreeMap::new(),
            store_poolers: BTreeMap::new(),
            store_settings: StoreSettings::default(),
            actors: BTreeMap::new(),
            services: BTreeMap::new(),
            run: RunLimits::default(),
            origins: Origins::default(),
        }
    }
}
