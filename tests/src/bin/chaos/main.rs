//! All faults at random under load, and the books at the end: `cargo xtask chaos --minutes 1 --seed 7`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a program that reports to its standard output and stops at the first surprise"
)]

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

mod consumer;

use postrider::app::{DeadFilter, DeadLetters};
use postrider::broker::Names;
use postrider::{App, Context, Failure, Payload, Running, Secret, distributed};
use postrider_tests::ledger::Ledger;
use postrider_tests::node::{ALARM, NO_ALARM, Node, send};
use postrider_tests::proxy::{Network, Proxy};
use postrider_tests::raw::RawClient;
use postrider_tests::strangers::{self, STRANGER};

use crate::consumer::Consumer;

/// The namespace of a run; its broker is nobody else's.
const NAMESPACE: &str = "chaos";
/// How many consumers there are, each a process.
const CONSUMERS: usize = 3;
/// How many publish at once.
const PUBLISHERS: usize = 32;
/// A run with fewer confirmed messages proves little and fails.
const LEAST_CONFIRMED: usize = 10_000;
/// How long everything may take to work again after a fault.
const RECOVERY: Duration = Duration::from_secs(60);
/// One of so many messages fails at its first attempt.
const ONE_FAILS_OF: u64 = 97;

struct Worker;

