//! The broker delivers again; a message is not handled twice at once, and one that never ends is given up.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use postrider::broker::{ConsumerSpec, Names, Queue, Topology};
use postrider::testing::ForeignMessage;
use postrider::{App, Context, Failure, Payload, distributed};
use postrider_tests::node::Node;
use postrider_tests::program::{PATIENCE, program};
use postrider_tests::world::{Seen, World, assert_same, eventually, eventually_async, run};
use tokio::sync::Semaphore;

#[derive(Clone)]
struct Alpha {
    seen: Seen<String>,
    gate: Arc<Semaphore>,
    slow: Arc<Semaphore>,
}

impl Default for Alpha {
    fn default() -> Self {
        Self { seen: Seen::default(), gate: Arc::new(Semaphore::new(0)), slow: Arc::new(Semaphore::new(0)) }
    }
}

impl Alpha {
    fn app(&self) -> App {
        let alpha = self.clone();
        App::new("alpha").actor(move || alpha.clone())
    }

    async fn pass(&self, what: String) {
        self.seen.add(what);
        self.gate.acquire().await.unwrap().forget();
    }
}

#[distributed(service = "alpha", retry = "3")]
impl Alpha {
    #[distributed(command = "alpha.shared")]
    async fn shared(&self, what: String) -> Result<String, Failure> {
        self.pass(what.clone()).await;
        Ok(what)
    }

    #[distributed(command = "alpha.slow")]
    async fn slow(&self, what: String) {
        self.seen.add(what);
        self.slow.acquire().await.unwrap().forget();
    }

    #[distributed(command = "alpha.alone")]
    async fn alone(&mut self, what: String) {
        self.pass(what).await;
    }

    #[distributed(command = "alpha.note")]
    async fn note(&mut self, what: String, cx: &Context) {
        self.seen.add(format!("{what} {}", cx.attempt()));
    }
}

#[derive(Clone, Default)]
struct Strict(Seen<String>);

#[distributed(service = "strict", ordered)]
impl Strict {
    #[distributed(command = "strict.note")]
    async fn note(&mut self, what: String) {
        self.0.add(what);
    }
}

/// Takes the first message of a queue and gives it back, so often.
pub(super) async fn give_back(world: &World, queue: &Queue, times: usize) {
    let broker = world.broker().await;
    for _ in 0..times {
        let spec = ConsumerSpec { queue: queue.clone(), topology: Topology::default(), prefetch: 1, answers: false };
        let mut consumer = broker.consume(&spec).await.unwrap();
        let delivery = consumer.next().await.unwrap().unwrap();
        // Otherwise it would be delivered to this consumer again.
        consumer.cancel().await;
        delivery.receipt.give_back();
        consumer.close().await;
    }
    broker.close().await;
}

/// The queue of a service's main actor, as it declares it.
pub(super) fn queue(world: &World, service: &str) -> Queue {
    let name = world.names.queue(service, None);
    let dead = world.names.dead_queue(&name);
    Queue::replicated(name).with_last_resort(dead)
}

