//! Scenarios for claims, queues and subscriptions.

use super::Bench;
use super::bench::{next, subscribed, text, to};
use crate::broker::{BrokerError, Claim, ConsumerSpec, Publication, Queue, Subscription, To, Topology, WhenFull};
use crate::message::Kind;

pub(super) async fn declaring_twice_changes_nothing(bench: Bench) {
    let queue = bench.queue("q");
    let topology = subscribed(Kind::Command, &[("k", &queue)]);
    bench.declare(topology.clone()).await;
    let publisher = bench.publisher().await;
    bench.publish(&publisher, To::key(Kind::Command, &"k".into()), "kept").await;
    bench.declare(topology).await;
    assert_eq!(bench.drain(&queue).await, ["kept"]);
}

pub(super) async fn another_queue_of_the_same_name_is_refused_with_both_values_and_others_go_on(bench: Bench) {
    let (queue, good) = (Queue::on_one_node(bench.name("q")).with_limit(10, WhenFull::DropOldest), bench.queue("good"));
    bench.declare_queues(&[&queue, &good]).await;
    let changed = Queue::on_one_node(bench.name("q")).with_limit(20, WhenFull::DropOldest);
    let error = bench.broker.declare(&Topology::of_queues([changed])).await.expect_err("refused");
    assert!(matches!(error, BrokerError::Inequivalent { .. }) && error.is_permanent(), "{error:?}");
    let text = error.to_string();
    for part in [queue.name.as_str(), "10", "20"] {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
    let publisher = bench.publisher().await;
    assert_eq!(bench.publish(&publisher, to(&good), "x").await, Publication::Confirmed);
}

pub(super) async fn a_claimed_domain_is_refused_to_another_service(bench: Bench) {
    let claim = |service: &str| {
        let claim = Claim { domain: "parcels".to_owned(), service: service.to_owned() };
        Topology { claims: vec![claim], ..Topology::default() }
    };
    bench.broker.declare(&claim("depot")).await.expect("the first claim stands");
    bench.other.declare(&claim("depot")).await.expect("the owner may say it again");
    let error = bench.other.declare(&claim("office")).await.expect_err("refused");
    assert!(matches!(error, BrokerError::DomainOwned { .. }) && error.is_permanent(), "{error:?}");
    for part in ["parcels", "office", "depot"] {
        assert!(error.to_string().contains(part), "{part:?} is missing in: {error}");
    }
    let absent = async |claim| bench.other.absent(&claim).await.expect("the broker answers").len();
    assert_eq!(absent(claim("whoever")).await, 0, "it is claimed");
    bench.broker.remove(&claim("whoever")).await.expect("released");
    assert_eq!(absent(claim("depot")).await, 1, "it is released");
    bench.other.declare(&claim("office")).await.expect("now it is free");
}

pub(super) async fn an_exclusive_queue_belongs_to_one_connection(bench: Bench) {
    let queue = Queue::of_connection(bench.name("mine"));
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

pub(super) async fn a_removed_subscription_takes_no_more(bench: Bench) {
    let queue = bench.queue("q");
    bench.declare(subscribed(Kind::Command, &[("kept", &queue), ("gone", &queue)])).await;
    let subscriptions = vec![Subscription::new(Kind::Command, "gone", &queue.name)];
    let removed = Topology { subscriptions, ..Topology::default() };
    bench.broker.remove(&removed).await.expect("removed");
    bench.broker.remove(&removed).await.expect("what is not there is no error");
    let publisher = bench.publisher().await;
    assert_eq!(bench.publish(&publisher, To::key(Kind::Command, &"gone".into()), "x").await, Publication::Returned);
    assert_eq!(bench.publish(&publisher, To::key(Kind::Command, &"kept".into()), "y").await, Publication::Confirmed);
    let all = subscribed(Kind::Command, &[("kept", &queue)]);
    assert_eq!(bench.broker.absent(&all).await.expect("the broker answers"), [""; 0]);
    bench.broker.remove(&all).await.expect("removed");
    assert_eq!(bench.broker.absent(&all).await.expect("the broker answers").last(), Some(&queue.name));
    assert_eq!(bench.broker.inspect(&queue.name).await.expect("the broker answers"), None);
}

pub(super) async fn a_queue_tells_how_it_stands(bench: Bench) {
    let queue = Queue::on_one_node(bench.name("q"));
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
    let queue = Queue::on_one_node(bench.name("q")).with_limit(7, WhenFull::DropOldest);
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
