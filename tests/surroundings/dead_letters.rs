//! Dead letters in great numbers, of strangers, and without an address.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use postrider::broker::{Broker, ConsumerSpec, Publication, Publisher, Queue, To, Topology};
use postrider::message::{Headers, Kind, Value};
use postrider::operate::{DeadFilter, DeadLetter, DeadLetters, Replay};
use postrider::testing::ForeignMessage;
use postrider::{App, Context, Failure, Payload, distributed};
use postrider_tests::on_both_brokers;
use postrider_tests::program::operator;
use postrider_tests::world::{Seen, World, eventually, eventually_async, run};
use tokio::time::Instant;

#[derive(Clone, Default)]
struct Alpha {
    seen: Seen<String>,
}

impl Alpha {
    fn app(&self) -> App {
        let alpha = self.clone();
        App::new("alpha").actor(move || alpha.clone())
    }
}

#[distributed(service = "alpha", retry = "1", prefetch = 2, concurrency = 1)]
impl Alpha {
    #[distributed(command = "alpha.do")]
    async fn act(&self, what: String, cx: &Context) -> Result<(), Failure> {
        if what == "bad" {
            return Err(Failure::permanent(format!("cannot do {what}")));
        }
        self.seen.add(format!("{} {what}", cx.envelope().key));
        Ok(())
    }

    #[distributed(event = "order.*")]
    async fn placed(&self, what: String, cx: &Context) {
        self.seen.add(format!("{} {what}", cx.envelope().key));
    }

    #[distributed(command = "alpha.structured")]
    async fn structured(&self, _: Vec<u32>) {}
}

fn dead_queue(world: &World) -> String {
    world.names.dead_queue(&world.names.queue("alpha", None))
}

/// A letter as the framework writes it.
fn letter(id: &str, key: &str, headers: &[(&str, Value)]) -> ForeignMessage {
    let mut all: Headers = [
        ("postrider-kind", Value::from("command")),
        ("postrider-dead-reason", "permanent".into()),
        ("postrider-dead-error", "no".into()),
    ]
    .into_iter()
    .collect();
    for (name, value) in headers {
        all.set((*name).to_owned(), value.clone());
    }
    ForeignMessage {
        content_type: Some("text/plain".into()),
        message_id: Some(id.into()),
        message_type: Some(key.into()),
        persistent: true,
        headers: all,
        ..ForeignMessage::default()
    }
}

/// Writes letters into a dead-letter queue without a service.
struct Writer {
    /// Its connection.
    _broker: Arc<dyn Broker>,
    publisher: Arc<dyn Publisher>,
    queue: String,
}

impl Writer {
    async fn new(world: &World) -> Self {
        let (broker, queue) = (world.broker().await, dead_queue(world));
        let publisher = broker.publisher(Arc::new(|_| {})).await.unwrap();
        Self { _broker: broker, publisher, queue }
    }

    /// Of a service that has run and stopped.
    async fn after_a_run(world: &World) -> Self {
        world.start(Alpha::default().app()).await.stop().await;
        Self::new(world).await
    }

    async fn write(&self, letters: impl IntoIterator<Item = (ForeignMessage, Vec<u8>)>) {
        let mut letters = letters.into_iter().peekable();
        while letters.peek().is_some() {
            // They leave in the order in which they are first polled.
            let some = letters.by_ref().take(500).map(|(properties, payload)| {
                let message = properties.addressed(To::Queue(self.queue.as_str().into()), payload);
                self.publisher.publish(message, Instant::now() + Duration::from_secs(60))
            });
            for confirmed in join_all(some).await {
                assert_eq!(confirmed, Ok(Publication::Confirmed));
            }
        }
    }

    /// So many letters; every second one is of `order.odd`.
    async fn many(&self, count: usize) {
        self.write((0..count).map(|number| (numbered(number), b"x".to_vec()))).await;
    }
}

fn numbered(number: usize) -> ForeignMessage {
    letter(&format!("m{number}"), if number.is_multiple_of(2) { "order.even" } else { "order.odd" }, &[])
}

