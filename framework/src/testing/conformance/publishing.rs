use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::bench::{addressed, next, text, to};
use super::{Bench, LONGEST_DELAY};
use crate::broker::{
    Addressed, Binding, BrokerError, Exchange, ExchangeKind, Origin, Publication, Queue, ReplyEvent, To, Topology,
};
use crate::message::{Headers, Kind, Value};

/// To a command's key.
fn command(key: &str) -> To {
    To::key(Kind::Command, &key.into())
}

pub(super) async fn a_command_goes_to_the_queue_that_has_exactly_its_key(bench: Bench) {
    let (exchange, queue) = (bench.exchange(Kind::Command), bench.queue("q"));
    let bindings = vec![bench.bind(&exchange, "a.b", &queue)];
    bench.declare(Topology { exchanges: vec![exchange.clone()], queues: vec![queue.clone()], bindings }).await;
    let publisher = bench.publisher().await;
    assert_eq!(bench.publish(&publisher, command("a.b"), "mine").await, Publication::Confirmed);
    assert_eq!(bench.publish(&publisher, command("a.*"), "not a key").await, Publication::Returned);
    assert_eq!(bench.publish(&publisher, command("a.b.c"), "longer").await, Publication::Returned);
    assert_eq!(bench.drain(&queue).await, ["mine"]);
}

pub(super) async fn an_event_goes_to_all_queues_whose_pattern_takes_its_key(bench: Bench) {
    let exchange = bench.exchange(Kind::Event);
    let patterns = ["a.b", "a.*", "a.#", "#", "*.b", "#.c", "a.*.c", "a.#.c"];
    let keys = ["a", "a.b", "a.c", "a.b.c", "b", "c", "x.b", "a.b.b.c"];
    let queues: Vec<Queue> =
        (0..patterns.len()).map(|index| Queue::classic(bench.name(&format!("q{index}")))).collect();
    let bindings = patterns.iter().zip(&queues).map(|(pattern, queue)| bench.bind(&exchange, pattern, queue)).collect();
    bench.declare(Topology { exchanges: vec![exchange.clone()], queues: queues.clone(), bindings }).await;
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
    let (exchange, one, two) = (bench.exchange(Kind::Channel), bench.queue("one"), bench.queue("two"));
    let bindings = vec![bench.bind(&exchange, "one:news", &one), bench.bind(&exchange, "two:news", &two)];
    bench.declare(Topology { exchanges: vec![exchange], queues: vec![one.clone(), two.clone()], bindings }).await;
    let publisher = bench.publisher().await;
    let to = To::Key { kind: Kind::Channel, service: Some("two".into()), key: "news".into() };
    assert_eq!(bench.publish(&publisher, to, "for two").await, Publication::Confirmed);
    let mut consumer = bench.consume(&two, 1).await;
    let delivery = next(&mut consumer).await;
    assert_eq!(*delivery.origin, Origin::Key { kind: Kind::Channel, key: "two:news".into() });
    delivery.receipt.ack();
    assert_eq!(bench.drain(&one).await, [""; 0]);
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
    assert_eq!((text(&now), &*now.origin), ("now".to_owned(), &Origin::Queue(queue.name.as_str().into())));
    let later = next(&mut consumer).await;
    assert!(began.elapsed() >= delay, "it came after {:?}", began.elapsed());
    assert_eq!(text(&later), "later");
    assert!(matches!(*later.origin, Origin::Delay(_)), "{:?}", later.origin);
    [now, later].into_iter().for_each(|delivery| delivery.receipt.ack());
}

pub(super) async fn exchanges_pass_messages_on_and_each_queue_gets_one_copy(bench: Bench) {
    let direct = bench.exchange(Kind::Command);
    let tap = Exchange::new(bench.names.tap(), ExchangeKind::Topic);
    let (queue, listener) = (bench.queue("q"), bench.queue("listener"));
    let bindings = vec![
        bench.bind(&direct, "a.b", &queue),
        Binding::to_exchange(&direct.name, "a.b", &tap.name),
        bench.bind(&tap, "#", &listener),
        bench.bind(&tap, "a.*", &listener),
        bench.bind(&tap, "a.b", &queue),
    ];
    let exchanges = vec![direct.clone(), tap.clone()];
    bench.declare(Topology { exchanges, queues: vec![queue.clone(), listener.clone()], bindings }).await;
    let publisher = bench.publisher().await;
    assert_eq!(bench.publish(&publisher, command("a.b"), "once").await, Publication::Confirmed);
    assert_eq!(bench.publish(&publisher, command("c"), "nobody").await, Publication::Returned);
    assert_eq!((bench.drain(&queue).await, bench.drain(&listener).await), (vec!["once".into()], vec!["once".into()]));
}

pub(super) async fn a_mandatory_message_that_nobody_takes_is_returned(bench: Bench) {
    let (exchange, queue) = (bench.exchange(Kind::Command), bench.queue("q"));
    let bindings = vec![bench.bind(&exchange, "there", &queue)];
    bench.declare(Topology { exchanges: vec![exchange.clone()], queues: vec![queue.clone()], bindings }).await;
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
    let exchange = bench.exchange(Kind::Command);
    bench.declare(Topology { exchanges: vec![exchange.clone()], ..Topology::default() }).await;
    let publisher = bench.publisher().await;
    let mut message = addressed(command("nowhere"), "x");
    message.mandatory = false;
    assert_eq!(bench.try_publish(&publisher, message).await, Ok(Publication::Confirmed));
}

pub(super) async fn a_full_queue_rejects(bench: Bench) {
    let queue = Queue::classic(bench.name("full")).with("x-max-length", 2_i32).with("x-overflow", "reject-publish");
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
    Arc::make_mut(&mut message.properties).headers = [
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
    let properties = Arc::make_mut(&mut message.properties);
    properties.correlation_id = Some("correlation".into());
    properties.reply_to = Some("somewhere".into());
    properties.message_type = Some("a.type".into());
    properties.app_id = Some("app".into());
    properties.timestamp = Some(1_700_000_001);
    properties.priority = Some(3);
    let sent = message.properties.clone();
    assert_eq!(bench.try_publish(&publisher, message).await, Ok(Publication::Confirmed));
    let mut consumer = bench.consume(&queue, 1).await;
    let delivery = next(&mut consumer).await;
    let mut arrived = (*delivery.properties).clone();
    // What the broker adds is its own.
    arrived.headers.retain(|name| !name.starts_with("x-"));
    assert_eq!(arrived, *sent);
    assert_eq!(*delivery.origin, Origin::Queue(queue.name.as_str().into()));
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
        if let (ReplyEvent::Arrived { payload, .. }, Ok(arrived)) = (event, arrived.lock()) {
            let _ = arrived.try_send(payload);
        }
    });
    let requester = bench.broker.publisher(sink).await.expect("a publisher opens");
    let mut request = addressed(to(&queue), "question");
    request.awaits_reply = true;
    assert_eq!(bench.try_publish(&requester, request).await, Ok(Publication::Confirmed));
    let mut consumer = bench.consume(&queue, 1).await;
    let delivery = next(&mut consumer).await;
    let reply_to = delivery.properties.reply_to.clone().expect("the adapter fills in the reply address");
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
