//! The parts of a run: a broker behind a proxy, consumers as processes, a publisher, the books.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use postrider::{App, Options, Payload, Running, SendError};
use postrider_tests::node::Node;
use postrider_tests::proxy::Proxy;

use crate::consumer::{Books, Consumer, Role};
use crate::services::configured;

/// How many consumers there are, each a process.
pub const CONSUMERS: usize = 3;
/// How long recovery from a fault may take.
pub const RECOVERY: Duration = Duration::from_secs(60);
/// The largest frame of RabbitMQ by default, in bytes.
const FRAME_MAX: usize = 131_072;
/// How often a condition is checked.
pub const LOOK: Duration = Duration::from_millis(10);

/// The broker, its proxy, and the consumers.
pub struct World {
    pub node: Node,
    pub proxy: Proxy,
    /// The broker's address behind the proxy.
    pub url: String,
    pub running: Running,
    pub consumers: Vec<Consumer>,
    pub books: Books,
    /// The largest frame, in bytes.
    pub frame_max: usize,
    /// Counts the faults, so that ids differ.
    pub faults: u64,
}

impl World {
    pub async fn start() -> Result<Self, String> {
        let node = Node::start()?;
        let proxy = Proxy::start(node.port()).await;
        let url = format!("{}/?heartbeat=2", proxy.url());
        let books = Books::default();
        let consumers = (0..CONSUMERS).map(|_| Consumer::start(&url, Role::Worker, &books)).collect();
        let running = configured(App::new("publisher"), &url).start_as_configured().await.map_err(|e| e.to_string())?;
        let world = Self { node, proxy, url, running, consumers, books, frame_max: FRAME_MAX, faults: 0 };
        // Creates its queues.
        let mut keeper = Consumer::start(&world.url, Role::Keeper, &world.books);
        for key in ["keeper.do", "keeper.help"] {
            let begin = Instant::now();
            while world.send(key, &format!("first-{key}"), None).await.is_err() {
                if begin.elapsed() > RECOVERY {
                    return Err(format!("nobody takes {key} within {RECOVERY:?}"));
                }
                tokio::time::sleep(LOOK).await;
            }
        }
        keeper.end("TERM")?;
        Ok(world)
    }

    /// Sends a message and records the outcome in the books.
    pub async fn send(&self, key: &str, id: &str, timeout: Option<Duration>) -> Result<(), SendError> {
        self.books.ledger.attempts(id);
        let options = |o: Options| if let Some(timeout) = timeout { o.id(id).timeout(timeout) } else { o.id(id) };
        let sent = self.running.bus().send_key_with(key, Payload::msgpack(&1_u64), options).await;
        if sent.is_ok() {
            self.books.ledger.confirms(id);
        }
        sent.map(drop)
    }

    pub fn handled(&self) -> u64 {
        self.books.handled.load(Ordering::SeqCst)
    }

    pub fn epoch(&self) -> u64 {
        self.running.connection().borrow().epoch
    }

    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<(), String> {
        let begin = Instant::now();
        while !holds(self) {
            if begin.elapsed() > RECOVERY {
                return Err(format!("not within {RECOVERY:?}: {what}"));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until messages are handled again: only that proves recovery.
    pub async fn works(&self) -> Result<(), String> {
        let before = self.handled();
        self.until("messages are handled again", |world| world.handled() > before + 50).await
    }
}
