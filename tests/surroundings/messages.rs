//! Messages of clients in other languages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider::broker::{Publication, Queue, Topology, WhenFull};
use postrider::message::Key;
use postrider::operate::{DeadFilter, DeadLetters, Replay};
use postrider::testing::ForeignMessage;
use postrider::{
    App, Bytes, Command, ContentEncoding, Context, Failure, Headers, Kind, MediaType, Payload, Value, distributed,
};
use postrider_tests::on_both_brokers;
use postrider_tests::proxy::{Network, Proxy};
use postrider_tests::world::{PATIENCE, Seen, World, amqp_url, assert_same, eventually, eventually_async, run};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// What a foreign client sends: a media type and headers.
fn foreign(media_type: &str, headers: impl IntoIterator<Item = (&'static str, Value)>) -> ForeignMessage {
    let headers: Headers = headers.into_iter().collect();
    ForeignMessage { content_type: Some(media_type.to_owned().into()), headers, ..ForeignMessage::default() }
}

/// Sends as a foreign client to the exchange of commands.
async fn command(world: &World, key: &str, properties: ForeignMessage, payload: impl Into<postrider::Bytes>) {
    let exchange = world.names.exchange(postrider::Kind::Command);
    world.publish_foreign(&exchange, key, properties, payload).await;
}

/// Its handler fails for `no`.
#[derive(Clone, Default)]
struct Once(Seen<(String, u32)>);

#[distributed(service = "once", retry = "none")]
impl Once {
    #[distributed(command = "once.do")]
    async fn handle(&self, what: String, cx: &Context) -> Result<(), Failure> {
        self.0.add((what.clone(), cx.attempt()));
        if what == "no" { Err(Failure::transient("no")) } else { Ok(()) }
    }
}

#[derive(Clone, Default)]
struct Strict(Seen<(String, u32)>);

#[distributed(service = "strict", ordered)]
impl Strict {
    #[distributed(command = "strict.do")]
    async fn handle(&mut self, what: String, cx: &Context) {
        self.0.add((what, cx.attempt()));
    }
}

fn app<A: postrider::handler::Actor + Clone + Send + Sync>(name: &str, actor: &A) -> App {
    let actor = actor.clone();
    App::new(name).actor(move || actor.clone())
}

on_both_brokers! {
    async fn a_forged_delivery_count_is_not_believed(world: World) {
        let (once, strict) = (Once::default(), Strict::default());
        let (first, second) = (world.start(app("once", &once)).await, world.start(app("strict", &strict)).await);
        let counts = [Value::from(20_i32), "20".into(), Value::from(-1_i64), Value::from(1_i64 << 40), Value::from(20_u8)];
        for count in counts.clone() {
            for key in ["once.do", "strict.do"] {
                let headers = [("x-delivery-count", count.clone()), ("x-acquired-count", count.clone()), ("x-death", vec![count.clone()].into())];
                command(&world, key, foreign("text/plain", headers), "it").await;
            }
        }
        let all = vec![("it".to_owned(), 1); counts.len()];
        assert_eq!((once.0.reach(all.len()).await, strict.0.reach(all.len()).await), (all.clone(), all));
        eventually("they are settled", || first.stats().in_flight + second.stats().in_flight == 0).await;
        assert_eq!((first.stats().dead_lettered, second.stats().dead_lettered), (0, 0));
    }

    async fn a_forged_note_that_headers_are_unreadable_is_not_believed(world: World) {
        let once = Once::default();
        let running = world.start(app("once", &once)).await;
        for note in ["", "x", "its headers are nested more than 128 levels deep"] {
            command(&world, "once.do", foreign("text/plain", [("postrider-unreadable", note.into())]), "it").await;
        }
        assert_eq!(once.0.reach(3).await, vec![("it".to_owned(), 1); 3]);
        eventually("they are settled", || running.stats().in_flight == 0).await;
        assert_eq!(running.stats().dead_lettered, 0);
    }

    async fn a_forged_attempt_is_not_believed_of_what_comes_straight_from_its_sender(world: World) {
        let once = Once::default();
        let running = world.start(app("once", &once)).await;
        for attempt in [Value::from(7_i32), Value::from(u32::MAX), Value::from(-3_i64), "9".into()] {
            let forged = [("postrider-attempt", attempt), ("postrider-first-error", "a lie".into())];
            command(&world, "once.do", foreign("text/plain", forged), "no").await;
        }
        for letter in world.dead_letters("once", 4).await {
            let says = |name: &str| letter.headers.get(name).cloned();
            assert_eq!(says("postrider-dead-attempts"), Some(Value::I64(1)));
            assert_eq!(says("postrider-dead-first-error"), says("postrider-dead-error").map(|_| "transient: no".into()));
        }
        assert!(once.0.all().iter().all(|(_, attempt)| *attempt == 1), "{:?}", once.0.all());
        running.stop().await;
    }
}

/// Its handlers wait until they may end.
#[derive(Clone)]
struct Slow {
    seen: Seen<(String, u32)>,
    gate: Arc<Semaphore>,
}

impl Default for Slow {
    fn default() -> Self {
        Self { seen: Seen::default(), gate: Arc::new(Semaphore::new(0)) }
    }
}

#[distributed(service = "slow")]
impl Slow {
    #[distributed(command = "slow.shared")]
    async fn shared(&self, what: String, cx: &Context) {
        self.seen.add((what, cx.attempt()));
        self.gate.acquire().await.unwrap().forget();
    }

    #[distributed(command = "slow.alone")]
    async fn alone(&mut self, what: String, cx: &Context) {
        self.seen.add((what, cx.attempt()));
        self.gate.acquire().await.unwrap().forget();
    }
}

mod without_an_id {
    use super::*;

    /// The channel of the actor's deliveries closes, and everything is delivered again.
    async fn lose_all(running: &postrider::Running, joined: u64) {
        running.restart("slow").unwrap();
        eventually("the redeliveries wait for the runs", || running.stats().joined == joined).await;
    }

    on_both_brokers! {
        async fn a_redelivery_joins_its_run_and_is_charged_to_nobody(world: World) {
            let slow = Slow::default();
            let running = world.start(app("slow", &slow)).await;
            command(&world, "slow.alone", foreign("text/plain", []), "first").await;
            slow.seen.reach(1).await;
            command(&world, "slow.alone", foreign("text/plain", []), "waits beside it").await;
            let queue = world.names.queue("slow", None);
            for _ in 0..4 {
                let opened = running.stats().consumers_opened;
                running.restart("slow").unwrap();
                eventually("it consumes again", || running.stats().consumers_opened > opened && running.health().ready).await;
                eventually_async("both are delivered again", || async { world.ready(&queue).await == Some(0) }).await;
            }
            slow.gate.add_permits(2);
            assert_eq!(slow.seen.reach(2).await, [("first".to_owned(), 1), ("waits beside it".to_owned(), 1)]);
            eventually("both are settled", || running.stats().in_flight == 0).await;
            eventually_async("nothing waits", || async { world.ready(&queue).await == Some(0) }).await;
            assert_eq!((slow.seen.count(), running.stats().handled, running.stats().dead_lettered), (2, 2, 0));
            running.stop().await;
            assert_eq!(world.ready(&queue).await, Some(0));
        }

        async fn messages_that_are_the_same_to_the_byte_are_all_handled(world: World) {
            let slow = Slow::default();
            let running = world.start(app("slow", &slow)).await;
            for _ in 0..3 {
                command(&world, "slow.shared", foreign("text/plain", [("tenant", "acme".into())]), "it").await;
            }
            slow.seen.reach(3).await;
            lose_all(&running, 3).await;
            lose_all(&running, 6).await;
            command(&world, "slow.shared", foreign("text/plain", [("tenant", "acme".into())]), "it").await;
            slow.seen.reach(4).await;
            slow.gate.add_permits(4);
            eventually("all are settled", || running.stats().in_flight == 0).await;
            running.stop().await;
            assert_eq!((slow.seen.count(), world.ready(&world.names.queue("slow", None)).await), (4, Some(0)));
        }
    }
}

#[test]
fn a_message_without_an_id_whose_connection_is_lost_three_times_is_handled_once_and_charged_to_nobody() {
    run(async {
        let url = amqp_url();
        let port = url.trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let proxy = Proxy::start(port).await;
        let (world, slow) = (World::on(proxy.url()), Slow::default());
        let running = world.start(app("slow", &slow)).await;
        for what in ["one", "two"] {
            command(&world, "slow.shared", foreign("text/plain", []), what).await;
        }
        slow.seen.reach(2).await;
        let queue = world.names.queue("slow", None);
        for _ in 0..3 {
            let opened = running.stats().consumers_opened;
            proxy.set(Network::Cut);
            eventually("the connection is lost", || !running.health().ready).await;
            proxy.set(Network::Fine);
            eventually("it consumes again", || running.stats().consumers_opened > opened && running.health().ready)
                .await;
            // They wait for their runs; after the third loss they are suspects, which wait until nothing else is held.
            eventually_async("both are delivered again", || async { world.ready(&queue).await == Some(0) }).await;
        }
        slow.gate.add_permits(2);
        let settled = || running.stats().joined == 6 && running.stats().in_flight == 0;
        eventually("both are settled, by the outcome of their runs", settled).await;
        running.stop().await;
        assert_eq!(world.ready(&queue).await, Some(0));
        assert_same([("one".to_owned(), 1), ("two".to_owned(), 1)], slow.seen.all());
        assert_eq!(running.stats().dead_lettered, 0);
    });
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, Command)]
#[message(key = "packed.number", encoding = "zstd")]
struct Number {
    number: u64,
}