async fn ids(letters: &DeadLetters, filter: &DeadFilter) -> Vec<String> {
    letters.list(filter).await.unwrap().iter().map(|letter| letter.id().to_owned()).collect()
}

fn of_key(key: &str) -> DeadFilter {
    let mut filter = DeadFilter::all();
    filter.key = Some(key.into());
    filter
}

/// Runs `postrider dead …`.
async fn tool(world: &World, arguments: &[&str]) -> (bool, String, String) {
    operator(world, &[&["dead"], arguments].concat()).await
}

on_both_brokers! {
    async fn all_letters_of_many_windows_are_listed_in_order_and_stay(world: World) {
        Writer::after_a_run(&world).await.many(203).await;
        let client = world.client().await;
        let letters = DeadLetters::new(client.bus()).window(10);
        let expected: Vec<String> = (0..203).map(|number| format!("m{number}")).collect();
        // Three times, because looking must not change the order.
        for _ in 0..3 {
            assert_eq!(ids(&letters, &DeadFilter::all()).await, expected);
        }
        assert_eq!(ids(&letters, &of_key("order.odd")).await.len(), 101);
        let mut first = Vec::new();
        let looked = letters.each(&DeadFilter::all(), |letter| {
            first.push(letter.id().to_owned());
            if first.len() == 15 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }).await;
        assert_eq!((looked.unwrap(), first), (15, expected[..15].to_vec()));
        assert_eq!(letters.one("m202").await.unwrap().id(), "m202");
    }

    async fn a_filter_deletes_and_replays_all_that_match_however_many(world: World) {
        let writer = Writer::after_a_run(&world).await;
        writer.many(300).await;
        let client = world.client().await;
        let told = Arc::new(AtomicU64::new(0));
        let letters = DeadLetters::new(client.bus()).window(10).on_progress({
            let told = Arc::clone(&told);
            move |progress| { told.fetch_max(progress.of, Ordering::SeqCst); }
        });
        assert_eq!(letters.delete(&of_key("order.odd")).await.unwrap(), 150);
        let left = ids(&letters, &DeadFilter::all()).await;
        assert_eq!(left, (0..150).map(|number| format!("m{}", 2 * number)).collect::<Vec<_>>());
        writer.many(300).await;
        let done = letters.replay(&of_key("order.even"), &Replay::default()).await.unwrap();
        assert_eq!((done.replayed, done.not_reached), (300, 0));
        assert_eq!(ids(&letters, &DeadFilter::all()).await, (0..150).map(|number| format!("m{}", 2 * number + 1)).collect::<Vec<_>>());
        let home = world.names.queue("alpha", None);
        eventually_async("all are in the actor's queue", || async { world.ready(&home).await == Some(300) }).await;
        // At a rate, so that it takes long enough to be told of.
        let mut how = Replay::default();
        how.rate = Some(100.0);
        // What took long before was told of too.
        told.store(0, Ordering::SeqCst);
        assert_eq!(letters.replay(&DeadFilter::all(), &how).await.unwrap().replayed, 150);
        assert_eq!(told.load(Ordering::SeqCst), 150);
    }

    async fn a_canary_that_fails_finds_its_copy_behind_many_others(world: World) {
        let writer = Writer::after_a_run(&world).await;
        writer.write([(letter("canary", "alpha.do", &[]), b"bad".to_vec())]).await;
        writer.many(60).await;
        let running = world.start(Alpha::default().app()).await;
        let letters = DeadLetters::new(running.bus()).window(7);
        let mut how = Replay::default();
        how.canary = true;
        let done = letters.replay(&DeadFilter::all(), &how).await.unwrap();
        assert!(done.canary_failed.unwrap().contains("canary failed again"));
        let left = ids(&letters, &DeadFilter::all()).await;
        assert_eq!((left.len(), left[0].as_str()), (61, "canary"));
    }

    async fn every_letter_has_an_address_of_its_own(world: World) {
        let writer = Writer::after_a_run(&world).await;
        let twin = || (letter("twin", "alpha.do", &[]), b"twin".to_vec());
        let nameless = |text: &str| (letter("", "alpha.do", &[]), text.as_bytes().to_vec());
        let absent = (ForeignMessage { message_id: None, ..letter("", "alpha.do", &[]) }, b"absent".to_vec());
        let given = (letter("given", "alpha.do", &[("postrider-dead-id", "abc123".into())]), b"given".to_vec());
        let forged = (letter("forged", "alpha.do", &[("postrider-dead-id", "a\u{1b}[2J".into())]), b"forged".to_vec());
        writer.write([twin(), twin(), nameless("a"), nameless("b"), absent, given, forged]).await;
        let client = world.client().await;
        let letters = DeadLetters::new(client.bus());
        let addresses = |found: &[DeadLetter]| found.iter().map(|letter| letter.address().to_owned()).collect::<Vec<_>>();
        let found = letters.list(&DeadFilter::all()).await.unwrap();
        let all = addresses(&found);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 7, "{all:?}");
        assert_eq!(addresses(&letters.list(&DeadFilter::all()).await.unwrap()), all, "they stay the same");
        assert_eq!(all[5], "abc123");
        for (address, letter) in all.iter().zip(&found) {
            assert_eq!(letters.one(address).await.unwrap().envelope.payload, letter.envelope.payload, "{address}");
        }
        // An id that several have names none of them, and an empty one nothing.
        let problem = letters.one("twin").await.unwrap_err().to_string();
        assert!(problem.contains(&all[0]) && problem.contains(&all[1]), "{problem}");
        assert!(letters.one("").await.is_err());
        assert!(letters.replace("", vec![].into()).await.is_err());
        assert_eq!(letters.delete(&DeadFilter::id("")).await.unwrap(), 0);
        // The second of two twins alone is edited, and is then found under what was said.
        let edited = letters.replace(&all[1], b"edited".to_vec().into()).await.unwrap();
        assert_eq!(letters.one(&edited).await.unwrap().envelope.payload, "edited");
        assert_eq!(letters.delete(&DeadFilter::id(all[3].as_str())).await.unwrap(), 1);
        assert_eq!(letters.delete(&DeadFilter::id("twin")).await.unwrap(), 2);
        let left: Vec<_> = letters.list(&DeadFilter::all()).await.unwrap().into_iter().map(|letter| letter.envelope.payload).collect();
        assert_eq!(left, ["a", "absent", "given", "forged"]);
        assert_eq!(letters.replay(&DeadFilter::id(all[2].as_str()), &Replay::default()).await.unwrap().replayed, 1);
    }

    async fn what_the_broker_gave_up_says_its_key_and_is_handled_when_replayed(world: World) {
        world.start(Alpha::default().app()).await.stop().await;
        let foreign = |expiration: &str| ForeignMessage {
            content_type: Some("text/plain".into()),
            message_type: Some("a type of theirs".into()).filter(|_| expiration == "51"),
            expiration: Some(expiration.into()),
            // Forged, as far as anybody can.
            headers: [("postrider-dead-id", Value::from("mine")), ("postrider-dead-at", Value::Timestamp(1))].into_iter().collect(),
            ..ForeignMessage::default()
        };
        let (events, commands) = (world.names.exchange(Kind::Event), world.names.exchange(Kind::Command));
        world.publish_foreign(&events, "order.placed", foreign("50"), "one").await;
        world.publish_foreign(&commands, "alpha.do", foreign("51"), "two").await;
        let dead = dead_queue(&world);
        eventually_async("both expire", || async { world.ready(&dead).await == Some(2) }).await;
        let client = world.client().await;
        let letters = DeadLetters::new(client.bus());
        let mut found = letters.list(&DeadFilter::all()).await.unwrap();
        found.sort_by_key(|letter| letter.envelope.payload.clone());
        let seen: Vec<_> = found.iter().map(|letter| (letter.kind(), letter.key(), letter.reason())).collect();
        assert_eq!(seen, [("event", "order.placed", "expired"), ("command", "alpha.do", "expired")]);
        assert!(found.iter().all(|letter| letter.at().is_some_and(|at| at.elapsed().unwrap_or_default() < Duration::from_secs(60))));
        assert!(found.iter().all(|letter| letter.address() != "mine"));
        assert_eq!(letters.list(&of_key("order.*")).await.unwrap().len(), 1);
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        for letter in &found {
            assert_eq!(letters.replay(&DeadFilter::id(letter.address()), &Replay::default()).await.unwrap().replayed, 1);
        }
        let mut seen = alpha.seen.reach(2).await;
        seen.sort();
        assert_eq!(seen, ["alpha.do two", "order.placed one"]);
        running.stop().await;
    }

    async fn a_service_whose_queues_are_not_recorded_is_named(world: World) {
        Writer::after_a_run(&world).await.many(3).await;
        let client = world.client().await;
        let letters = DeadLetters::new(client.bus());
        assert_eq!(letters.unrecorded().await.unwrap(), [""; 0]);
        let record = Topology::of_queues([Queue::standing(world.names.topology("alpha"))]);
        world.broker().await.remove(&record).await.unwrap();
        assert_eq!(letters.unrecorded().await.unwrap(), ["alpha"]);
        assert_eq!(ids(&letters, &DeadFilter::all()).await.len(), 3, "its first queue is known");
        let home = Topology::of_queues([Queue::standing(world.names.queue("alpha", None))]);
        world.broker().await.remove(&home).await.unwrap();
        let error = letters.replay(&DeadFilter::all(), &Replay::default()).await.unwrap_err().to_string();
        assert!(error.contains("does not stand") && error.contains("topology apply"), "{error}");
        assert_eq!(ids(&letters, &DeadFilter::all()).await.len(), 3);
    }

    async fn a_letter_of_unknown_age_is_neither_new_nor_old(world: World) {
        let writer = Writer::after_a_run(&world).await;
        let old = Value::Timestamp(1_000_000);
        writer.write([(letter("unknown", "alpha.do", &[]), vec![]), (letter("old", "alpha.do", &[("postrider-dead-at", old)]), vec![])]).await;
        let client = world.client().await;
        let letters = DeadLetters::new(client.bus());
        let mut newer = DeadFilter::all();
        newer.newer_than = Some(Duration::from_secs(3_600));
        assert_eq!(letters.delete(&newer).await.unwrap(), 0);
        let mut older = DeadFilter::all();
        older.older_than = Some(Duration::ZERO);
        assert_eq!(letters.delete(&older).await.unwrap(), 1);
        assert_eq!(ids(&letters, &DeadFilter::all()).await, ["unknown"]);
    }

    async fn letters_that_somebody_else_has_are_said_to_be_not_reached(world: World) {
        let writer = Writer::after_a_run(&world).await;
        writer.many(50).await;
        let client = world.client().await;
        let letters = DeadLetters::new(client.bus()).window(5);
        let queue = Queue::standing(dead_queue(&world));
        let spec = ConsumerSpec { queue, topology: Topology::default(), prefetch: 20, answers: false };
        let (broker, mut other) = (world.broker().await, None);
        let listed = letters.each(&DeadFilter::all(), |_| {
            if other.is_none() {
                // They were counted as ready, and go to somebody else.
                let take = async { broker.consume(&spec).await.unwrap() };
                other = Some(tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(take)));
            }
            ControlFlow::Continue(())
        }).await;
        let problem = listed.unwrap_err().to_string();
        assert!(problem.contains("20 were not reached"), "{problem}");
        drop(other);
        let start = std::time::Instant::now();
        while letters.list(&DeadFilter::all()).await.map_or(0, |all| all.len()) < 50 {
            assert!(start.elapsed() < Duration::from_secs(30), "they do not come back");
        }
    }
}

