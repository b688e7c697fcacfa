//! One test's world: a broker, in process or RabbitMQ, and a namespace that no other test uses.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postrider::adapter::in_process::InProcess;
use postrider::adapter::rabbitmq::{RabbitMq, RabbitMqSettings};
use postrider::broker::{Broker, ConsumerSpec, Names, Publication, Queue, To, Topology};
use postrider::testing::ForeignMessage;
use postrider::{App, Bytes, Envelope, MessageId, Retry, Running, Secret, StartError};
use tokio::time::{Instant, timeout};

/// How long an expected event may take.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How often a condition is checked.
const LOOK: Duration = Duration::from_millis(5);

#[derive(Clone)]
enum Where {
    InProcess(InProcess),
    RabbitMq(String),
}

/// A broker and a namespace.
#[derive(Clone)]
pub struct World {
    place: Where,
    /// The namespace.
    pub names: Names,
}

/// The address of the RabbitMQ that the suites share.
///
/// # Panics
/// When there is none; the text says how to get one.
#[must_use]
pub fn amqp_url() -> String {
    std::env::var("AMQP_URL").unwrap_or_else(|_| {
        panic!("this test needs a RabbitMQ: run `cargo xtask test`, which starts one, or set AMQP_URL=amqp://user:password@host:port")
    })
}

impl World {
    fn new(place: Where) -> Self {
        let id = MessageId::new();
        let word = format!("t{}", id.as_str().rsplit('-').next().unwrap_or_default());
        Self { place, names: Names::new(&word).expect("a word") }
    }

    /// A world on an in-process broker of its own.
    #[must_use]
    pub fn in_process() -> Self {
        Self::new(Where::InProcess(InProcess::new()))
    }

    /// A world on the shared RabbitMQ.
    #[must_use]
    pub fn rabbitmq() -> Self {
        Self::on(amqp_url())
    }

    /// A world on a certain RabbitMQ.
    #[must_use]
    pub fn on(url: String) -> Self {
        Self::new(Where::RabbitMq(url))
    }

    /// The in-process broker, if this world has one.
    #[must_use]
    pub fn in_process_broker(&self) -> Option<&InProcess> {
        if let Where::InProcess(broker) = &self.place { Some(broker) } else { None }
    }

    /// The address of RabbitMQ, if this world has one.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        if let Where::RabbitMq(url) = &self.place { Some(url) } else { None }
    }

    /// The same broker, and another namespace.
    #[must_use]
    pub fn in_namespace(&self, names: Names) -> Self {
        Self { names, place: self.place.clone() }
    }

    /// The app in this world: its broker, its namespace, two arbiters.
    pub fn app(&self, app: App) -> App {
        let app = match &self.place {
            Where::InProcess(broker) => app.broker(broker.clone()),
            Where::RabbitMq(_) => app,
        };
        let (url, names) = (self.url().map(Secret::new), self.names.clone());
        app.configure(|config| {
            config.broker = url;
            config.namespace = names;
            config.arbiters = 2;
            config.stop_timeout = Duration::from_secs(10);
            // Tests of delays set a plan with delays themselves.
            config.retry = Retry::in_place(3);
        })
    }

    /// Starts an app in this world.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(&self, app: App) -> Running {
        self.try_start(app).await.unwrap_or_else(|error| panic!("the app does not start:\n{error}"))
    }

    /// Tries to start an app in this world.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn try_start(&self, app: App) -> Result<Running, StartError> {
        self.app(app).start_as_configured().await
    }

    /// An app without actors, to send with.
    pub async fn client(&self) -> Running {
        self.start(App::new("tester")).await
    }

    /// A plain connection to the broker, as a foreign client has it.
    pub async fn broker(&self) -> Arc<dyn Broker> {
        match &self.place {
            Where::InProcess(broker) => Arc::new(broker.connect(&self.names)),
            Where::RabbitMq(url) => {
                let mut settings = RabbitMqSettings::new(Secret::new(url.clone()), "foreign client");
                settings.names = self.names.clone();
                Arc::new(RabbitMq::connect(settings).await.expect("RabbitMQ answers at AMQP_URL"))
            }
        }
    }

    /// The target of a message that is published this way.
    ///
    /// # Panics
    /// When the exchange is none of those for messages.
    pub fn to(&self, exchange: &str, key: &str) -> To {
        if exchange.is_empty() {
            return To::Queue(key.into());
        }
        let kind = self.names.kind_of(exchange).unwrap_or_else(|| panic!("no exchange for messages: {exchange}"));
        To::key(kind, &key.into())
    }

    /// Publishes as a foreign client: only the given properties are set.
    pub async fn publish_foreign(
        &self,
        exchange: &str,
        key: &str,
        foreign: ForeignMessage,
        payload: impl Into<Bytes>,
    ) -> Publication {
        let broker = self.broker().await;
        let publisher = broker.publisher(Arc::new(|_| {})).await.expect("a publisher opens");
        let message = foreign.addressed(self.to(exchange, key), payload);
        let publication = publisher.publish(message, Instant::now() + PATIENCE).await.expect("the message is taken");
        broker.close().await;
        publication
    }

    /// Waits for `count` messages in a queue and takes them out.
    ///
    /// # Panics
    /// When they do not arrive; the text says how many did.
    pub async fn take(&self, queue: Queue, count: usize) -> Vec<Envelope> {
        let broker = self.broker().await;
        let spec = ConsumerSpec { queue, topology: Topology::default(), prefetch: 100, answers: false };
        let mut consumer = broker.consume(&spec).await.expect("the queue can be consumed");
        let mut envelopes = Vec::new();
        while envelopes.len() < count {
            let delivery = timeout(PATIENCE, consumer.next()).await;
            let Ok(Some(Ok(delivery))) = delivery else {
                panic!("{} messages came to {:?}, not {count}: {envelopes:?}", envelopes.len(), spec.queue.name);
            };
            delivery.receipt.ack();
            envelopes.push(Arc::unwrap_or_clone(delivery.envelope));
        }
        consumer.close().await;
        broker.close().await;
        envelopes
    }

    /// Takes `count` dead letters of a service's main actor.
    pub async fn dead_letters(&self, service: &str, count: usize) -> Vec<Envelope> {
        self.take(Queue::replicated(self.names.dead_queue(&self.names.queue(service, None))), count).await
    }

    /// How many messages are ready in a queue; `None` if there is no such queue.
    pub async fn ready(&self, queue: &str) -> Option<u64> {
        let broker = self.broker().await;
        let state = broker.inspect(queue).await.expect("the broker answers");
        broker.close().await;
        state.map(|state| state.ready)
    }
}

