//! Scenarios for publishing, routing and confirms.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use tokio::sync::mpsc;

use super::bench::{addressed, next, subscribed, text, to};
use super::{Bench, LONGEST_DELAY};
use crate::broker::{
    Addressed, BrokerError, Publication, Queue, ReplyEvent, Source, Subscription, Target, To, WhenFull,
};
use crate::message::{ContentEncoding, Envelope, Headers, Kind, Name, ReplyTo, Value};

/// The address of a command's key.
fn command(key: &str) -> To {
    To::key(Kind::Command, &key.into())
}

pub(super) async fn a_command_goes_to_the_queue_that_has_exactly_its_key(bench: Bench) {
    let queue = bench.queue("q");
    bench.declare(subscribed(Kind::Command, &[("a.b", &queue)])).await;
    let publisher = bench.publisher().await;
    assert_eq!(bench.publish(&publisher, command("a.b"), "mine").await, Publication::Confirmed);
    assert_eq!(bench.publish(&publisher, command("a.*"), "not a key").await, Publication::Returned);
    assert_eq!(bench.publish(&publisher, command("a.b.c"), "longer").await, Publication::Returned);
    assert_eq!(bench.drain(&queue).await, ["mine"]);
}

pub(super) async fn an_event_goes_to_all_queues_whose_pattern_takes_its_key(bench: Bench) {
    let patterns = ["a.b", "a.*", "a.#", "#", "*.b", "#.c", "a.*.c", "a.#.c"];
    let keys = ["a", "a.b", "a.c", "a.b.c", "b", "c", "x.b", "a.b.b.c"];
    let queues: Vec<Queue> =
        (0..patterns.len()).map(|index| Queue::on_one_node(bench.name(&format!("q{index}")))).collect();
    let keys_and_queues: Vec<(&str, &Queue)> = patterns.iter().copied().zip(&queues).collect();
    bench.declare(subscribed(Kind::Event, &keys_and_queues)).await;
    let publisher = bench.publisher().await;
    for key in keys {
        bench.publish(&publisher, To::key(Kind::Event, &key.into()), key).await;
    }
    for (pattern, queue) in patterns.iter().zip(&queues) {
        let expected: Vec<&str> = keys.into_iter().filter(|key| postrider_grammar::matches(pattern, key)).collect();
        assert_eq!(bench.drain(queue).await, expected, "pattern {pattern}");
    }
}

pub(super) async fn a_message_for_a_service_by_name_goes_to_that_service_only(bench: Bench) {
    let (one, two) = (bench.queue("one"), bench.queue("two"));
    bench.declare(subscribed(Kind::Channel, &[("one:news", &one), ("two:news", &two)])).await;
    let publisher = bench.publisher().await;
    let to = To::Key { kind: Kind::Channel, service: Some("two".into()), key: "news".into() };
    assert_eq!(bench.publish(&publisher, to, "for two").await, Publication::Confirmed);
    let mut consumer = bench.consume(&two, 1).await;
    let delivery = next(&mut consumer).await;
    let Envelope { kind, key, target, .. } = &*delivery.envelope;
    assert_eq!((*kind, key.as_str(), target.as_ref().map(Name::as_str)), (Kind::Channel, "news", Some("two")));
    delivery.receipt.ack();
    assert_eq!(bench.drain(&one).await, [""; 0]);
}

pub(super) async fn what_comes_straight_from_its_sender_was_tried_by_nobody(bench: Bench) {
    let queue = bench.queue("q");
    bench.declare(subscribed(Kind::Command, &[("a.b", &queue)])).await;
    let publisher = bench.publisher().await;
    let mut message = addressed(command("a.b"), "mine");
    let envelope = Arc::make_mut(&mut message.envelope);
    envelope.attempt = 7;
    envelope.headers = [("postrider-first-error", "forged"), ("own", "kept")].into_iter().collect();
    assert_eq!(bench.try_publish(&publisher, message).await, Ok(Publication::Confirmed));
    let mut consumer = bench.consume(&queue, 1).await;
    let delivery = next(&mut consumer).await;
    let Envelope { attempt, headers, conversation_id, id, .. } = &*delivery.envelope;
    assert_eq!((*attempt, headers.text("postrider-first-error"), headers.text("own")), (1, None, Some("kept")));
    assert_eq!(conversation_id.as_ref(), Some(id), "it begins a conversation");
    delivery.receipt.ack();
}

