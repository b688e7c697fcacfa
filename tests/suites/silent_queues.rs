//! A queue that takes messages and confirms none of them, on a private node: its process is suspended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use postrider::{App, Bus, Payload, Running, SendError, distributed};
use postrider_tests::node::Node;
use postrider_tests::world::{Seen, World, eventually, run};
use tokio::sync::Semaphore;

#[derive(Clone)]
struct Lively {
    gate: Arc<Semaphore>,
}

#[distributed(service = "lively", timeout = "100s")]
impl Lively {
    #[distributed(command = "lively.slow")]
    async fn slow(&self, _: ()) {
        self.gate.acquire().await.expect("it is never closed").forget();
    }

    #[distributed(command = "lively.quick")]
    async fn quick(&self, _: ()) {}
}

#[derive(Clone, Default)]
struct Silent {
    seen: Seen<u64>,
}

#[distributed(service = "silent")]
impl Silent {
    #[distributed(command = "silent.note")]
    async fn note(&self, number: u64) {
        self.seen.add(number);
    }
}

/// The first message to a quorum queue registers its channel there, for which RabbitMQ holds up the whole channel; and the
/// first request opens the way for replies.
async fn introduce(bus: &Bus) {
    bus.send_key("silent.note", Payload::json(&0_u64)).await.unwrap();
    bus.request_key::<()>("lively.quick", Payload::json(&())).await.unwrap();
}

fn node() -> Node {
    Node::start().unwrap_or_else(|error| panic!("this test needs a RabbitMQ of its own: {error}"))
}

