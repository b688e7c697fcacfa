//! Bytes that a client library cannot read or must not believe.

use std::sync::Arc;

use postrider::broker::{ConsumerSpec, Queue, Subscription, Topology};
use postrider::message::ReplyTo;
use postrider::{App, Context, Failure, MessageId, Payload, Running, distributed};
use postrider_tests::node::Node;
use postrider_tests::raw::{RawClient, RawMessage, nested_header, text_header};
use postrider_tests::strangers::{GARBAGE, MADE_UP};
use postrider_tests::world::{PATIENCE, Seen, World, amqp_url, assert_same, eventually, run};
use tokio::sync::Semaphore;

#[derive(Clone, Default)]
struct Notes {
    seen: Seen<u64>,
    correlation_ids: Seen<String>,
}

impl Notes {
    fn app(&self) -> App {
        let notes = self.clone();
        App::new("notes").actor(move || notes.clone())
    }
}

#[distributed(service = "notes", retry = "none")]
impl Notes {
    #[distributed(command = "notes.note")]
    async fn note(&self, number: u64, cx: &Context) -> Result<u64, Failure> {
        self.correlation_ids.add(cx.envelope().correlation_id.as_ref().map(MessageId::to_string).unwrap_or_default());
        self.seen.add(number);
        match number {
            FAILS => Err(Failure::permanent("as was asked for")),
            IS_REJECTED => Err(Failure::rejected("no", "as was asked for")),
            number => Ok(number),
        }
    }

    #[distributed(event = "noise.#")]
    async fn heard(&self, number: u64) -> Result<(), Failure> {
        self.seen.add(number);
        Ok(())
    }
}

#[derive(Default)]
struct Asked;

#[distributed(service = "asked")]
impl Asked {
    #[distributed(query = "asked.twice")]
    async fn twice(&self, number: u64) -> Result<u64, Failure> {
        Ok(number * 2)
    }
}

/// The number at which the handler fails.
const FAILS: u64 = 404;
/// The number that it rejects.
const IS_REJECTED: u64 = 403;

/// A message of the handler's key, as a foreign client sends it.
fn note(world: &World, number: u64) -> RawMessage {
    RawMessage::to_exchange(&world.names.exchange(postrider::Kind::Command), "notes.note", number.to_string())
        .property("content_type", b"application/json")
}

/// How often the lanes have opened their consumers.
fn openings(running: &Running) -> Vec<u64> {
    running.health().lanes.iter().map(|lane| lane.epochs).collect()
}

/// Publishes a stranger's message with ten good ones behind it. The good ones are handled once each, the stranger's is handled or
/// a dead letter, and the consumers stay open.
async fn harms_nobody(world: &World, notes: &Notes, running: &Running, bad: &RawMessage) {
    let (seen, dead, before) = (notes.seen.count(), running.stats().dead_lettered, openings(running));
    let mut stranger = RawClient::connect(&amqp_url());
    stranger.publish(bad);
    (1..=10).for_each(|number| stranger.publish(&note(world, number)));
    stranger.confirmed();
    let done = || notes.seen.count() - seen + (running.stats().dead_lettered - dead) as usize;
    let shown: String = format!("{bad:?}").chars().take(300).collect();
    eventually(&format!("{shown} and ten others are done with"), || done() >= 11).await;
    let handled = notes.seen.all().split_off(seen);
    assert_same(1..=10, handled.into_iter().filter(|number| (1..=10).contains(number)));
    assert_eq!(openings(running), before, "{shown} cost a consumer");
}

#[test]
fn a_property_that_is_no_utf_8_costs_neither_the_connection_nor_a_neighbour() {
    run(async {
        let (world, notes) = (World::rabbitmq(), Notes::default());
        let running = world.start(notes.app()).await;
        // The broker refuses the others itself.
        for property in [
            "content_type",
            "content_encoding",
            "correlation_id",
            "reply_to",
            "message_id",
            "type",
            "app_id",
            "cluster_id",
        ] {
            let mut bad = note(&world, 0);
            if property == "content_type" {
                bad.properties.clear();
            }
            harms_nobody(&world, &notes, &running, &bad.property(property, GARBAGE)).await;
        }
        let named = note(&world, 0).headers(&text_header(GARBAGE, b"value"));
        harms_nobody(&world, &notes, &running, &named).await;
        let valued = note(&world, 0).headers(&text_header(b"name", GARBAGE));
        harms_nobody(&world, &notes, &running, &valued).await;
        running.stop().await;
    });
}