on_both_brokers! {
    async fn a_message_that_is_sent_twice_is_not_handled_twice_at_once(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let bus = running.bus();
        for _ in 0..2 {
            bus.send_key_with("alpha.shared", Payload::text("it"), |o| o.id("the-same")).await.unwrap();
        }
        bus.send_key("alpha.shared", Payload::text("other")).await.unwrap();
        assert_same(["it", "other"].map(str::to_owned), alpha.seen.reach(2).await);
        alpha.gate.add_permits(3);
        eventually("all are settled", || running.stats().handled == 3).await;
        assert_same(["it", "other", "it"].map(str::to_owned), alpha.seen.all());
    }

    /// T54
    async fn what_was_given_back_often_is_handled_and_its_attempts_are_those_that_were_made(world: World) {
        let alpha = Alpha::default();
        world.start(alpha.app()).await.stop().await;
        let client = world.client().await;
        client.bus().send_key("alpha.note", Payload::text("it")).await.unwrap();
        give_back(&world, &queue(&world, "alpha"), 12).await;
        let running = world.start(alpha.app()).await;
        assert_eq!(alpha.seen.reach(1).await, ["it 1"]);
        eventually("it is settled", || running.stats().in_flight == 0).await;
        let queue = queue(&world, "alpha");
        let mut properties = ForeignMessage { persistent: true, message_type: Some("alpha.note".into()), ..ForeignMessage::default() };
        properties.headers.set("postrider-kind", "command");
        properties.headers.set("postrider-attempt", 3);
        world.publish_foreign("", &queue.name, properties, "last").await;
        assert_eq!(alpha.seen.reach(2).await, ["it 1", "last 3"]);
        running.stop().await;
    }

    async fn an_actor_that_stops_at_poison_handles_nothing_after_it_until_it_is_resumed(world: World) {
        let careful = Careful::default();
        let actor = careful.clone();
        let running = world.start(App::new("careful").actor(move || actor.clone())).await;
        for what in ["first", "poison", "third", "fourth"] {
            running.bus().send_key("careful.note", Payload::text(what)).await.unwrap();
        }
        eventually("it stops and says why", || {
            !running.health().ready && running.health().lanes.iter().any(|lane| lane.problem.as_deref().is_some_and(|problem| problem.contains("stopped at message")))
        }).await;
        let name = world.names.queue("careful", None);
        eventually_async("three wait", || async { world.ready(&name).await == Some(3) }).await;
        assert_eq!((careful.seen.all(), running.stats().dead_lettered), (vec!["first".to_owned()], 0));
        // However often somebody tries, it is the handler that is asked, and the message stays.
        for tries in 2..=12 {
            if tries % 2 == 0 { running.restart("careful").unwrap() } else { running.resume("careful").unwrap() }
            eventually("it was tried again", || careful.tries.load(std::sync::atomic::Ordering::SeqCst) == tries).await;
            eventually("it stops again", || !running.health().ready).await;
        }
        careful.mended.store(true, std::sync::atomic::Ordering::SeqCst);
        running.resume("careful").unwrap();
        assert_eq!(careful.seen.reach(4).await, ["first", "poison", "third", "fourth"]);
        eventually("ready again", || running.health().ready && running.stats().in_flight == 0).await;
    }

    async fn a_message_that_an_ordered_actor_has_twice_holds_its_place_both_times(world: World) {
        let strict = Strict::default();
        let app = || { let strict = strict.clone(); App::new("strict").actor(move || strict.clone()) };
        world.start(app()).await.stop().await;
        let client = world.client().await;
        // As a sender does whose confirms were lost: the same again, and only then the next one.
        let sent = ["one", "two", "one", "two", "three", "two", "four"];
        for what in sent {
            client.bus().send_key_with("strict.note", Payload::text(what), |o| o.id(what)).await.unwrap();
        }
        let running = world.start(app()).await;
        assert_eq!(strict.0.reach(sent.len()).await, sent);
        eventually("they are settled", || running.stats().in_flight == 0).await;
        running.stop().await;
    }

    async fn an_ordered_actor_keeps_places_however_often_its_messages_were_given_back(world: World) {
        let strict = Strict::default();
        let app = || { let strict = strict.clone(); App::new("strict").actor(move || strict.clone()) };
        world.start(app()).await.stop().await;
        let client = world.client().await;
        for what in ["first", "second"] {
            client.bus().send_key("strict.note", Payload::text(what)).await.unwrap();
        }
        let ordered = queue(&world, "strict").with_one_active_consumer();
        give_back(&world, &ordered, 20).await;
        let running = world.start(app()).await;
        assert_eq!(strict.0.reach(2).await, ["first", "second"]);
        eventually("they are settled", || running.stats().in_flight == 0).await;
        assert_eq!(running.stats().dead_lettered, 0);
        running.stop().await;
    }
}

/// Stops at what it would give up.
#[derive(Clone, Default)]
struct Careful {
    seen: Seen<String>,
    mended: Arc<std::sync::atomic::AtomicBool>,
    tries: Arc<std::sync::atomic::AtomicU32>,
}

#[distributed(service = "careful", ordered, on_poison = "stop", retry = "2")]
impl Careful {
    #[distributed(command = "careful.note")]
    async fn note(&mut self, what: String) -> Result<(), Failure> {
        if what == "poison" && !self.mended.load(std::sync::atomic::Ordering::SeqCst) {
            self.tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            return Err(Failure::permanent("poison"));
        }
        self.seen.add(what);
        Ok(())
    }
}