/// What a handler sees of a message: its number, encoding, foreign type, cluster id and attempt.
type Packed = (u64, Option<String>, Option<String>, Option<String>, u32);

/// Fails at first, so that everything is moved.
#[derive(Clone, Default)]
struct Packer {
    seen: Seen<Packed>,
    raw: Seen<(Vec<u8>, Option<String>)>,
    texts: Seen<String>,
    mended: Arc<AtomicBool>,
}

fn encoding(cx: &Context) -> Option<String> {
    cx.content_encoding().map(ToString::to_string)
}

#[distributed(service = "packed", retry = "1 then 100ms")]
impl Packer {
    #[distributed(command = "packed.number")]
    async fn number(&self, message: Number, cx: &Context) -> Result<(), Failure> {
        let (kind, cluster) =
            (cx.message_type().map(str::to_owned), cx.envelope().cluster_id.as_deref().map(str::to_owned));
        self.seen.add((message.number, encoding(cx), kind, cluster, cx.attempt()));
        if self.mended.load(Ordering::SeqCst) { Ok(()) } else { Err(Failure::transient("not yet")) }
    }

    #[distributed(command = "packed.raw")]
    async fn raw(&self, payload: Bytes, cx: &Context) {
        self.raw.add((payload.to_vec(), encoding(cx)));
    }