#[distributed(service = "worker", retry = "1 then 100ms, 1s, 5s")]
impl Worker {
    #[distributed(command = "worker.do")]
    async fn act(&self, number: u64, cx: &Context) -> Result<(), Failure> {
        if number.is_multiple_of(ONE_FAILS_OF) && cx.attempt() == 1 {
            return Err(Failure::transient("the first attempt fails on purpose"));
        }
        let mut out = std::io::stdout().lock();
        // What is printed is handled, whatever happens to this process afterwards.
        writeln!(out, "{}", cx.envelope().id)?;
        out.flush()?;
        Ok(())
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let after = |name: &str| arguments.iter().position(|word| word == name).and_then(|at| arguments.get(at + 1));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    if let Some(url) = after("--consume") {
        runtime.block_on(consume(url.clone()));
        return ExitCode::SUCCESS;
    }
    let minutes = after("--minutes").and_then(|text| text.parse::<f64>().ok()).unwrap_or(1.0);
    let seed = after("--seed").and_then(|text| text.parse().ok()).unwrap_or(7);
    match runtime.block_on(chaos(Duration::from_secs_f64(minutes * 60.0), seed)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn configured(app: App, url: &str) -> App {
    let url = Secret::new(url);
    app.configure(|config| {
        config.broker = Some(url);
        config.namespace = Names::new(NAMESPACE).expect("a word");
        config.publish.confirm_timeout = Duration::from_secs(10);
    })
}

/// One consumer process, until it is told to stop.
async fn consume(url: String) {
    let app = configured(App::new("worker").actor(|| Worker), &url);
    let running = app.start_as_configured().await.expect("the consumer starts");
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("signals");
    terminate.recv().await;
    running.stop().await;
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    BrokerKilled,
    BrokerFrozen,
    ConnectionsClosed,
    NetworkSwallows,
    NetworkCut,
    MemoryAlarm,
    ConsumerKilled,
    ConsumerStopped,
    ExchangeDeleted,
    VirtualHostFull,
    StrangersMessages,
    OtherFrames,
}

const FAULTS: [Fault; 12] = [
    Fault::BrokerKilled,
    Fault::BrokerFrozen,
    Fault::ConnectionsClosed,
    Fault::NetworkSwallows,
    Fault::NetworkCut,
    Fault::MemoryAlarm,
    Fault::ConsumerKilled,
    Fault::ConsumerStopped,
    Fault::ExchangeDeleted,
    Fault::VirtualHostFull,
    Fault::StrangersMessages,
    Fault::OtherFrames,
];

struct World {
    node: Node,
    proxy: Proxy,
    url: String,
    running: Running,
    consumers: Vec<Consumer>,
    ledger: Ledger,
    handled: Arc<AtomicU64>,
}

impl World {
    async fn start() -> Result<Self, String> {
        let node = Node::start()?;
        let proxy = Proxy::start(node.port()).await;
        let url = format!("{}/?heartbeat=2", proxy.url());
        let (ledger, handled) = (Ledger::default(), Arc::<AtomicU64>::default());
        let consumers = (0..CONSUMERS).map(|_| Consumer::start(&url, &ledger, &handled)).collect();
        let running = configured(App::new("publisher"), &url).start_as_configured().await.map_err(|e| e.to_string())?;
        Ok(Self { node, proxy, url, running, consumers, ledger, handled })
    }

    fn epoch(&self) -> u64 {
        self.running.connection().borrow().epoch
    }

    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<(), String> {
        let begin = Instant::now();
        while !holds(self) {
            if begin.elapsed() > RECOVERY {
                return Err(format!("not within {RECOVERY:?}: {what}"));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Messages are handled again: nothing else proves that it works.
    async fn works(&self) -> Result<(), String> {
        let before = self.handled.load(Ordering::SeqCst);
        self.until("messages are handled again", |world| world.handled.load(Ordering::SeqCst) > before + 50).await
    }

    /// Nobody is bound to it when it stands again, unless they notice.
    fn delete_an_exchange(&self, rng: &mut fastrand::Rng) -> Result<String, String> {
        let name = ["command", "delay.0", "delay.out", "channel"][rng.usize(..4)];
        let script = format!(
            r#"E = rabbit_misc:r(<<"/">>, exchange, <<"{NAMESPACE}.{name}">>), {{rabbit_exchange:exists(E), rabbit_exchange:delete(E, false, <<"chaos">>), rabbit_exchange:exists(E)}}."#
        );
        let told = self.node.ctl(&["eval", &script])?;
        if told.trim() != "{true,ok,false}" {
            return Err(format!("{NAMESPACE}.{name}: {told}"));
        }
        Ok(format!("{NAMESPACE}.{name} was there and was gone"))
    }

    /// All connections are closed, and for a while none is taken.
    async fn fill_the_virtual_host(&self, rng: &mut fastrand::Rng) -> Result<String, String> {
        let epoch = self.epoch();
        self.node.ctl(&["set_vhost_limits", "-p", "/", r#"{"max-connections":0}"#])?;
        self.node.ctl(&["close_all_connections", "chaos"])?;
        let gone = self.until("the connection is gone", |world| !world.running.connection().borrow().up).await;
        tokio::time::sleep(Duration::from_millis(500 + rng.u64(..2_000))).await;
        let refused = self.epoch() == epoch;
        self.node.ctl(&["clear_vhost_limits", "-p", "/"])?;
        gone?;
        self.until("a new connection", |world| world.epoch() > epoch).await?;
        if refused {
            Ok(format!("no connection was taken, then epoch {epoch} became {}", self.epoch()))
        } else {
            Err("a connection was taken".into())
        }
    }

    /// Each of them is a dead letter in the end, and costs nobody else anything.
    async fn let_a_stranger_send(&self) -> Result<String, String> {
        let letters = || async {
            let letters = DeadLetters::new(self.running.bus()).list(&DeadFilter::all()).await;
            letters.map(|letters| letters.iter().filter(|letter| letter.id().starts_with(STRANGER)).count())
        };
        let before = letters().await.map_err(|error| error.to_string())?;
        let url = self.node.url();
        let sending = tokio::task::spawn_blocking(move || {
            let mut stranger = RawClient::connect(&url);
            let messages = strangers::messages(&format!("{NAMESPACE}.command"), "worker.do");
            messages.iter().for_each(|message| stranger.publish(message));
            stranger.confirmed();
            messages.len()
        });
        let sent = sending.await.map_err(|error| error.to_string())?;
        let begin = Instant::now();
        while letters().await.map_err(|error| error.to_string())? < before + sent {
            if begin.elapsed() > RECOVERY {
                return Err(format!("not all of a stranger's {sent} messages are dead letters within {RECOVERY:?}"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(format!("{sent} messages that nobody can read became dead letters"))
    }

    /// The broker starts again with other frames.
    async fn change_the_frames(&mut self, rng: &mut fastrand::Rng) -> Result<String, String> {
        let (epoch, bytes) = (self.epoch(), [8_192, 131_072, 16_777_216][rng.usize(..3)]);
        self.node.restart_with(&[], &format!("frame_max = {bytes}"))?;
        self.until("a new connection", |world| world.epoch() > epoch).await?;
        Ok(format!("frames have {bytes} bytes, epoch {epoch} became {}", self.epoch()))
    }

    /// Makes a fault; the proof that it bit.
    async fn make(&mut self, fault: Fault, rng: &mut fastrand::Rng) -> Result<String, String> {
        let epoch = self.epoch();
        let raised = |world: &Self| world.epoch() > epoch;
        let which = rng.usize(..CONSUMERS);
        Ok(match fault {
            Fault::BrokerKilled => {
                let pid = self.node.pid().unwrap_or_default();
                self.node.kill()?;
                if send("0", pid) {
                    return Err(format!("broker {pid} is still there"));
                }
                self.node.restart()?;
                self.until("a new connection", raised).await?;
                format!("process {pid} is gone, epoch {epoch} became {}", self.epoch())
            }
            Fault::BrokerFrozen => {
                self.node.freeze()?;
                let before = self.handled.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(500)).await;
                let still = self.handled.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(2 + rng.u64(..3))).await;
                let end = self.handled.load(Ordering::SeqCst);
                self.node.thaw()?;
                if end != still {
                    return Err(format!("{} messages were handled while the broker was frozen", end - before));
                }
                format!("nothing was handled meanwhile, {end} before it")
            }
            Fault::ConnectionsClosed => {
                self.node.ctl(&["close_all_connections", "chaos"])?;
                self.until("a new connection", raised).await?;
                format!("epoch {epoch} became {}", self.epoch())
            }
            Fault::NetworkSwallows => {
                self.proxy.set(Network::BlackHole);
                self.until("the heartbeats are missed", |world| !world.running.connection().borrow().up).await?;
                self.proxy.set(Network::Fine);
                self.until("a new connection", raised).await?;
                format!("missed heartbeats, epoch {epoch} became {}", self.epoch())
            }
            Fault::NetworkCut => {
                self.proxy.set(Network::Cut);
                self.until("the connection is gone", |world| !world.running.connection().borrow().up).await?;
                self.proxy.set(Network::Fine);
                self.until("a new connection", raised).await?;
                format!("connections broke, epoch {epoch} became {}", self.epoch())
            }
            Fault::MemoryAlarm => {
                self.node.ctl(&["eval", ALARM])?;
                let seen = self.until("the alarm is seen", |world| world.running.connection().borrow().blocked).await;
                self.node.ctl(&["eval", NO_ALARM])?;
                seen?;
                self.until("the alarm is over", |world| !world.running.connection().borrow().blocked).await?;
                "publishers were blocked and went on".to_owned()
            }
            Fault::ExchangeDeleted => self.delete_an_exchange(rng)?,
            Fault::VirtualHostFull => self.fill_the_virtual_host(rng).await?,
            Fault::StrangersMessages => self.let_a_stranger_send().await?,
            Fault::OtherFrames => self.change_the_frames(rng).await?,
            Fault::ConsumerKilled | Fault::ConsumerStopped => {
                let signal = if matches!(fault, Fault::ConsumerKilled) { "KILL" } else { "TERM" };
                let pid = self.consumers[which].end(signal)?;
                self.consumers[which] = Consumer::start(&self.url, &self.ledger, &self.handled);
                format!("process {pid} is gone, {} took its place", self.consumers[which].id())
            }
        })
    }
}

fn publish(world: &World, stop: &Arc<AtomicBool>) -> Vec<tokio::task::JoinHandle<()>> {
    let numbers = Arc::<AtomicU64>::default();
    let one = |_| {
        let (bus, ledger) = (world.running.bus().clone(), world.ledger.clone());
        let (stop, numbers) = (Arc::clone(stop), Arc::clone(&numbers));
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let number = numbers.fetch_add(1, Ordering::SeqCst);
                let id = format!("m{number}");
                ledger.attempts(&id);
                let sent = bus.send_key_with("worker.do", Payload::msgpack(&number), |o| o.id(id.as_str())).await;
                if sent.is_ok() {
                    ledger.confirms(&id);
                }
            }
        })
    };
    (0..PUBLISHERS).map(one).collect()
}

async fn chaos(time: Duration, seed: u64) -> Result<(), String> {
    println!("seed {seed}, {time:?}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = World::start().await?;
    let begin = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let publishers = publish(&world, &stop);
    world.until("the consumers work", |world| world.handled.load(Ordering::SeqCst) > 0).await?;
    // A queue that is younger than this does not come back from a kill (seen with RabbitMQ 3.10).
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut order = Vec::new();
    while begin.elapsed() < time {
        if order.is_empty() {
            order = FAULTS.to_vec();
            rng.shuffle(&mut order);
        }
        let Some(fault) = order.pop() else { break };
        let proof = world.make(fault, &mut rng).await.map_err(|error| format!("{fault:?} without effect: {error}"))?;
        println!("{:6.1} s  {fault:?}: {proof}", begin.elapsed().as_secs_f64());
        world.works().await.map_err(|error| format!("after {fault:?}: {error}"))?;
    }
    stop.store(true, Ordering::SeqCst);
    for publisher in publishers {
        publisher.await.map_err(|error| error.to_string())?;
    }
    balance(&world).await
}

/// What was confirmed is handled or a dead letter, in the end.
async fn balance(world: &World) -> Result<(), String> {
    let waited = Instant::now();
    while world.ledger.balance().lost > 0 && waited.elapsed() < 2 * RECOVERY {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let letters = DeadLetters::new(world.running.bus()).list(&DeadFilter::all()).await;
    let letters = letters.map_err(|error| error.to_string())?;
    for letter in letters.iter().filter(|letter| !letter.id().starts_with(STRANGER)) {
        world.ledger.buries(letter.id());
        println!("dead letter {}: {} {}", letter.id(), letter.reason(), letter.error());
    }
    let balance = world.ledger.balance();
    println!("{balance}");
    if balance.lost > 0 || balance.unexpected > 0 {
        return Err("something was lost, or came from nowhere".into());
    }
    if balance.confirmed < LEAST_CONFIRMED {
        return Err(format!("fewer than {LEAST_CONFIRMED} messages were confirmed: the run proves little"));
    }
    Ok(())
}