pub(super) async fn a_delayed_message_comes_to_its_queue_when_its_time_has_come(bench: Bench) {
    let queue = bench.queue("q");
    bench.declare_queues(&[&queue]).await;
    let publisher = bench.publisher().await;
    let (began, delay) = (Instant::now(), LONGEST_DELAY);
    let later = Addressed { delay: Some(delay), ..addressed(to(&queue), "later") };
    assert_eq!(bench.try_publish(&publisher, later).await, Ok(Publication::Confirmed));
    assert_eq!(bench.publish(&publisher, to(&queue), "now").await, Publication::Confirmed);
    let mut consumer = bench.consume(&queue, 2).await;
    let now = next(&mut consumer).await;
    assert_eq!(text(&now), "now");
    let later = next(&mut consumer).await;
    assert!(began.elapsed() >= delay, "it came after {:?}", began.elapsed());
    assert_eq!(text(&later), "later");
    assert_eq!(later.envelope.key, now.envelope.key, "a delay changes nothing of what a message is");
    [now, later].into_iter().for_each(|delivery| delivery.receipt.ack());
}

pub(super) async fn taps_get_a_copy_and_each_queue_gets_one_message_only(bench: Bench) {
    let (queue, listener) = (bench.queue("q"), bench.queue("listener"));
    let tapped = |pattern: &str, queue: &Queue| Subscription {
        source: Source::Taps,
        pattern: pattern.to_owned(),
        target: Target::Queue(queue.name.clone()),
    };
    let mut topology = subscribed(Kind::Command, &[("a.b", &queue)]);
    topology.sources.push(Source::Taps);
    topology.queues.push(listener.clone());
    topology.subscriptions.extend([
        Subscription::to_taps(Kind::Command, "a.b"),
        tapped("#", &listener),
        tapped("a.*", &listener),
        tapped("a.b", &queue),
    ]);
    bench.declare(topology).await;
    let publisher = bench.publisher().await;
    assert_eq!(bench.publish(&publisher, command("a.b"), "once").await, Publication::Confirmed);
    assert_eq!(bench.publish(&publisher, command("c"), "nobody").await, Publication::Returned);
    assert_eq!((bench.drain(&queue).await, bench.drain(&listener).await), (vec!["once".into()], vec!["once".into()]));
}

pub(super) async fn a_mandatory_message_that_nobody_takes_is_returned(bench: Bench) {
    let queue = bench.queue("q");
    bench.declare(subscribed(Kind::Command, &[("there", &queue)])).await;
    let publisher = bench.publisher().await;
    let publications = (0..200).map(|number| {
        let key = if number % 10 == 3 { "nowhere" } else { "there" };
        bench.try_publish(&publisher, addressed(command(key), &number.to_string()))
    });
    let publications = futures::future::join_all(publications).await;
    for (number, publication) in publications.into_iter().enumerate() {
        let expected = if number % 10 == 3 { Publication::Returned } else { Publication::Confirmed };
        assert_eq!(publication, Ok(expected), "message {number}");
    }
}

pub(super) async fn a_message_that_is_not_mandatory_is_confirmed_without_a_queue(bench: Bench) {
    bench.declare(subscribed(Kind::Command, &[])).await;
    let publisher = bench.publisher().await;
    let mut message = addressed(command("nowhere"), "x");
    message.mandatory = false;
    assert_eq!(bench.try_publish(&publisher, message).await, Ok(Publication::Confirmed));
}

pub(super) async fn a_full_queue_rejects(bench: Bench) {
    let queue = Queue::on_one_node(bench.name("full")).with_limit(2, WhenFull::Refuse);
    bench.declare_queues(&[&queue]).await;
    let publisher = bench.publisher().await;
    let mut rejected = 0;
    for number in 0..5 {
        rejected +=
            usize::from(bench.publish(&publisher, to(&queue), &number.to_string()).await == Publication::Rejected);
    }
    assert_eq!(rejected, 3);
    assert_eq!(bench.drain(&queue).await, ["0", "1"]);
}