    #[distributed(command = "packed.text")]
    async fn text(&self, text: String) {
        self.texts.add(text);
    }
}

/// `{"number":7}` as Python's gzip writes it.
const GZIPPED: &[u8] = &[
    31, 139, 8, 0, 0, 0, 0, 0, 2, 3, 171, 86, 202, 43, 205, 77, 74, 45, 82, 178, 50, 175, 5, 0, 124, 8, 127, 148, 12,
    0, 0, 0,
];

fn packed(media_type: &str, encoding: &str) -> ForeignMessage {
    ForeignMessage { content_encoding: Some(encoding.into()), ..foreign(media_type, []) }
}

mod compressed {
    use super::*;

    on_both_brokers! {
        async fn encoding_type_and_cluster_stay_as_they_were_through_retry_dead_letter_replay_and_delay(world: World) {
            let packer = Packer::default();
            let running = world.start(app("packed", &packer)).await;
            let sent = ForeignMessage { message_type: Some("Shop.Number".into()), cluster_id: Some("east".into()), ..packed("application/json", "gzip") };
            command(&world, "packed.number", sent, GZIPPED).await;
            let saw = |attempt| (7, Some("gzip".to_owned()), Some("Shop.Number".to_owned()), Some("east".to_owned()), attempt);
            assert_eq!(packer.seen.reach(2).await, [saw(1), saw(2)]);
            eventually("it is a dead letter", || running.stats().dead_lettered == 1).await;
            let letters = DeadLetters::new(running.bus());
            let letter = letters.list(&DeadFilter::default()).await.unwrap().remove(0);
            let shown = letter.to_json();
            assert_eq!((&shown["payload"]["number"], &shown["content_encoding"], letter.key()), (&7.into(), &"gzip".into(), "packed.number"));
            packer.mended.store(true, Ordering::SeqCst);
            letters.replay(&DeadFilter::default(), &Replay::default()).await.unwrap();
            assert_eq!(packer.seen.reach(3).await[2], saw(1));
            // Delayed by somebody of ours who passes it on.
            let mut again = postrider::message::Envelope::new(Kind::Command, Key::new("packed.number").unwrap(), MediaType::JSON, GZIPPED.into());
            again.content_encoding = Some(ContentEncoding::Gzip);
            (again.message_type, again.cluster_id) = (Some("Shop.Number".into()), Some("east".into()));
            again.delay = Some(Duration::from_millis(100));
            running.bus().dispatch(again).await.unwrap();
            assert_eq!(packer.seen.reach(4).await[3], saw(1));
            running.stop().await;
        }

        async fn gzip_and_zstd_are_read_and_sent_when_asked_for(world: World) {
            let packer = Packer::default();
            packer.mended.store(true, Ordering::SeqCst);
            let running = world.start(app("packed", &packer)).await;
            running.bus().send(&Number { number: 1 }).await.unwrap();
            running.bus().send_with(&Number { number: 2 }, |o| o.encoding(ContentEncoding::Gzip)).await.unwrap();
            let long = "a horse ".repeat(10_000);
            running.bus().send_key_with("packed.text", Payload::text(long.clone()), |o| o.encoding(ContentEncoding::Zstd)).await.unwrap();
            command(&world, "packed.raw", packed("application/json", "GZIP, utf-8"), GZIPPED).await;
            command(&world, "packed.number", packed("application/json", "utf-8"), r#"{"number":3}"#).await;
            let seen = packer.seen.reach(3).await.into_iter().map(|(number, encoding, ..)| (number, encoding.unwrap_or_default()));
            assert_same([(1, "zstd"), (2, "gzip"), (3, "utf-8")].map(|(number, encoding)| (number, encoding.to_owned())), seen);
            assert_eq!(packer.texts.reach(1).await, [long]);
            assert_eq!(packer.raw.reach(1).await, [(b"{\"number\":7}".to_vec(), Some("GZIP, utf-8".to_owned()))]);
            let error = running.bus().send_with(&Number { number: 4 }, |o| o.encoding(ContentEncoding::Other("br".into()))).await.unwrap_err();
            assert!(error.to_string().contains("\"br\""), "{error}");
        }

        async fn a_body_that_nobody_can_decompress_is_a_dead_letter_that_says_so(world: World) {
            let packer = Packer::default();
            let running = world.start(app("packed", &packer).configure(|config| config.limits.max_decompressed_bytes = 1_000)).await;
            command(&world, "packed.number", packed("application/json", "br"), "brotli").await;
            command(&world, "packed.number", packed("application/json", "gzip"), "no gzip").await;
            running.bus().send_key_with("packed.text", Payload::text("x".repeat(2_000)), |o| o.encoding(ContentEncoding::Gzip)).await.unwrap();
            // Whoever takes bytes may know what we do not.
            command(&world, "packed.raw", packed("application/json", "br"), "brotli").await;
            assert_eq!(packer.raw.reach(1).await, [(b"brotli".to_vec(), Some("br".to_owned()))]);
            let letters = world.dead_letters("packed", 3).await;
            let why = |encoding: &str, payload: &[u8]| {
                let of = |letter: &&postrider::Envelope| letter.content_encoding.as_ref().unwrap().as_str() == encoding && letter.payload.starts_with(payload);
                letters.iter().find(of).and_then(|letter| letter.headers.text("postrider-dead-error")).unwrap_or_default()
            };
            assert!(why("br", b"brotli").contains("\"br\" is not known"), "{letters:?}");
            assert!(why("gzip", b"no gzip").contains("cannot be decompressed from gzip"), "{letters:?}");
            assert!(why("gzip", &GZIPPED[..2]).contains("max_decompressed_bytes"), "{letters:?}");
            running.stop().await;
        }
    }
}

#[derive(Debug, Deserialize)]
struct Nothing {}

#[derive(Debug, Deserialize)]
struct Count {
    number: u64,
}

/// Reads bodies as others write them.
#[derive(Clone, Default)]
struct Reader(Seen<String>);

#[distributed(service = "reader", retry = "none")]
impl Reader {
    #[distributed(command = "reader.number")]
    async fn number(&self, message: Count) {
        self.0.add(message.number.to_string());
    }

