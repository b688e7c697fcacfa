use super::Bench;
use super::bench::{next, text, to};
use crate::broker::{BrokerError, ConsumerSpec, Exchange, ExchangeKind, Publication, Queue, To, Topology};
use crate::message::Kind;

pub(super) async fn declaring_twice_changes_nothing(bench: Bench) {
    let (exchange, queue) = (bench.exchange(Kind::Command), bench.queue("q"));
    let bindings = vec![bench.bind(&exchange, "k", &queue)];
    let topology = Topology { exchanges: vec![exchange.clone()], queues: vec![queue.clone()], bindings };
    bench.declare(topology.clone()).await;
    let publisher = bench.publisher().await;
    bench.publish(&publisher, To::key(Kind::Command, &"k".into()), "kept").await;
    bench.declare(topology).await;
    assert_eq!(bench.drain(&queue).await, ["kept"]);
}

pub(super) async fn other_arguments_are_refused_with_both_values_and_other_queues_go_on(bench: Bench) {
    let (queue, good) = (Queue::classic(bench.name("q")).with("x-max-length", 10_i32), bench.queue("good"));
    bench.declare_queues(&[&queue, &good]).await;
    let changed = Queue::classic(bench.name("q")).with("x-max-length", 20_i32);
    let error =
        bench.broker.declare(&Topology { queues: vec![changed], ..Topology::default() }).await.expect_err("refused");
    assert!(matches!(error, BrokerError::Inequivalent { .. }) && error.is_permanent(), "{error:?}");
    let text = error.to_string();
    for part in [queue.name.as_str(), "x-max-length", "10", "20"] {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
    let publisher = bench.publisher().await;
    assert_eq!(bench.publish(&publisher, to(&good), "x").await, Publication::Confirmed);
}

pub(super) async fn a_claimed_domain_is_refused_to_another_service(bench: Bench) {
    let claim = |service: &str| {
        let exchange = Exchange::new(bench.name("domain.parcels"), ExchangeKind::Fanout);
        let owner = bench.name(&format!("owner.{service}"));
        Topology { exchanges: vec![exchange.with("alternate-exchange", owner)], ..Topology::default() }
    };
    bench.broker.declare(&claim("depot")).await.expect("the first claim stands");
    bench.other.declare(&claim("depot")).await.expect("the owner may say it again");
    let error = bench.other.declare(&claim("office")).await.expect_err("refused");
    assert!(matches!(error, BrokerError::DomainOwned { .. }) && error.is_permanent(), "{error:?}");
    for part in ["parcels", "office", "depot"] {
        assert!(error.to_string().contains(part), "{part:?} is missing in: {error}");
    }
}

pub(super) async fn an_exclusive_queue_belongs_to_one_connection(bench: Bench) {
    let queue = Queue::exclusive(bench.name("mine"));
    let mut consumer = bench.consume(&queue, 1).await;
    let spec = ConsumerSpec { queue: queue.clone(), topology: Topology::default(), prefetch: 1, answers: false };
    let Err(error) = bench.other.consume(&spec).await else { panic!("somebody else's exclusive queue was consumed") };
    assert!(matches!(error, BrokerError::Locked { .. }), "{error:?}");
    let publisher = bench.publisher().await;
    bench.publish(&publisher, to(&queue), "x").await;
    assert_eq!(text(&next(&mut consumer).await), "x");
    bench.broker.close().await;
    let mut left = bench.other.inspect(&queue.name).await.expect("the broker answers");
    for _ in 0..100 {
        if left.is_none() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        left = bench.other.inspect(&queue.name).await.expect("the broker answers");
    }
    assert_eq!(left, None, "an exclusive queue ends with its connection");
}

pub(super) async fn a_removed_binding_routes_no_more(bench: Bench) {
    let (exchange, queue) = (bench.exchange(Kind::Command), bench.queue("q"));
    let bindings = vec![bench.bind(&exchange, "kept", &queue), bench.bind(&exchange, "gone", &queue)];
    bench
        .declare(Topology {
            exchanges: vec![exchange.clone()],
            queues: vec![queue.clone()],
            bindings: bindings.clone(),
        })
        .await;
    let removed = Topology { bindings: vec![bindings[1].clone()], ..Topology::default() };
    bench.broker.remove(&removed).await.expect("removed");
    bench.broker.remove(&removed).await.expect("what is not there is no error");
    let publisher = bench.publisher().await;
    assert_eq!(bench.publish(&publisher, To::key(Kind::Command, &"gone".into()), "x").await, Publication::Returned);
    assert_eq!(bench.publish(&publisher, To::key(Kind::Command, &"kept".into()), "y").await, Publication::Confirmed);
    assert!(bench.broker.exchange_stands(&exchange.name).await.expect("the broker answers"));
    let all = Topology { exchanges: vec![exchange.clone()], queues: vec![queue.clone()], ..Topology::default() };
    bench.broker.remove(&all).await.expect("removed");
    assert!(!bench.broker.exchange_stands(&exchange.name).await.expect("the broker answers"));
    assert_eq!(bench.broker.inspect(&queue.name).await.expect("the broker answers"), None);
}

pub(super) async fn a_queue_tells_how_it_stands(bench: Bench) {
    let queue = Queue::classic(bench.name("q"));
    assert_eq!(bench.broker.inspect(&queue.name).await.expect("the broker answers"), None);
    bench.declare_queues(&[&queue]).await;
    let publisher = bench.publisher().await;
    bench.publish(&publisher, to(&queue), "x").await;
    let state = bench.broker.inspect(&queue.name).await.expect("the broker answers").expect("it stands");
    assert_eq!((state.ready, state.consumers), (1, 0));
    let mut consumer = bench.consume(&queue, 5).await;
    let delivery = next(&mut consumer).await;
    let state = bench.broker.inspect(&queue.name).await.expect("the broker answers").expect("it stands");
    assert_eq!((state.ready, state.consumers), (0, 1));
    delivery.receipt.ack();
}

pub(super) async fn a_queue_that_stands_is_consumed_whatever_its_arguments(bench: Bench) {
    let queue = Queue::classic(bench.name("q")).with("x-max-length", 7_i32);
    let standing = Queue::standing(&queue.name);
    let spec = ConsumerSpec { queue: standing.clone(), topology: Topology::default(), prefetch: 5, answers: false };
    assert!(bench.broker.consume(&spec).await.is_err(), "there is none yet");
    assert_eq!(bench.broker.inspect(&queue.name).await.expect("the broker answers"), None, "and it was not declared");
    bench.declare_queues(&[&queue]).await;
    let publisher = bench.publisher().await;
    bench.publish(&publisher, to(&queue), "x").await;
    let mut consumer = bench.consume(&standing, 5).await;
    next(&mut consumer).await.receipt.ack();
    consumer.close().await;
}