#[test]
fn a_routing_key_that_is_no_utf_8_costs_neither_the_connection_nor_a_neighbour() {
    run(async {
        let (world, notes) = (World::rabbitmq(), Notes::default());
        let running = world.start(notes.app()).await;
        let key = [b"noise.", GARBAGE].concat();
        let bad = RawMessage::to_exchange(&world.names.exchange(postrider::Kind::Event), key, "0")
            .property("content_type", b"application/json");
        harms_nobody(&world, &notes, &running, &bad).await;
        running.stop().await;
    });
}

#[test]
fn headers_of_any_depth_become_a_dead_letter_and_the_process_lives() {
    run(async {
        let (world, notes) = (World::rabbitmq(), Notes::default());
        let running = world.start(notes.app()).await;
        for (depth, tables) in [(1_000, true), (1_500, true), (9_000, false)] {
            let bad = note(&world, 0).headers(&nested_header(depth, tables)).property("message_id", b"deep");
            harms_nobody(&world, &notes, &running, &bad).await;
        }
        running.stop().await;
        for letter in world.dead_letters("notes", 3).await {
            assert_eq!((&letter.payload[..], letter.id.as_str()), (&b"0"[..], "deep"));
            assert_eq!(letter.headers.text("postrider-dead-reason"), Some("undecodable"));
            let error = letter.headers.text("postrider-dead-error").unwrap();
            assert!(error.contains("nested more than 128 levels deep"), "{error}");
        }
    });
}

#[test]
fn a_reply_and_its_request_keep_the_bytes_of_a_correlation_id_that_is_no_utf_8() {
    run(async {
        let (world, notes) = (World::rabbitmq(), Notes::default());
        let running = world.start(notes.app()).await;
        let answers = world.names.queue("stranger", None);
        let broker = world.broker().await;
        broker.declare(&Topology::of_queues([Queue::replicated(answers.clone())])).await.unwrap();
        let mut stranger = RawClient::connect(&amqp_url());
        let asked = |number| note(&world, number).property("reply_to", answers.as_bytes());
        stranger.publish(&asked(7).property("correlation_id", GARBAGE));
        stranger.publish(&asked(FAILS).property("correlation_id", GARBAGE));
        stranger.confirmed();
        let content_headers = [stranger.get(&answers).await, stranger.get(&answers).await];
        let dead = stranger.get(&world.names.dead_queue(&world.names.queue("notes", None))).await;
        for content_header in content_headers.into_iter().chain([dead]) {
            let has_it = content_header.windows(GARBAGE.len()).any(|bytes| bytes == GARBAGE);
            assert!(has_it, "{}", String::from_utf8_lossy(&content_header));
        }
        let shown = notes.correlation_ids.reach(2).await.remove(0);
        assert!(shown.starts_with("\u{fffd}ff\u{fffd}fe\0"), "{shown}");
        broker.close().await;
        running.stop().await;
    });
}

#[test]
fn a_dead_letter_that_comes_back_is_found_again_although_its_id_had_to_be_cut() {
    run(async {
        let (world, notes) = (World::rabbitmq(), Notes::default());
        let running = world.start(notes.app()).await;
        let dead = Queue::replicated(world.names.dead_queue(&world.names.queue("notes", None)));
        let broker = world.broker().await;
        broker.remove(&Topology::of_queues([dead])).await.unwrap();
        let mut stranger = RawClient::connect(&amqp_url());
        let broken = RawMessage { body: b"{broken".to_vec(), ..note(&world, 0) };
        for id in [&[0xff; 255][..], &[0xff; 51], b"a\xff", "a\u{fffd}b".as_bytes(), "a\u{fffd}ff".as_bytes()] {
            stranger.publish(&broken.clone().property("message_id", id));
        }
        stranger.confirmed();
        let letters = world.dead_letters("notes", 5).await;
        assert!(letters.iter().all(|letter| &letter.payload[..] == b"{broken"), "{letters:?}");
        broker.close().await;
        running.stop().await;
    });
}