    #[distributed(command = "reader.text")]
    async fn text(&self, text: String) {
        self.0.add(text);
    }

    #[distributed(command = "reader.unit")]
    async fn unit(&self, (): ()) {
        self.0.add("unit".into());
    }

    #[distributed(command = "reader.option")]
    async fn option(&self, number: Option<u64>) {
        self.0.add(format!("{number:?}"));
    }

    #[distributed(command = "reader.nothing")]
    async fn nothing(&self, _: Nothing) {
        self.0.add("nothing".into());
    }
}

mod bodies {
    use super::*;

    on_both_brokers! {
        async fn byte_order_marks_empty_bodies_and_other_charsets_are_read(world: World) {
            let reader = Reader::default();
            let running = world.start(app("reader", &reader)).await;
            let json = "application/json";
            let utf16: Vec<u8> = "{\"number\":2}".encode_utf16().flat_map(u16::to_be_bytes).collect();
            let sent: [(&str, &str, &[u8]); 8] = [
                ("reader.number", json, b"\xef\xbb\xbf{\"number\":1}"),
                ("reader.number", "application/json; charset=utf-16", &utf16),
                ("reader.text", "text/plain; charset=ISO-8859-1", b"caf\xe9"),
                ("reader.unit", json, b""),
                ("reader.unit", "application/octet-stream", b""),
                ("reader.option", json, b""),
                ("reader.nothing", json, b" \n"),
                ("reader.option", "application/msgpack", b""),
            ];
            for (key, media_type, body) in sent {
                command(&world, key, foreign(media_type, []), body.to_vec()).await;
            }
            let seen = reader.0.reach(8).await;
            assert_same(["1", "2", "café", "unit", "unit", "None", "nothing", "None"].map(str::to_owned), seen);
            assert_eq!(running.stats().undecodable, 0);
        }

        async fn what_cannot_be_read_is_a_dead_letter_that_names_the_cause(world: World) {
            let reader = Reader::default();
            let running = world.start(app("reader", &reader)).await;
            command(&world, "reader.number", foreign("application/json; charset=koi8-r", []), "{}").await;
            command(&world, "reader.text", foreign("text/plain; charset=shift_jis", []), "x").await;
            command(&world, "reader.number", foreign("application/json", []), "").await;
            let letters = world.dead_letters("reader", 3).await;
            let errors: Vec<&str> = letters.iter().filter_map(|letter| letter.headers.text("postrider-dead-error")).collect();
            for cause in ["koi8-r", "shift_jis", "it is empty"] {
                assert!(errors.iter().any(|error| error.contains(cause)), "{cause}: {errors:?}");
            }
            running.stop().await;
        }
    }
}

/// Says no, when it may.
#[derive(Clone)]
struct Refuser {
    seen: Seen<String>,
    gate: Arc<Semaphore>,
}

impl Default for Refuser {
    fn default() -> Self {
        Self { seen: Seen::default(), gate: Arc::new(Semaphore::new(0)) }
    }
}

#[distributed(service = "refuser", retry = "none")]
impl Refuser {
    #[distributed(command = "refuser.do")]
    async fn handle(&self, what: String) -> Result<u64, Failure> {
        self.seen.add(what);
        self.gate.acquire().await.unwrap().forget();
        Err(Failure::rejected("no", "not today"))
    }

