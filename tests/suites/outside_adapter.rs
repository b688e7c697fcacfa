//! An adapter from outside, made with public names alone: it forwards to another broker, counts, and may have fewer capabilities.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use postrider::adapter::in_process::InProcess;
use postrider::adapter::rabbitmq::RabbitMq;
use postrider::app::BrokerChoice;
use postrider::broker::{
    Addressed, Broker, BrokerError, Capabilities, ConnectionState, Consumer, ConsumerSpec, Names, OwnWords,
    Publication, Publisher, Queue, QueueState, Registry, ReplySink, Subscription, Topology,
};
use postrider::testing::conformance::{Bench, matrix, scenarios};
use postrider::{App, Context, Headers, Payload, SendError, distributed};
use postrider_tests::world::{Seen, eventually, run};
use tokio::sync::watch;
use tokio::time::Instant;

/// Forwards everything, and counts what is published.
struct Forwarding {
    to: Arc<dyn Broker>,
    capabilities: Capabilities,
    published: Arc<AtomicU64>,
}

impl Forwarding {
    fn new(to: Arc<dyn Broker>) -> Self {
        Self { capabilities: to.capabilities(), to, published: Arc::default() }
    }
}

impl Broker for Forwarding {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn describe(&self) -> String {
        format!("a forwarder to {}", self.to.describe())
    }

    fn connection(&self) -> watch::Receiver<ConnectionState> {
        self.to.connection()
    }

    fn declare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.to.declare(topology)
    }

    fn compare<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.to.compare(topology)
    }

    fn remove<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<(), BrokerError>> {
        self.to.remove(topology)
    }

    fn inspect<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Option<QueueState>, BrokerError>> {
        self.to.inspect(queue)
    }

    fn absent<'a>(&'a self, topology: &'a Topology) -> BoxFuture<'a, Result<Vec<String>, BrokerError>> {
        self.to.absent(topology)
    }

    fn registry(&self) -> Box<dyn Registry + '_> {
        self.to.registry()
    }

    fn in_own_words(&self, topology: &Topology) -> OwnWords {
        self.to.in_own_words(topology)
    }

    fn recorded_subscription(&self, json: &serde_json::Value) -> Option<Subscription> {
        self.to.recorded_subscription(json)
    }

    fn recorded_queue(&self, name: &str, arguments: &Headers) -> Queue {
        self.to.recorded_queue(name, arguments)
    }

    fn publisher(&self, replies: ReplySink) -> BoxFuture<'_, Result<Arc<dyn Publisher>, BrokerError>> {
        let published = Arc::clone(&self.published);
        let opening = self.to.publisher(replies);
        Box::pin(async move { Ok(Arc::new(Counting { to: opening.await?, published }) as Arc<dyn Publisher>) })
    }

    fn consume<'a>(&'a self, spec: &'a ConsumerSpec) -> BoxFuture<'a, Result<Box<dyn Consumer>, BrokerError>> {
        self.to.consume(spec)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.to.close()
    }
}

struct Counting {
    to: Arc<dyn Publisher>,
    published: Arc<AtomicU64>,
}

impl Publisher for Counting {
    fn publish(&self, message: Addressed, deadline: Instant) -> BoxFuture<'static, Result<Publication, BrokerError>> {
        self.published.fetch_add(1, Ordering::SeqCst);
        self.to.publish(message, deadline)
    }
}

/// Runs what the broker can do, and lists the rest by name.
async fn conforms(connect: impl AsyncFn(&Names) -> Arc<dyn Broker>) -> String {
    let mut not_on_this_broker = String::new();
    for scenario in scenarios() {
        let names = Bench::names();
        let (broker, other) = (connect(&names).await, connect(&names).await);
        let lacking = scenario.lacking(&broker.capabilities());
        if lacking.is_empty() {
            eprintln!("{}", scenario.name);
            scenario.run(Bench::new(names, broker, other)).await;
        } else {
            let _ = writeln!(not_on_this_broker, "{}: {lacking:?}", scenario.name);
        }
    }
    not_on_this_broker
}

on_both_brokers! {
    async fn an_adapter_from_outside_passes_the_suite(world: World) {
        let not_on_this_broker = conforms(async |names: &Names| {
            let world = world.in_namespace(names.clone());
            Arc::new(Forwarding::new(world.broker().await)) as Arc<dyn Broker>
        });
        assert_eq!(not_on_this_broker.await, "", "not on this broker");
    }

    async fn an_app_runs_over_an_adapter_from_outside(world: World) {
        let (clerk, published) = (Clerk::default(), Arc::new(AtomicU64::new(0)));
        let (handles, counts, place) = (clerk.clone(), Arc::clone(&published), world.clone());
        let adapter = BrokerChoice::adapter(move |names| {
            let (world, published) = (place.in_namespace(names), Arc::clone(&counts));
            async move { Ok(Arc::new(Forwarding { published, ..Forwarding::new(world.broker().await) }) as Arc<dyn Broker>) }
        });
        let app = world.app(App::new("clerk").actor(move || handles.clone())).broker(adapter);
        let running = app.configure(|config| config.broker = None).start_as_configured().await.unwrap();
        running.bus().send_key("clerk.file", Payload::json(&7)).await.unwrap();
        eventually("the event that it sends is handled too", || running.stats().handled == 2).await;
        assert_eq!(clerk.seen.all(), ["7", "filed 7"]);
        assert!(published.load(Ordering::SeqCst) >= 2);
        running.stop().await;
    }
}

#[derive(Clone, Default)]
struct Clerk {
    seen: Seen<String>,
}