#[test]
fn headers_in_great_numbers_cost_neither_the_connection_nor_a_neighbour() {
    run(async {
        let (world, notes) = (World::rabbitmq(), Notes::default());
        let running = world.start(notes.app()).await;
        // Escaped they are too large for a frame.
        harms_nobody(&world, &notes, &running, &note(&world, 0).headers(&b"\x01\xffV".repeat(43_000))).await;
        let valid: Vec<u8> =
            (0..26_000_u32).flat_map(|number| [&b"\x03"[..], &letters(number), b"V"].concat()).collect();
        harms_nobody(&world, &notes, &running, &note(&world, FAILS).headers(&valid)).await;
        running.stop().await;
    });
}

/// Three letters that no other number has.
fn letters(number: u32) -> [u8; 3] {
    [number / 900, number / 30 % 30, number % 30].map(|part| b'a' + u8::try_from(part).unwrap())
}

#[test]
fn a_reply_that_comes_back_from_an_address_that_is_no_utf_8_costs_no_connection() {
    run(async {
        let (world, notes) = (World::rabbitmq(), Notes::default());
        let running = world.start(notes.app()).await;
        let epoch = running.connection().borrow().epoch;
        harms_nobody(&world, &notes, &running, &note(&world, IS_REJECTED).property("reply_to", GARBAGE)).await;
        eventually("nobody hears of the rejection, so it is a dead letter", || running.stats().dead_lettered == 1)
            .await;
        assert_eq!(running.connection().borrow().epoch, epoch);
        running.stop().await;
    });
}

#[test]
fn a_reply_that_is_no_utf_8_ends_no_request_of_others() {
    run(async {
        let (world, notes) = (World::rabbitmq(), Notes::default());
        let running = world.start(notes.app()).await;
        let client = world.client().await;
        let broker = world.broker().await;
        let spec = ConsumerSpec {
            queue: Queue::replicated(world.names.queue("oracle", None)),
            topology: Topology {
                subscriptions: vec![Subscription::new(
                    postrider::Kind::Command,
                    "oracle.ask",
                    world.names.queue("oracle", None),
                )],
                ..Topology::default()
            },
            prefetch: 1,
            answers: false,
        };
        let mut oracle = broker.consume(&spec).await.unwrap();
        let bus = client.bus().clone();
        let asking = tokio::spawn(async move { bus.request_key::<u64>("oracle.ask", Payload::json(&1_u64)).await });
        let question = oracle.next().await.unwrap().unwrap();
        let Some(ReplyTo::Queue(reply_to)) = &question.envelope.reply_to else { panic!("nobody asks: {question:?}") };
        let (reply_to, id) = (reply_to.clone(), question.envelope.id.to_string());
        question.receipt.ack();
        let epoch = client.connection().borrow().epoch;
        let mut stranger = RawClient::connect(&amqp_url());
        let answer = |id: &[u8]| {
            RawMessage::to_queue(&reply_to, "5")
                .property("correlation_id", id)
                .property("content_type", b"application/json")
        };
        stranger.publish(&answer(GARBAGE).property("type", GARBAGE).headers(&nested_header(2_000, false)));
        stranger.publish(&answer(id.as_bytes()));
        stranger.confirmed();
        assert_eq!(asking.await.unwrap().unwrap(), 5);
        assert_eq!(client.connection().borrow().epoch, epoch);
        assert_eq!(client.bus().request_key::<u64>("notes.note", Payload::json(&3_u64)).await.unwrap(), 3);
        oracle.close().await;
        broker.close().await;
        client.stop().await;
        running.stop().await;
    });
}