    #[distributed(event = "shop.opened")]
    async fn opened(&self, what: String) -> Result<(), Failure> {
        self.seen.add(what);
        Err(Failure::rejected("no", "not today"))
    }
}

mod rejected {
    use super::*;

    fn asking(reply_to: &str) -> ForeignMessage {
        ForeignMessage { reply_to: Some(reply_to.into()), ..foreign("text/plain", []) }
    }

    async fn letter(world: &World, payload: &[u8]) {
        let letter = world.dead_letters("refuser", 1).await.remove(0);
        assert_eq!((letter.headers.text("postrider-dead-reason"), &letter.payload[..]), (Some("rejected"), payload));
    }

    on_both_brokers! {
        async fn a_rejection_that_nobody_takes_is_a_dead_letter(world: World) {
            let refuser = Refuser::default();
            let running = world.start(app("refuser", &refuser)).await;
            refuser.gate.add_permits(4);
            let full = world.names.queue("caller", Some("answers"));
            let queue = Queue::on_one_node(&full).with_limit(1, WhenFull::Refuse);
            let broker = world.broker().await;
            broker.declare(&Topology::of_queues([queue])).await.unwrap();
            world.publish_foreign("", &full, foreign("text/plain", []), "an answer that nobody reads".to_owned()).await;
            for nobody in ["nobody-here".to_owned(), "amq.rabbitmq.reply-to.garbage".to_owned(), full] {
                command(&world, "refuser.do", asking(&nobody), nobody.clone()).await;
                letter(&world, nobody.as_bytes()).await;
            }
            // Somebody who is there hears it, and that is all.
            let error = running.bus().request_key::<u64>("refuser.do", Payload::text("it")).await.unwrap_err();
            assert!(error.to_string().contains("not today"), "{error}");
            eventually("it is settled", || running.stats().in_flight == 0).await;
            assert_eq!(running.stats().dead_lettered, 3);
            broker.close().await;
        }

        async fn a_rejection_for_a_caller_that_has_ended_is_a_dead_letter(world: World) {
            let refuser = Refuser::default();
            let running = world.start(app("refuser", &refuser)).await;
            let client = world.client().await;
            let bus = client.bus().clone();
            let asking = tokio::spawn(async move { bus.request_key::<u64>("refuser.do", Payload::text("late")).await });
            refuser.seen.reach(1).await;
            client.stop().await;
            asking.await.unwrap().unwrap_err();
            refuser.gate.add_permits(1);
            letter(&world, b"late").await;
            running.stop().await;
        }

        async fn an_event_that_is_rejected_is_a_dead_letter_whatever_address_it_has(world: World) {
            let refuser = Refuser::default();
            let running = world.start(app("refuser", &refuser)).await;
            let exchange = world.names.exchange(Kind::Event);
            for nobody in ["", "nobody-here"] {
                world.publish_foreign(&exchange, "shop.opened", asking(nobody), nobody.to_owned()).await;
                letter(&world, nobody.as_bytes()).await;
            }
            running.stop().await;
        }
    }
}

/// Takes bytes, JSON and text, and notes the number of each message.
#[derive(Clone, Default)]
struct Sink(Seen<i64>);

impl Sink {
    fn note(&self, cx: &Context) {
        self.0.add(cx.header("n").and_then(Value::as_integer).unwrap_or(-1));
    }
}

#[distributed(service = "sink", retry = "none")]
impl Sink {
    #[distributed(command = "sink.bytes")]
    async fn bytes(&self, _: Bytes, cx: &Context) {
        self.note(cx);
    }