#[test]
fn a_word_that_names_no_letter_is_an_error_of_every_command() {
    run(async {
        let world = World::rabbitmq();
        Writer::after_a_run(&world).await.many(3).await;
        for (arguments, expected) in [
            (&["list", "alpha"][..], "--service alpha"),
            (&["replay", "alpha"], "--service alpha"),
            (&["show", "alpha"], "--service alpha"),
            (&["delete", "alpha"], "--service alpha"),
            (&["edit", "alpha", "--text", "x"], "--service alpha"),
            (&["export", "alpha"], "--service alpha"),
            (&["list", "m1", "nobody"], "\"nobody\""),
            (&["delete", "m1", "nobody"], "\"nobody\""),
            (&["list", ""], "empty id"),
            (&["edit", "", "--text", "x"], "empty id"),
            (&["delete", ""], "empty id"),
            (&["list", "--service", "alhpa"], "\"alhpa\""),
            (&["delete", "--queue", "postrider.alpha"], ".dead"),
        ] {
            let (fine, printed, problem) = tool(&world, arguments).await;
            assert!(!fine && problem.contains(expected), "{arguments:?}: {printed}{problem}");
        }
        let (fine, printed, problem) = tool(&world, &["list"]).await;
        assert!(fine && printed.lines().count() == 4, "nothing was deleted: {printed}{problem}");
    });
}