pub(super) async fn properties_headers_and_payload_arrive_as_they_left(bench: Bench) {
    let queue = bench.queue("q");
    bench.declare_queues(&[&queue]).await;
    let publisher = bench.publisher().await;
    let mut message = addressed(to(&queue), "payload");
    let inner: Headers = [("deep", Value::from(1_i32))].into_iter().collect();
    let envelope = Arc::make_mut(&mut message.envelope);
    envelope.headers = [
        ("emoji", Value::from("🐎 ünïcödé")),
        ("empty", Value::from("")),
        ("large", Value::from("x".repeat(64 * 1024))),
        ("bytes", Value::from(vec![0_u8, 255, 10])),
        ("flag", Value::from(true)),
        ("i8", Value::from(-8_i8)),
        ("i16", Value::from(-16_i16)),
        ("i32", Value::from(-32_i32)),
        ("i64", Value::from(i64::MIN)),
        ("f64", Value::from(2.5_f64)),
        ("time", Value::Timestamp(1_700_000_000)),
        ("void", Value::Void),
        ("list", Value::from(vec![Value::from("a"), Value::from(1_i64), Value::from(false)])),
        ("table", Value::from(inner)),
    ]
    .into_iter()
    .collect();
    envelope.correlation_id = Some("correlation".into());
    envelope.causation_id = Some("cause".into());
    envelope.conversation_id = Some("conversation".into());
    envelope.reply_to = Some(ReplyTo::Queue("somewhere".into()));
    envelope.message_type = Some("A.Type".into());
    envelope.source = Some(Name::from_wire("app"));
    envelope.instance = Some(Name::from_wire("instance"));
    envelope.target = Some(Name::from_wire("target"));
    envelope.sent_at = Some(UNIX_EPOCH + Duration::from_secs(1_700_000_001));
    envelope.content_encoding = Some(ContentEncoding::Gzip);
    (envelope.priority, envelope.transient, envelope.attempt) = (Some(3), true, 7);
    (envelope.timeout, envelope.schema_version) = (Some(Duration::from_millis(1_500)), 4);
    envelope.skip = Some(Name::from_wire("skipped"));
    envelope.recipients = vec![Name::from_wire("one"), Name::from_wire("two")];
    envelope.call_path = vec!["a.B@c".into()];
    envelope.cluster_id = Some("cluster".into());
    let sent = message.envelope.clone();
    assert_eq!(bench.try_publish(&publisher, message).await, Ok(Publication::Confirmed));
    let mut consumer = bench.consume(&queue, 1).await;
    let delivery = next(&mut consumer).await;
    let mut arrived = (*delivery.envelope).clone();
    // Ignore headers that the broker adds.
    arrived.headers.retain(|name| !name.starts_with("x-"));
    assert_eq!(arrived.headers, sent.headers);
    arrived.headers = sent.headers.clone();
    assert!(arrived == *sent, "{arrived:?} is not {sent:?}");
    assert!(!delivery.redelivered);
    delivery.receipt.ack();
}

pub(super) async fn payloads_of_no_one_and_a_million_bytes_arrive(bench: Bench) {
    let queue = bench.queue("q");
    bench.declare_queues(&[&queue]).await;
    let publisher = bench.publisher().await;
    for size in [0, 1, 1024 * 1024] {
        bench.publish(&publisher, to(&queue), &"x".repeat(size)).await;
    }
    let sizes: Vec<usize> = bench.drain(&queue).await.iter().map(String::len).collect();
    assert_eq!(sizes, [0, 1, 1024 * 1024]);
}

pub(super) async fn a_reply_reaches_the_publisher_that_awaits_it(bench: Bench) {
    let queue = bench.queue("q");
    bench.declare_queues(&[&queue]).await;
    let (arrived, mut replies) = mpsc::channel(8);
    let arrived = Arc::new(Mutex::new(arrived));
    let sink = Arc::new(move |event| {
        if let (ReplyEvent::Arrived(reply), Ok(arrived)) = (event, arrived.lock()) {
            let _ = arrived.try_send(reply.payload);
        }
    });
    let requester = bench.broker.publisher(sink).await.expect("a publisher opens");
    let mut request = addressed(to(&queue), "question");
    Arc::make_mut(&mut request.envelope).reply_to = Some(ReplyTo::Caller);
    assert_eq!(bench.try_publish(&requester, request).await, Ok(Publication::Confirmed));
    let mut consumer = bench.consume(&queue, 1).await;
    let delivery = next(&mut consumer).await;
    let Some(ReplyTo::Queue(reply_to)) = delivery.envelope.reply_to.clone() else {
        panic!("the adapter fills in the reply address: {:?}", delivery.envelope.reply_to)
    };
    let answerer = bench.other.publisher(Arc::new(|_| {})).await.expect("a publisher opens");
    let mut answer = addressed(To::Queue(reply_to), "answer");
    answer.mandatory = false;
    assert_eq!(bench.try_publish(&answerer, answer).await, Ok(Publication::Confirmed));
    delivery.receipt.ack();
    let reply = tokio::time::timeout(Duration::from_secs(20), replies.recv()).await.expect("the reply comes");
    assert_eq!(reply.as_deref(), Some("answer".as_bytes()));
}

pub(super) async fn publishing_after_closing_is_an_error_at_once(bench: Bench) {
    let publisher = bench.publisher().await;
    bench.broker.close().await;
    let result = bench.try_publish(&publisher, addressed(To::Queue("x".into()), "x")).await;
    assert_eq!(result, Err(BrokerError::Stopped));
}