    #[distributed(command = "sink.count")]
    async fn count(&self, count: Count, cx: &Context) -> Result<u64, Failure> {
        self.note(cx);
        Ok(count.number)
    }

    #[distributed(command = "sink.text")]
    async fn text(&self, text: String, cx: &Context) -> Result<(), Failure> {
        if text.starts_with("no") {
            return Err(Failure::rejected("no", "no"));
        }
        self.note(cx);
        Ok(())
    }

    #[distributed(event = "sink.happened")]
    async fn happened(&self, _: Option<Count>, cx: &Context) {
        self.note(cx);
    }
}

mod anything {
    use super::*;

    /// Headers that mean something to us or to the broker. Left out are those by which a sender says who is not to handle it.
    const NAMES: [&str; 24] = [
        "postrider-kind",
        "postrider-attempt",
        "postrider-timeout",
        "postrider-schema-version",
        "postrider-call-path",
        "postrider-status",
        "postrider-first-error",
        "postrider-skewed-since",
        "postrider-cut-headers",
        "postrider-dead-reason",
        "postrider-dead-at",
        "postrider-dead-attempts",
        "postrider-original-expiration",
        "postrider-original-type",
        "postrider-home",
        "postrider-causation-id",
        "postrider-conversation-id",
        "postrider-instance",
        "postrider-whatever",
        "traceparent",
        "x-delivery-count",
        "x-acquired-count",
        "x-death",
        "x-first-death-reason",
    ];
    const TEXTS: [&str; 12] =
        ["", "command", "event", "channel", "reply", "error", "sink", "sink.count", "-1", "1e99", "ö🐎", "00-0-0-00"];
    const MEDIA_TYPES: [&str; 9] = [
        "application/json",
        "application/json; charset=utf-16",
        "application/msgpack",
        "text/plain; charset=latin1",
        "text/plain",
        "application/octet-stream",
        "x/y",
        ";;;",
        "",
    ];
    const ENCODINGS: [&str; 6] = ["gzip", "zstd", "br", "utf-8", "gzip,gzip", "deflate"];
    const BODIES: [&[u8]; 8] = [
        b"",
        b"no",
        b"{\"number\":1}",
        b"\xef\xbb\xbf{\"number\":1}",
        b"\xff\xfe\x00",
        b"[[[[[[",
        GZIPPED,
        b"\x81\xa6number\x07",
    ];