#[test]
fn what_a_stranger_wrote_is_one_line_and_not_obeyed() {
    run(async {
        let world = World::rabbitmq();
        let nasty = "a\u{1b}[31m\nb\r\u{9b}2J\u{202e}";
        let writer = Writer::after_a_run(&world).await;
        let headers = [("postrider-dead-error", Value::from(nasty)), ("postrider-dead-reason", nasty.into())];
        writer.write([(letter(nasty, nasty, &headers), nasty.into())]).await;
        let harmless = |text: &str, several_lines: bool| {
            let harm = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
            assert!(!text.contains(harm), "{text:?}");
            assert!(several_lines || text.lines().count() <= 2, "{text:?}");
        };
        for (arguments, several) in [
            (&["dead", "list"][..], false),
            (&["dead", "list", "--json"], false),
            (&["dead", "list", "--count"], false),
            (&["dead", "export"], false),
            (&["dead", "show", nasty], true),
            (&["dead", "edit", nasty, "--text", nasty], false),
            (&["dead", "show", "nobody\u{1b}[31m"], false),
            (&["doctor"], true),
        ] {
            let (_, printed, problem) = operator(&world, arguments).await;
            assert!(!(printed.is_empty() && problem.is_empty()), "{arguments:?}");
            harmless(&printed, several);
            harmless(&problem, true);
        }
    });
}