#[test]
fn a_reply_address_that_was_made_up_costs_one_reply_and_neither_a_message_nor_its_sender() {
    run(async {
        let node = Node::start().unwrap();
        let (world, notes) = (World::on(node.url()), Notes::default());
        let running = world.start(notes.app().actor(Asked::default)).await;
        let epoch = running.connection().borrow().epoch;
        let durable =
            |running: &Running| running.health().lanes.into_iter().find(|lane| lane.queue.ends_with(".notes"));
        let before = durable(&running);
        let mut stranger = RawClient::connect(&node.url());
        const BAD: u64 = 4;
        for number in 0..BAD {
            stranger.publish(&note(&world, number).property("reply_to", MADE_UP).property("correlation_id", b"x"));
            let query = RawMessage::to_exchange(&world.names.exchange(postrider::Kind::Query), "asked.twice", "3");
            let query = query.property("content_type", b"application/json").property("reply_to", MADE_UP);
            stranger.publish(&query);
        }
        stranger.publish(&note(&world, IS_REJECTED).property("reply_to", MADE_UP));
        stranger.confirmed();
        // Meanwhile others send, ask and are answered; a reply of theirs may be lost when the broker closes the connection.
        for number in 100..200 {
            running.bus().send_key("notes.note", Payload::json(&number)).await.unwrap();
        }
        eventually("all replies to nobody are counted", || running.stats().lost_replies >= 2 * BAD).await;
        assert_eq!(running.bus().request_key::<u64>("asked.twice", Payload::json(&21_u64)).await.unwrap(), 42);
        assert_eq!(running.bus().request_key::<u64>("notes.note", Payload::json(&300_u64)).await.unwrap(), 300);
        let handled: Vec<u64> = notes.seen.all();
        assert_same((0..BAD).chain([IS_REJECTED]).chain(100..200).chain([300]), handled);
        assert_eq!(running.connection().borrow().epoch, epoch, "what is published does not suffer");
        // The acknowledgement of a query may be lost with the connection that another one has cost; it is answered once more.
        let lost = running.stats().lost_replies;
        assert!((2 * BAD..=3 * BAD).contains(&lost), "{lost} replies lost");
        eventually("nobody hears of the rejection, so it is a dead letter", || running.stats().dead_lettered == 1)
            .await;
        eventually("all lanes consume", || running.health().ready).await;
        assert_eq!(durable(&running), before, "what consumes commands does not suffer either");
        let is_closing = |line: &&str| line.contains("closing AMQP connection") && line.contains("(answering)");
        let closed = node.log().lines().filter(is_closing).count();
        assert!(closed <= 4 * BAD as usize, "{closed} times\n{}", node.log_tail());
        running.stop().await;
    });
}