    fn one_of<'a, T: ?Sized>(random: &mut fastrand::Rng, all: &[&'a T]) -> &'a T {
        all[random.usize(..all.len())]
    }

    fn value(random: &mut fastrand::Rng, deep: u8) -> Value {
        match random.u8(..if deep > 0 { 14 } else { 12 }) {
            0 => Value::Void,
            1 => random.bool().into(),
            2 => random.i8(..).into(),
            3 => random.u8(..).into(),
            4 => random.u32(..).into(),
            5 => random.i64(..).into(),
            6 => [i64::MIN, -1, 0, 1 << 40, i64::MAX][random.usize(..5)].into(),
            7 => Value::Timestamp(if random.bool() { u64::MAX } else { random.u64(..) }),
            8 => random.f64().into(),
            9 => vec![random.u8(..); 5].into(),
            10 => Value::Decimal { scale: random.u8(..), value: random.u32(..) },
            11 => one_of(random, &TEXTS).into(),
            12 => (0..random.usize(..4)).map(|_| value(random, deep - 1)).collect::<Vec<_>>().into(),
            _ => Value::Table([("inner", value(random, deep - 1))].into_iter().collect()),
        }
    }

    fn text(random: &mut fastrand::Rng) -> Option<Arc<str>> {
        random.bool().then(|| one_of(random, &TEXTS).into())
    }

    fn properties(random: &mut fastrand::Rng, number: i64) -> ForeignMessage {
        let mut headers: Headers = (0..random.usize(..8)).map(|_| (one_of(random, &NAMES), value(random, 3))).collect();
        headers.set("n", number);
        let reply_to = [None, None, Some("nobody-waits-here".into()), Some("".into())][random.usize(..4)].clone();
        if reply_to.is_some() {
            headers.remove("postrider-timeout");
        }
        ForeignMessage {
            content_type: random.bool().then(|| one_of(random, &MEDIA_TYPES).to_owned().into()),
            content_encoding: (random.u8(..3) == 0).then(|| one_of(random, &ENCODINGS).into()),
            message_id: text(random),
            correlation_id: text(random),
            reply_to,
            message_type: text(random),
            app_id: text(random),
            timestamp: [None, Some(0), Some(u64::MAX), Some(1_700_000_000)][random.usize(..4)],
            expiration: random.bool().then(|| "600000".into()),
            persistent: random.bool(),
            priority: [None, Some(0), Some(255)][random.usize(..3)],
            cluster_id: text(random),
            headers,
            ..ForeignMessage::default()
        }
    }

    on_both_brokers! {
        async fn every_message_of_a_stranger_is_handled_or_a_dead_letter_and_every_good_one_is_handled_once(world: World) {
            const MESSAGES: i64 = 400;
            let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
            eprintln!("SEED={seed}");
            let mut random = fastrand::Rng::with_seed(seed);
            let sink = Sink::default();
            let running = world.start(app("sink", &sink).configure(|config| config.skew.window = Duration::ZERO)).await;
            let broker = world.broker().await;
            let publisher = broker.publisher(Arc::new(|_| {})).await.unwrap();
            let (commands, events) = (world.names.exchange(Kind::Command), world.names.exchange(Kind::Event));
            let (queue, straight) = (world.names.queue("sink", None), Arc::from(""));
            let mut good = Vec::new();
            for number in 0..MESSAGES {
                let (exchange, key, properties, payload) = if random.u8(..4) == 0 {
                    good.push(number);
                    (&commands, "sink.count", foreign("application/json", [("n", number.into())]), &b"{\"number\":1}"[..])
                } else {
                    let key = one_of(&mut random, &["sink.bytes", "sink.count", "sink.text"]);
                    let (exchange, key) = match random.u8(..4) {
                        0 => (&straight, &*queue),
                        1 => (&events, "sink.happened"),
                        _ => (&commands, key),
                    };
                    (exchange, key, properties(&mut random, number), one_of(&mut random, &BODIES))
                };
                let message = properties.addressed(world.to(exchange, key), Bytes::from_static(payload));
                let published = publisher.publish(message, Instant::now() + PATIENCE).await.unwrap();
                assert_eq!(published, Publication::Confirmed, "SEED={seed}, message {number}");
            }
            eventually("all are settled", || {
                let stats = running.stats();
                stats.in_flight == 0 && sink.0.count() as u64 + stats.dead_lettered >= MESSAGES as u64
            }).await;
            let dead = world.dead_letters("sink", running.stats().dead_lettered as usize).await;
            assert!(dead.iter().all(|letter| letter.headers.text("postrider-dead-error").is_some_and(|error| !error.is_empty())));
            let handled = sink.0.all();
            let once = |number: &&i64| handled.iter().filter(|handled| handled == number).count() == 1;
            assert_eq!(good.iter().filter(once).count(), good.len(), "SEED={seed}: a good one was not handled once");
            let dead = dead.iter().map(|letter| letter.headers.get("n").and_then(Value::as_integer).unwrap_or(-1));
            assert_same(0..MESSAGES, handled.iter().copied().chain(dead));
            broker.close().await;
            running.stop().await;
        }
    }
}