/// What handlers recorded, in order. Clones share it.
pub struct Seen<T>(Arc<Mutex<Vec<T>>>);

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone> Seen<T> {
    /// Adds one.
    pub fn add(&self, value: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(value);
    }

    /// All so far.
    #[must_use]
    pub fn all(&self) -> Vec<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Waits for at least this many.
    ///
    /// # Panics
    /// When they do not arrive in time.
    pub async fn reach(&self, count: usize) -> Vec<T>
    where
        T: std::fmt::Debug,
    {
        let start = Instant::now();
        while self.count() < count {
            assert!(start.elapsed() < PATIENCE, "{} seen, not {count}: {:?}", self.count(), self.all());
            tokio::time::sleep(LOOK).await;
        }
        self.all()
    }
}

/// Waits until a condition holds.
///
/// # Panics
/// When it does not hold in time; the text names the condition.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until an asynchronous condition holds.
///
/// # Panics
/// When it does not hold in time; the text names the condition.
pub async fn eventually_async<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// Runs a test on a runtime of its own.
///
/// # Panics
/// As the test does, or when it takes longer than three minutes.
pub fn run<F: Future>(test: F) -> F::Output {
    run_within(Duration::from_secs(180), test)
}

/// Runs a test that needs more time, or less.
///
/// # Panics
/// As the test does, or when it takes longer than this.
pub fn run_within<F: Future>(limit: Duration, test: F) -> F::Output {
    if let Ok(filter) = std::env::var("POSTRIDER_LOG") {
        // Another test of this process may have started the log already.
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        timeout(limit, test).await.unwrap_or_else(|_| panic!("the test did not end within {limit:?}"))
    })
}

/// Fails with the missing and the extra elements.
///
/// # Panics
/// When the two are different sets.
pub fn assert_same<T: Ord + Clone + std::fmt::Debug>(
    expected: impl IntoIterator<Item = T>,
    got: impl IntoIterator<Item = T>,
) {
    let (mut expected, mut got): (Vec<T>, Vec<T>) = (expected.into_iter().collect(), got.into_iter().collect());
    expected.sort();
    got.sort();
    let missing: Vec<&T> = expected.iter().filter(|value| !got.contains(value)).collect();
    let extra: Vec<&T> = got.iter().filter(|value| !expected.contains(value)).collect();
    assert!(
        expected == got,
        "missing: {missing:?}; extra: {extra:?}; expected {} values, got {}",
        expected.len(),
        got.len()
    );
}

/// A log that a test can read while it is written. Clones are the same log.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// The log so far.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
