//! Scenarios for consuming and settling.

use std::sync::Arc;
use std::time::Duration;

use super::Bench;
use super::bench::{addressed, next, nothing, sorted, text, to};
use crate::broker::{Queue, WhenFull};

pub(super) async fn a_queue_is_first_in_first_out(bench: Bench) {
    let queue = bench.queue("q");
    bench.declare_queues(&[&queue]).await;
    let publisher = bench.publisher().await;
    let sent: Vec<String> = (0..200).map(|number| number.to_string()).collect();
    let publications = sent.iter().map(|payload| bench.publish(&publisher, to(&queue), payload));
    futures::future::join_all(publications).await;
    assert_eq!(bench.drain(&queue).await, sent);
}

pub(super) async fn competing_consumers_get_each_message_once(bench: Bench) {
    let queue = bench.queue("q");
    bench.declare_queues(&[&queue]).await;
    let (mut one, mut two) = (bench.consume(&queue, 5).await, bench.consume(&queue, 5).await);
    let publisher = bench.publisher().await;
    for number in 0..10 {
        bench.publish(&publisher, to(&queue), &number.to_string()).await;
    }
    let mut got = Vec::new();
    for _ in 0..5 {
        for consumer in [&mut one, &mut two] {
            let delivery = next(consumer).await;
            got.push(text(&delivery));
            delivery.receipt.ack();
        }
    }
    let expected: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    assert_eq!(sorted(got), expected);
    nothing(&mut one).await;
    nothing(&mut two).await;
}

pub(super) async fn prefetch_bounds_what_is_unsettled(bench: Bench) {
    let queue = bench.queue("q");
    bench.declare_queues(&[&queue]).await;
    let publisher = bench.publisher().await;
    for number in 0..5 {
        bench.publish(&publisher, to(&queue), &number.to_string()).await;
    }
    let mut consumer = bench.consume(&queue, 2).await;
    let (first, second) = (next(&mut consumer).await, next(&mut consumer).await);
    nothing(&mut consumer).await;
    second.receipt.ack();
    let third = next(&mut consumer).await;
    assert_eq!(text(&third), "2");
    nothing(&mut consumer).await;
    first.receipt.ack();
    third.receipt.ack();
    assert_eq!(text(&next(&mut consumer).await), "3");
}

pub(super) async fn what_a_closed_consumer_had_not_settled_comes_again(bench: Bench) {
    let queue = bench.queue("q");
    bench.declare_queues(&[&queue]).await;
    let publisher = bench.publisher().await;
    for payload in ["done", "open"] {
        bench.publish(&publisher, to(&queue), payload).await;
    }
    let mut consumer = bench.consume(&queue, 5).await;
    let (done, open) = (next(&mut consumer).await, next(&mut consumer).await);
    done.receipt.ack();
    consumer.close().await;
    assert!(!open.receipt.is_live(), "a receipt of a closed channel is dead");
    open.receipt.ack();
    let mut consumer = bench.consume(&queue, 5).await;
    let again = next(&mut consumer).await;
    assert_eq!((text(&again).as_str(), again.redelivered), ("open", true));
    again.receipt.ack();
    nothing(&mut consumer).await;
}

pub(super) async fn what_is_given_back_comes_again_and_is_counted(bench: Bench) {
    let queue = bench.queue("q");
    bench.declare_queues(&[&queue]).await;
    let publisher = bench.publisher().await;
    bench.publish(&publisher, to(&queue), "again").await;
    let mut consumer = bench.consume(&queue, 1).await;
    next(&mut consumer).await.receipt.give_back();
    drop(next(&mut consumer).await.receipt);
    let third = next(&mut consumer).await;
    assert!(third.redelivered);
    assert_eq!(third.delivery_count, Some(2), "a dropped receipt gives back as well");
    third.receipt.ack();
    nothing(&mut consumer).await;
}

pub(super) async fn an_expired_message_is_not_delivered(bench: Bench) {
    let queue = bench.queue("q");
    bench.declare_queues(&[&queue]).await;
    let publisher = bench.publisher().await;
    let mut message = addressed(to(&queue), "short-lived");
    Arc::make_mut(&mut message.envelope).expiration = Some(Duration::from_millis(50));
    bench.try_publish(&publisher, message).await.expect("the message is taken");
    bench.publish(&publisher, to(&queue), "lasting").await;
    // The expiration needs real time to pass.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.drain(&queue).await, ["lasting"]);
}

pub(super) async fn a_cancelled_consumer_gets_no_more(bench: Bench) {
    let queue = bench.queue("q");
    bench.declare_queues(&[&queue]).await;
    let mut consumer = bench.consume(&queue, 5).await;
    let publisher = bench.publisher().await;
    bench.publish(&publisher, to(&queue), "before").await;
    let before = next(&mut consumer).await;
    consumer.cancel().await;
    bench.publish(&publisher, to(&queue), "after").await;
    nothing(&mut consumer).await;
    before.receipt.ack();
    consumer.close().await;
    assert_eq!(bench.drain(&queue).await, ["after"]);
}

pub(super) async fn one_of_two_consumers_is_active_where_the_queue_says_so(bench: Bench) {
    let queue = bench.queue("q").with_one_active_consumer();
    bench.declare_queues(&[&queue]).await;
    let (mut first, mut second) = (bench.consume(&queue, 5).await, bench.consume(&queue, 5).await);
    let publisher = bench.publisher().await;
    for payload in ["1", "2", "3"] {
        bench.publish(&publisher, to(&queue), payload).await;
    }
    for expected in ["1", "2", "3"] {
        let delivery = next(&mut first).await;
        assert_eq!(text(&delivery), expected);
        delivery.receipt.ack();
    }
    nothing(&mut second).await;
    first.close().await;
    bench.publish(&publisher, to(&queue), "4").await;
    assert_eq!(text(&next(&mut second).await), "4");
}

pub(super) async fn a_short_queue_keeps_the_newest(bench: Bench) {
    let queue = Queue::on_one_node(bench.name("short")).with_limit(2, WhenFull::DropOldest);
    bench.declare_queues(&[&queue]).await;
    let publisher = bench.publisher().await;
    for payload in ["1", "2", "3", "4"] {
        bench.publish(&publisher, to(&queue), payload).await;
    }
    assert_eq!(bench.drain(&queue).await, ["3", "4"]);
}