/// Five a second, each of which costs the connection on which queries come.
#[test]
fn a_stream_of_made_up_reply_addresses_leaves_the_queries_of_others_answered() {
    run(async {
        let node = Node::start().unwrap();
        let world = World::on(node.url());
        let _running = world.start(App::new("asked").actor(Asked::default)).await;
        let client = world.client().await;
        let mut stranger = RawClient::connect(&node.url());
        for second in 0..10_u64 {
            for _ in 0..5 {
                let query = RawMessage::to_exchange(&world.names.exchange(postrider::Kind::Query), "asked.twice", "3");
                let query = query.property("content_type", b"application/json").property("reply_to", MADE_UP);
                stranger.publish(&query);
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
            let patient = |o: postrider::Options| o.timeout(std::time::Duration::from_secs(5));
            let answer = client.bus().request_key_with::<u64>("asked.twice", Payload::json(&second), patient).await;
            assert_eq!(answer.unwrap(), 2 * second, "after {second} s");
        }
        let lost = node.log().matches("(answering)").count();
        assert!(lost > 10, "the connection was not lost: {lost}");
    });
}

/// Keeps its callers waiting, and tells where they wait.
#[derive(Clone)]
struct Teller {
    addresses: Seen<String>,
    gate: Arc<Semaphore>,
}

#[distributed(service = "teller")]
impl Teller {
    #[distributed(query = "teller.ask")]
    async fn ask(&self, number: u64, cx: &Context) -> Result<u64, Failure> {
        if let Some(ReplyTo::Queue(address)) = &cx.envelope().reply_to {
            self.addresses.add(address.to_string());
        }
        self.gate.acquire().await.map_err(Failure::transient)?.forget();
        Ok(number)
    }
}

/// Who was asked once knows the address of the caller.
#[test]
fn a_flood_of_replies_that_nobody_asked_for_costs_neither_memory_nor_a_request() {
    const FLOOD: usize = 5_000;
    run(async {
        let world = World::rabbitmq();
        let teller = Teller { addresses: Seen::default(), gate: Arc::new(Semaphore::new(0)) };
        let actor = teller.clone();
        let _running = world.start(App::new("teller").actor(move || actor.clone())).await;
        let client = world.client().await;
        let asking = tokio::spawn({
            let bus = client.bus().clone();
            async move { bus.request_key_with::<u64>("teller.ask", Payload::json(&7), |o| o.timeout(PATIENCE)).await }
        });
        let address = teller.addresses.reach(1).await.remove(0);
        let memory = resident();
        let floods = tokio::task::spawn_blocking(move || {
            let mut stranger = RawClient::connect(&amqp_url());
            for number in 0..FLOOD {
                let reply = RawMessage::to_queue(&address, vec![b'x'; 65_536]);
                stranger.publish(&reply.property("correlation_id", format!("flood-{number}").as_bytes()));
            }
            stranger.confirmed();
        });
        floods.await.unwrap();
        let grown = resident().saturating_sub(memory);
        assert!(grown < MOST_GROWN, "{grown} bytes more, of {} that were sent", FLOOD * 65_536);
        teller.gate.add_permits(2);
        assert_eq!(asking.await.unwrap().unwrap(), 7);
        assert_eq!(client.bus().request_key::<u64>("teller.ask", Payload::json(&8)).await.unwrap(), 8);
    });
}

/// What a test and those beside it may come to hold, in bytes.
const MOST_GROWN: u64 = 256 << 20;

/// What this process holds in memory, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Bytes by a seed, half of them letters.
fn bytes(random: &mut fastrand::Rng, most: usize) -> Vec<u8> {
    let length = random.usize(..=most);
    (0..length).map(|_| if random.bool() { random.u8(..) } else { random.u8(b'a'..=b'z') }).collect()
}

/// 10 000 messages; the strangers' among them have any bytes in any property or header that the broker lets through.
#[test]
fn whatever_bytes_strangers_write_into_their_messages_every_good_one_is_handled_once() {
    const MESSAGES: u64 = 10_000;
    run(async {
        let (world, notes) = (World::rabbitmq(), Notes::default());
        let running = world.start(notes.app()).await;
        let (before, memory) = (openings(&running), resident());
        let mut random = fastrand::Rng::with_seed(7);
        let mut stranger = RawClient::connect(&amqp_url());
        let (mut good, mut bad) = (Vec::new(), 0);
        for number in 1..=MESSAGES {
            if random.u8(..4) > 0 {
                good.push(number);
                stranger.publish(&note(&world, number));
                continue;
            }
            bad += 1;
            let mut message = match random.u8(..3) {
                0 => {
                    // The namespace takes 255 bytes at most with it.
                    let key = [b"noise.", &bytes(&mut random, 240)[..]].concat();
                    let exchange = world.names.exchange(postrider::Kind::Event);
                    RawMessage::to_exchange(&exchange, key, "0").property("content_type", b"application/json")
                }
                1 => {
                    let mut message = note(&world, 0);
                    message.properties.clear();
                    message.property("content_type", &bytes(&mut random, 255))
                }
                _ => note(&world, 0),
            };
            message = message.property("message_id", &bytes(&mut random, 255));
            for property in ["reply_to", "content_encoding", "correlation_id", "type", "app_id", "cluster_id"] {
                if random.bool() {
                    message = message.property(property, &bytes(&mut random, 255));
                }
            }
            let header = match random.u8(..4) {
                0 => nested_header(random.usize(1..4_000), random.bool()),
                1 => text_header(&bytes(&mut random, 200), &bytes(&mut random, 2_000)),
                _ => [text_header(&bytes(&mut random, 50), b"a"), nested_header(random.usize(100..160), true)].concat(),
            };
            stranger.publish(&message.headers(&header));
        }
        stranger.confirmed();
        let done = || {
            let stats = running.stats();
            stats.handled + stats.dead_lettered + stats.joined
        };
        // However slow the disk is: some are always done with.
        while done() < MESSAGES {
            let so_far = done();
            eventually("more are done with", || done() > so_far).await;
        }
        eventually("all are done with", || running.stats().in_flight == 0).await;
        let handled: Vec<u64> = notes.seen.all().into_iter().filter(|number| *number != 0).collect();
        assert_same(good, handled);
        assert_eq!(openings(&running), before, "{bad} bad ones cost no consumer");
        let grown = resident().saturating_sub(memory);
        assert!(grown < MOST_GROWN, "memory grew by {grown} bytes");
        running.stop().await;
    });
}