#[test]
fn the_table_of_letters_shows_what_differs_first() {
    run(async {
        let world = World::rabbitmq();
        let running = world.start(Alpha::default().app()).await;
        running.bus().send_key("alpha.structured", Payload::msgpack("no list")).await.unwrap();
        eventually("it is given up", || running.stats().dead_lettered == 1).await;
        let (_, table, _) = tool(&world, &["list"]).await;
        assert!(table.contains("expected") && table.contains("undecodable"), "{table}");
        let address = table.lines().nth(1).unwrap().split(' ').next().unwrap();
        let (fine, shown, problem) = tool(&world, &["show", address]).await;
        assert!(fine && shown.contains("\"alpha.structured\""), "{shown}{problem}");
    });
}

/// More than one look of ten thousand, and more than a channel holds.
#[test]
fn all_of_twenty_thousand_letters_that_match_are_deleted_replayed_and_counted_from_the_shell() {
    const LETTERS: usize = 21_000;
    run(async {
        let world = World::rabbitmq();
        Writer::after_a_run(&world).await.many(LETTERS).await;
        let count = async |arguments: &[&str]| {
            let (fine, printed, problem) = tool(&world, &[&["list", "--count"], arguments].concat()).await;
            assert!(fine, "{problem}");
            printed.trim().to_owned()
        };
        let (fine, printed, problem) = tool(&world, &["delete", "--key", "order.odd"]).await;
        assert!(fine && printed.contains("10500"), "{printed}\n{problem}");
        let left = count(&[]).await;
        assert!(left.contains("10500"), "{left}");
        let (fine, printed, problem) = tool(&world, &["replay", "--key", "order.even"]).await;
        assert!(fine && printed.contains("10500"), "{printed}\n{problem}");
        let home = world.names.queue("alpha", None);
        eventually_async("all are in the actor's queue", || async { world.ready(&home).await == Some(10_500) }).await;
        assert_eq!(world.ready(&dead_queue(&world)).await, Some(0));
    });
}