/// Suspends the process of a quorum queue, or lets it go on: what comes meanwhile is neither refused nor confirmed.
fn set(node: &Node, what: &str, queue: &str) {
    node.ctl(&["eval", &format!(r#"sys:{what}(whereis(list_to_atom("%2F_{queue}")))."#)]).unwrap();
}

/// A client, a service that lives, and one whose queue has just fallen silent.
struct Fallen {
    silent: Silent,
    queue: String,
    client: Running,
    _services: [Running; 2],
}

impl Fallen {
    async fn silent(node: &Node) -> Self {
        let (world, silent) = (World::on(node.url()), Silent::default());
        let (one, two) = (Lively { gate: Arc::new(Semaphore::new(0)) }, silent.clone());
        let lively = world.start(App::new("lively").actor(move || one.clone())).await;
        let note = world.start(App::new("silent").actor(move || two.clone())).await;
        let (client, queue) = (world.client().await, world.names.queue("silent", None));
        introduce(client.bus()).await;
        set(node, "suspend", &queue);
        Self { silent, queue, client, _services: [lively, note] }
    }
}

#[test]
fn one_queue_that_never_confirms_costs_nobody_else_a_request_and_no_message_a_repetition() {
    let node = node();
    run(async {
        let world = World::on(node.url());
        let (lively, silent) = (Lively { gate: Arc::new(Semaphore::new(0)) }, Silent::default());
        let (one, two) = (lively.clone(), silent.clone());
        let _lively = world.start(App::new("lively").actor(move || one.clone())).await;
        let silent_app = || {
            let silent = two.clone();
            App::new("silent").actor(move || silent.clone())
        };
        // It makes the queue, and is away as long as that is silent.
        world.start(silent_app()).await.stop().await;
        let client = world.client().await;
        let (bus, queue) = (client.bus(), world.names.queue("silent", None));
        introduce(bus).await;
        set(&node, "suspend", &queue);
        // Longer than a channel on which nothing is confirmed would be kept.
        let unconfirmed =
            bus.send_key_with("silent.note", Payload::json(&1_u64), |o| o.timeout(Duration::from_secs(45)));
        let slow =
            bus.request_key_with::<()>("lively.slow", Payload::json(&()), |o| o.timeout(Duration::from_secs(100)));
        let until_unknown = async {
            let unconfirmed = unconfirmed.await;
            lively.gate.add_permits(1);
            unconfirmed
        };
        let (unconfirmed, slow) = tokio::join!(until_unknown, slow);
        assert!(matches!(unconfirmed, Err(SendError::Unknown { .. })), "{unconfirmed:?}");
        slow.unwrap();
        set(&node, "resume", &queue);
        bus.send_key("silent.note", Payload::json(&2_u64)).await.unwrap();
        let running = world.start(silent_app()).await;
        eventually("all are handled", || running.stats().handled >= 3).await;
        assert_eq!(silent.seen.all(), [0, 1, 2]);
    });
}

#[test]
fn more_messages_than_a_channel_takes_that_are_never_confirmed_do_not_stop_the_others() {
    let node = node();
    run(async {
        let Fallen { silent, client, queue, .. } = &Fallen::silent(&node).await;
        let bus = client.bus();
        let send = |number: u64, timeout| {
            bus.send_key_with("silent.note", Payload::json(&number), move |o| o.timeout(timeout))
        };
        // So long that the broker has given no sign for a while when the others come.
        let first = send(1, Duration::from_secs(6)).await;
        assert!(matches!(first, Err(SendError::Unknown { .. })), "{first:?}");
        let never_confirmed = futures::future::join_all((2..3_000).map(|number| send(number, Duration::from_secs(5))));
        let others = async {
            for _ in 0..1_000 {
                let quick = bus
                    .request_key_with::<()>("lively.quick", Payload::json(&()), |o| o.timeout(Duration::from_secs(4)));
                quick.await.unwrap();
            }
        };
        let (never_confirmed, ()) = tokio::join!(never_confirmed, others);
        let numbers_of = |meant: fn(&SendError) -> bool| -> BTreeSet<u64> {
            (2..).zip(&never_confirmed).filter(|(_, sent)| sent.as_ref().is_err_and(meant)).map(|(n, _)| n).collect()
        };
        let unknown = numbers_of(|error| matches!(error, SendError::Unknown { .. }));
        let unsent = numbers_of(|error| matches!(error, SendError::Broker(_)));
        assert_eq!(unknown.len() + unsent.len(), 2_998);
        set(&node, "resume", queue);
        send(3_000, Duration::from_secs(30)).await.unwrap();
        eventually("the last one is handled", || silent.seen.all().contains(&3_000)).await;
        let seen: BTreeSet<u64> = silent.seen.all().into_iter().collect();
        assert_eq!(seen.len(), silent.seen.count(), "each once");
        assert!(BTreeSet::from([0, 1, 3_000]).is_subset(&seen), "{seen:?}");
        assert!(seen.is_disjoint(&unsent), "not sent, and handled: {:?}", seen.intersection(&unsent));
    });
}

#[test]
fn a_burst_into_a_queue_that_has_just_fallen_silent_costs_the_others_two_minutes_at_most() {
    let node = node();
    run(async {
        let Fallen { silent, client, queue, .. } = &Fallen::silent(&node).await;
        let bus = client.bus();
        let send = |number: u64| {
            bus.send_key_with("silent.note", Payload::json(&number), |o| o.timeout(Duration::from_secs(5)))
        };
        let epoch = client.connection().borrow().epoch;
        // More than the broker takes before it holds up their connection, and nobody knows yet that the queue is silent.
        let burst = futures::future::join_all((1..1_000).map(send)).await;
        assert!(burst.iter().all(Result::is_err), "the queue confirms nothing");
        let began = std::time::Instant::now();
        let ask =
            || bus.request_key_with::<()>("lively.quick", Payload::json(&()), |o| o.timeout(Duration::from_secs(4)));
        while let Err(error) = ask().await {
            assert!(began.elapsed() < Duration::from_secs(120), "nobody is answered any more: {error}");
        }
        for _ in 0..100 {
            ask().await.unwrap();
        }
        assert_eq!(client.connection().borrow().epoch, epoch + 1, "the connection was replaced once");
        set(&node, "resume", queue);
        send(1_000).await.unwrap();
        eventually("the last one is handled", || silent.seen.all().contains(&1_000)).await;
    });
}

#[test]
fn a_consumer_that_the_broker_opens_too_late_takes_no_messages_away() {
    let node = node();
    run(async {
        let world = World::on(node.url());
        let (silent, queue) = (Silent::default(), world.names.queue("silent", None));
        let handles = silent.clone();
        let running = world.start(App::new("silent").actor(move || handles.clone())).await;
        set(&node, "suspend", &queue);
        running.restart("silent").unwrap();
        let waits_for_an_answer = || {
            let lanes = running.health().lanes;
            lanes.iter().any(|lane| lane.problem.as_deref().is_some_and(|problem| problem.contains("did not answer")))
        };
        eventually("the queue did not answer in time", waits_for_an_answer).await;
        set(&node, "resume", &queue);
        // A consumer that nobody reads would get its share of them.
        for number in 0..100 {
            running.bus().send_key("silent.note", Payload::json(&number)).await.unwrap();
        }
        eventually("all are handled", || running.stats().handled >= 100).await;
        let seen: BTreeSet<u64> = silent.seen.all().into_iter().collect();
        assert_eq!(seen, (0..100).collect());
    });
}
