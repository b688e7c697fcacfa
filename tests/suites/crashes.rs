//! Processes that die with a message, and processes that only stop: the message is given up for the first alone.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use postrider::{App, Context, Payload, distributed};
use postrider_tests::program::{PATIENCE, program};
use postrider_tests::world::{Seen, World, amqp_url, assert_same, eventually, eventually_async, run};
use tokio::sync::Semaphore;

/// How often a message ends its process before it is suspected, and then alone until it is given up.
const DEATHS: usize = 3 + 3;

/// One life of the service `mortal`.
struct Life {
    child: Child,
    begins: Receiver<String>,
}

impl Life {
    fn start(world: &World) -> Self {
        let mut command = program("mortal");
        command.env("POSTRIDER_BROKER", amqp_url()).env("POSTRIDER_NAMESPACE", world.names.namespace());
        command.env("POSTRIDER_STOP_TIMEOUT", "500ms");
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        let (lines, begins) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || output.lines().map_while(Result::ok).all(|line| lines.send(line).is_ok()));
        Self { child, begins }
    }

    /// The next message that begins; `None` if the process ends instead.
    fn next(&self) -> Option<String> {
        match self.begins.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing begins and the process does not end"),
        }
    }

    /// Waits until it consumes.
    async fn is_up(&self, world: &World, queue: &str) {
        eventually_async("it consumes", || async {
            world.broker().await.inspect(queue).await.unwrap().is_some_and(|state| state.consumers > 0)
        })
        .await;
    }

    /// Ends it as an orchestrator does.
    fn stop(mut self) {
        let id = self.child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success(), "whoever is asked to end has not failed");
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A first life declares what there is to declare.
async fn declared(world: &World, queue: &str) {
    let life = Life::start(world);
    life.is_up(world, queue).await;
    life.stop();
}

/// Lives until a message is given up: how many deaths there were, and what began in which order.
async fn until_given_up(world: &World, queue: &str, last: &str) -> (usize, Vec<String>) {
    let (mut deaths, mut began) = (0, Vec::new());
    loop {
        let life = Life::start(world);
        while let Some(line) = life.next() {
            let is_last = line.starts_with(last);
            began.push(line);
            if is_last && world.ready(&world.names.dead_queue(queue)).await == Some(1) {
                // What it has begun it settles.
                life.stop();
                return (deaths, began);
            }
        }
        deaths += 1;
        assert!(deaths <= DEATHS, "it is never given up; began: {began:?}");
    }
}

async fn is_given_up_alone(key: &str, queue: Option<&str>) {
    let world = World::rabbitmq();
    let client = world.client().await;
    let name = world.names.queue("mortal", queue);
    declared(&world, &name).await;
    let others: Vec<String> = (1..=6).map(|number| format!("other-{number}")).collect();
    for what in others[..3].iter().map(String::as_str).chain(["fatal"]).chain(others[3..].iter().map(String::as_str)) {
        client.bus().send_key(key, Payload::text(what)).await.unwrap();
    }
    let (deaths, began) = until_given_up(&world, &name, "other-6").await;
    assert_eq!(deaths, DEATHS, "{began:?}");
    assert_eq!(began.iter().filter(|line| line.starts_with("fatal")).count(), DEATHS, "each time it began: {began:?}");
    assert!(
        began.iter().all(|line| line.ends_with(" 1")),
        "a process that dies costs its messages no attempt: {began:?}"
    );
    let mut others_began: Vec<String> = began
        .iter()
        .filter_map(|line| line.strip_suffix(" 1").filter(|what| *what != "fatal").map(str::to_owned))
        .collect();
    if queue.is_some() {
        let first = |what: &String| began.iter().position(|line| line.starts_with(what.as_str()));
        assert!(others.iter().map(first).is_sorted(), "the order is kept: {began:?}");
    }
    others_began.sort();
    others_began.dedup();
    assert_same(others, others_began);
    let dead = world.take(postrider::broker::Queue::replicated(world.names.dead_queue(&name)), 1).await.remove(0);
    assert_eq!(dead.headers.text("postrider-dead-reason"), Some("crash_suspected"));
    assert_eq!(&dead.payload[..], b"fatal");
    client.stop().await;
}

#[test]
fn a_message_that_ends_its_process_each_time_is_given_up_and_those_beside_it_are_handled() {
    run(is_given_up_alone("mortal.do", None));
}

#[test]
fn a_message_that_ends_the_process_of_an_ordered_actor_is_given_up_and_the_order_of_the_others_is_kept() {
    run(is_given_up_alone("mortal.strict", Some("strict")));
}

/// Handlers that do not end in time are dropped as the app stops, which is no fault of theirs.
#[test]
fn a_handler_that_is_dropped_by_every_orderly_stop_is_never_given_up() {
    run(async {
        let world = World::rabbitmq();
        let client = world.client().await;
        let name = world.names.queue("mortal", Some("strict"));
        declared(&world, &name).await;
        client.bus().send_key("mortal.strict", Payload::text("endless")).await.unwrap();
        for _ in 0..12 {
            let life = Life::start(&world);
            assert_eq!(life.next().as_deref(), Some("endless 1"));
            life.stop();
        }
        assert_eq!(world.ready(&world.names.dead_queue(&name)).await, Some(0));
        client.stop().await;
    });
}

#[derive(Clone)]
struct Strict {
    seen: Seen<String>,
    gate: Arc<Semaphore>,
}