fn unacknowledged(node: &Node, queue: &str) -> Option<u64> {
    let listed = node.ctl(&["-q", "list_queues", "name", "messages", "--no-table-headers"]).unwrap();
    let line = listed.lines().find(|line| line.split_whitespace().next() == Some(queue))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The connection breaks while handlers run: the broker delivers again, and nobody runs twice.
#[test]
fn a_redelivery_takes_the_outcome_of_the_run_that_is_under_way() {
    run(async {
        let node = Node::start().unwrap();
        let world = World::on(node.url().to_owned());
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let bus = running.bus();
        bus.send_key("alpha.shared", Payload::text("shared")).await.unwrap();
        alpha.seen.reach(1).await;
        cut(&node, &running).await;
        eventually("the redelivery waits", || running.stats().joined == 1).await;
        alpha.gate.add_permits(1);
        eventually("it is settled", || running.stats().in_flight == 0).await;
        // An exclusive handler holds up its lane: its redelivery only comes to its turn when it has ended.
        bus.send_key("alpha.alone", Payload::text("alone")).await.unwrap();
        alpha.seen.reach(2).await;
        cut(&node, &running).await;
        alpha.gate.add_permits(1);
        bus.send_key("alpha.note", Payload::text("after")).await.unwrap();
        alpha.seen.reach(3).await;
        eventually("all is settled", || running.stats().in_flight == 0).await;
        assert_eq!(alpha.seen.all(), ["shared", "alone", "after 1"], "each ran once");
        assert_eq!(running.stats().joined, 2);
        let name = world.names.queue("alpha", None);
        eventually_async("the broker knows", || async { unacknowledged(&node, &name) == Some(0) }).await;
        running.stop().await;
    });
}

/// Ends all connections, and waits until everything consumes again.
async fn cut(node: &Node, running: &postrider::Running) {
    let opened = running.stats().consumers_opened;
    node.ctl(&["close_all_connections", "test"]).unwrap();
    eventually("the lane consumes again", || running.stats().consumers_opened > opened && running.health().ready).await;
}

/// Acknowledgements are collected, but never held back when nothing else is coming.
#[test]
fn an_acknowledgement_is_not_held_back_when_nothing_else_comes() {
    run(async {
        let node = Node::start().unwrap();
        let world = World::on(node.url().to_owned());
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let name = world.names.queue("alpha", None);
        for round in 1..=3 {
            for _ in 0..round {
                running.bus().send_key("alpha.note", Payload::text("it")).await.unwrap();
            }
            eventually("they are handled", || running.stats().in_flight == 0).await;
            eventually_async("the broker knows", || async { unacknowledged(&node, &name) == Some(0) }).await;
        }
        // One slow handler holds up nobody's acknowledgement.
        running.bus().send_key("alpha.slow", Payload::text("slow")).await.unwrap();
        alpha.seen.reach(7).await;
        for number in 0..5 {
            running.bus().send_key("alpha.shared", Payload::text(number.to_string())).await.unwrap();
        }
        alpha.seen.reach(12).await;
        eventually_async("six are held", || async { unacknowledged(&node, &name) == Some(6) }).await;
        alpha.gate.add_permits(5);
        eventually("five of six are settled", || running.stats().in_flight == 1).await;
        eventually_async("the broker knows of five", || async { unacknowledged(&node, &name) == Some(1) }).await;
        alpha.slow.add_permits(1);
        running.stop().await;
    });
}

/// A consumer as a process, which prints the id of what it has handled.
struct Worker {
    child: Child,
    handled: Receiver<String>,
}

impl Worker {
    fn start(url: &str) -> Self {
        let mut child = program("chaos").args(["--consume", url]).stderr(Stdio::null()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (say, handled) = channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|id| say.send(id)));
        Self { child, handled }
    }

    fn handled(&mut self, count: usize) -> Vec<String> {
        let next = |_| self.handled.recv_timeout(PATIENCE).expect("the worker handles what is there");
        (0..count).map(next).collect()
    }

    /// Ends it with SIGKILL; what it had handled in the meantime.
    fn kill(mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.handled.iter().collect()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Acknowledgements are collected: those that a crash takes with it are messages that run twice.
#[test]
fn a_process_that_is_killed_with_acknowledgements_outstanding_repeats_no_more_than_it_held_and_loses_nothing() {
    run(async {
        const MESSAGES: usize = 3_000;
        let node = Node::start().unwrap();
        let mut world = World::on(node.url());
        world.names = Names::new("chaos").unwrap();
        let sender = world.start(App::new("sender")).await;
        let queue = world.names.queue("worker", None);
        let first = Worker::start(&node.url());
        eventually_async("the worker's queue", || async {
            world.broker().await.inspect(&queue).await.unwrap().is_some_and(|state| state.consumers > 0)
        })
        .await;
        first.kill();
        let payload = |number: usize| Payload::msgpack(&number);
        let sends = (0..MESSAGES).map(|number| sender.bus().send_key("worker.do", payload(number)));
        let sent: BTreeSet<String> =
            futures::future::join_all(sends).await.into_iter().map(|id| id.unwrap().to_string()).collect();
        let (mut handled, mut repeated) = (BTreeSet::new(), 0);
        for kill in 1..=6 {
            let mut worker = Worker::start(&node.url());
            let seen = worker.handled(300);
            let twice: Vec<String> =
                seen.into_iter().chain(worker.kill()).filter(|id| !handled.insert(id.clone())).collect();
            assert!(
                twice.len() <= 64,
                "kill {kill}: {} messages ran twice, more than were held: {twice:?}",
                twice.len()
            );
            repeated += twice.len();
        }
        assert!(repeated > 0, "no kill came while an acknowledgement was outstanding");
        let mut last = Worker::start(&node.url());
        while handled.len() < MESSAGES {
            handled.extend(last.handled(1));
        }
        last.kill();
        assert_same(sent, handled);
        sender.stop().await;
    });
}