#[distributed(service = "clerk", retry = "1 then 10m")]
impl Clerk {
    #[distributed(command = "clerk.file")]
    async fn file(&self, number: u64, cx: &Context) {
        self.seen.add(number.to_string());
        cx.publish_key("clerk.filed", Payload::json(&number)).unwrap();
    }

    #[distributed(event = "clerk.*", retry = "none")]
    async fn filed(&self, number: u64) {
        self.seen.add(format!("filed {number}"));
    }

    #[distributed(query = "clerk.found")]
    async fn found(&self, _: ()) -> Result<u64, postrider::Failure> {
        Ok(0)
    }
}

#[derive(Clone)]
struct Archive;

#[distributed(service = "archive", ordered)]
impl Archive {
    #[distributed(event = "clerk.filed")]
    async fn filed(&mut self, _: u64) {}
}

#[test]
fn what_a_broker_lacks_is_refused_at_the_start_with_handler_capability_and_broker() {
    run(async {
        let adapter = BrokerChoice::adapter(async |names: Names| {
            let mut broker = Forwarding::new(Arc::new(InProcess::new().connect(&names)));
            broker.capabilities.delays = Some(Duration::from_secs(15));
            broker.capabilities.patterns = None;
            broker.capabilities.replies = false;
            broker.capabilities.one_active_consumer = false;
            Ok(Arc::new(broker) as Arc<dyn Broker>)
        });
        let app = App::new("office").actor(Clerk::default).actor(|| Archive).broker(adapter);
        let Err(error) = app.start_as_configured().await else { panic!("it starts without what it needs") };
        let expected = [
            ("Clerk::file (", "delays of up to 10m"),
            ("Clerk::filed (", "subscriptions by pattern"),
            ("Clerk::found (", "replies"),
            ("Archive (archive)", "one active consumer of several"),
        ];
        assert_eq!(error.problems.len(), expected.len(), "{error}");
        for (problem, (whose, need)) in error.problems.iter().zip(expected) {
            let lacks = format!(") needs {need}, which the broker at a forwarder to in-process broker does not have");
            assert!(problem.starts_with(whose) && problem.ends_with(&lacks), "{problem}");
        }
    });
}

struct Bell;

#[distributed(service = "bell", retry = "none")]
impl Bell {
    #[distributed(command = "bell.ring")]
    async fn ring(&self, _: (), cx: &Context) -> Result<(), postrider::Failure> {
        match cx.send_key_with("bell.echo", Payload::json(&()), |o| o.delay(Duration::from_secs(60))) {
            Err(SendError::Option { option: "delay", .. }) => Ok(()),
            other => Err(postrider::Failure::permanent(format!("{other:?}"))),
        }
    }
}

#[test]
fn a_delay_that_a_broker_does_not_have_is_refused_where_the_message_is_sent() {
    run(async {
        let adapter = |longest| {
            BrokerChoice::adapter(move |names: Names| async move {
                let mut broker = Forwarding::new(Arc::new(InProcess::new().connect(&names)));
                broker.capabilities.delays = longest;
                Ok(Arc::new(broker) as Arc<dyn Broker>)
            })
        };
        let app = App::new("bell").actor(|| Bell).broker(adapter(Some(Duration::from_secs(15))));
        let running = app.start_as_configured().await.unwrap();
        let bus = running.bus();
        let late = bus.send_key_with("bell.ring", Payload::json(&()), |o| o.delay(Duration::from_secs(16))).await;
        let text = late.as_ref().map_or_else(ToString::to_string, ToString::to_string);
        assert!(matches!(late, Err(SendError::Option { option: "delay", .. })) && text.contains("up to 15s"), "{text}");
        bus.send_key("bell.ring", Payload::json(&())).await.unwrap();
        eventually("the handler is refused the same", || running.stats().handled == 1).await;
        running.stop().await;

        let app = App::new("bell").actor(|| Bell).broker(adapter(None));
        let Err(error) = app.start_as_configured().await else { panic!("what no handler takes has nowhere to wait") };
        assert!(error.to_string().contains("Bell (bell) needs delays of up to"), "{error}");
        let client = App::new("client").broker(adapter(None)).start_as_configured().await.unwrap();
        let late =
            client.bus().send_key_with("bell.ring", Payload::json(&()), |o| o.delay(Duration::from_millis(1))).await;
        assert!(late.unwrap_err().to_string().contains("this broker delays no messages"));
        client.stop().await;
    });
}

#[test]
fn the_page_about_brokers_says_what_the_adapters_state() {
    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/brokers.md");
    const MARK: &str = "<!-- what the adapters state -->\n";
    let page = fs::read_to_string(PAGE).unwrap();
    let stated = matrix(&[("in process", InProcess::CAPABILITIES), ("RabbitMQ", RabbitMq::CAPABILITIES)]);
    let mut parts = page.split(MARK);
    let (Some(before), Some(printed), Some(after)) = (parts.next(), parts.next(), parts.next()) else {
        panic!("{PAGE} has the table between two lines {MARK:?}");
    };
    if std::env::var_os("POSTRIDER_RECORD").is_some() {
        return fs::write(PAGE, format!("{before}{MARK}{stated}{MARK}{after}")).unwrap();
    }
    assert_eq!(printed, stated, "write it again with POSTRIDER_RECORD=1");
}

#[test]
fn a_scenario_that_is_not_on_a_broker_is_listed_by_name() {
    let mut capabilities = InProcess::CAPABILITIES;
    capabilities.taps = postrider::broker::Taps::Events;
    let listed = matrix(&[("some", capabilities)]);
    let line = "| `taps_get_a_copy_and_each_queue_gets_one_message_only` | not on this broker: taps of all messages |";
    assert!(listed.lines().any(|listed| listed == line), "{listed}");
}