#[distributed(service = "strict", ordered, retry = "none")]
impl Strict {
    #[distributed(command = "strict.note")]
    async fn note(&mut self, what: String, cx: &Context) {
        self.gate.acquire().await.unwrap().forget();
        self.seen.add(format!("{what} {}", cx.attempt()));
    }
}

#[derive(Clone)]
struct Shared {
    seen: Seen<String>,
    gate: Arc<Semaphore>,
}

#[distributed(service = "shared")]
impl Shared {
    #[distributed(command = "shared.note")]
    async fn note(&self, what: String, cx: &Context) {
        self.seen.add(format!("{what} {}", cx.attempt()));
        self.gate.acquire().await.unwrap().forget();
    }
}

on_both_brokers! {
    async fn an_orderly_stop_is_no_attempt_however_often_it_happens(world: World) {
        let strict = Strict { seen: Seen::default(), gate: Arc::new(Semaphore::new(0)) };
        let app = || { let strict = strict.clone(); App::new("strict").actor(move || strict.clone()) };
        world.start(app()).await.stop().await;
        let client = world.client().await;
        for number in 1..=40 {
            client.bus().send_key("strict.note", Payload::text(number.to_string())).await.unwrap();
        }
        for round in 1..=12 {
            let running = world.start(app()).await;
            let seen = strict.seen.count();
            strict.gate.add_permits(1);
            strict.seen.reach(seen + 1).await;
            let (report, ()) = tokio::join!(running.stop(), async {
                eventually("it has begun to stop", || !running.health().ready).await;
                strict.gate.add_permits(1);
            });
            assert_eq!((running.stats().dead_lettered, report.abandoned), (0, false), "round {round}: {report:?}");
            // What nobody took.
            let _ = strict.gate.try_acquire().map(tokio::sync::SemaphorePermit::forget);
        }
        let running = world.start(app()).await;
        strict.gate.add_permits(100);
        let seen = strict.seen.reach(40).await;
        assert_eq!(seen, (1..=40).map(|number| format!("{number} 1")).collect::<Vec<_>>());
        eventually("all are settled", || running.stats().in_flight == 0).await;
        assert_eq!(running.stats().dead_lettered, 0);
        running.stop().await;
        client.stop().await;
    }

    async fn an_orderly_stop_costs_a_shared_actor_no_attempt_and_no_place(world: World) {
        let shared = Shared { seen: Seen::default(), gate: Arc::new(Semaphore::new(0)) };
        let app = || { let shared = shared.clone(); App::new("shared").actor(move || shared.clone()).configure(|config| config.concurrency = 1) };
        world.start(app()).await.stop().await;
        let client = world.client().await;
        for number in 1..=12 {
            client.bus().send_key("shared.note", Payload::text(number.to_string())).await.unwrap();
        }
        for round in 1..=5 {
            let running = world.start(app()).await;
            shared.seen.reach(round).await;
            let (report, ()) = tokio::join!(running.stop(), async {
                eventually("it has begun to stop", || !running.health().ready).await;
                shared.gate.add_permits(1);
            });
            assert!(!report.abandoned, "round {round}: {report:?}");
        }
        let running = world.start(app()).await;
        shared.gate.add_permits(100);
        let seen = shared.seen.reach(12).await;
        assert_eq!(seen, (1..=12).map(|number| format!("{number} 1")).collect::<Vec<_>>());
        eventually("all are settled", || running.stats().in_flight == 0).await;
        assert_eq!((running.stats().dead_lettered, running.stats().delayed), (0, 0));
        running.stop().await;
        client.stop().await;
    }
}

/// A process that lives gives its suspects back, or handles them to the end: neither leaves a note.
#[test]
fn a_suspect_is_handled_alone_and_is_none_any_more_when_it_was_handled() {
    run(async {
        let world = World::rabbitmq();
        let shared = Shared { seen: Seen::default(), gate: Arc::new(Semaphore::new(0)) };
        let app = || {
            let shared = shared.clone();
            App::new("shared").actor(move || shared.clone())
        };
        world.start(app()).await.stop().await;
        let client = world.client().await;
        client.bus().send_key("shared.note", Payload::text("suspect")).await.unwrap();
        super::redelivery::give_back(&world, &super::redelivery::queue(&world, "shared"), 3).await;
        for number in 1..=4 {
            client.bus().send_key("shared.note", Payload::text(number.to_string())).await.unwrap();
        }
        let running = world.start(app()).await;
        assert_eq!(shared.seen.reach(1).await, ["suspect 1"]);
        eventually("people see why", || {
            let lanes = running.health().lanes;
            running.health().ready
                && lanes
                    .iter()
                    .any(|lane| lane.problem.as_deref().is_some_and(|why| why.contains("handles a message alone")))
        })
        .await;
        eventually("the others wait", || running.stats().in_flight == 1).await;
        assert_eq!((shared.seen.count(), running.stats().in_flight), (1, 1));
        shared.gate.add_permits(1);
        // Now as many as always.
        shared.seen.reach(5).await;
        shared.gate.add_permits(100);
        eventually("all are settled", || running.stats().in_flight == 0).await;
        eventually("nothing is wrong", || running.health().lanes.iter().all(|lane| lane.problem.is_none())).await;
        tokio::time::timeout(Duration::from_secs(30), running.stop()).await.unwrap();
        client.stop().await;
    });
}
