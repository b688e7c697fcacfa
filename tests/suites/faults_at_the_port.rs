//! What the faults of the in-process broker look like to whoever publishes and consumes: as RabbitMQ's do.

use std::sync::Arc;
use std::time::Duration;

use postrider::adapter::in_process::InProcess;
use postrider::broker::{
    Addressed, Broker, BrokerError, Consumer, ConsumerSpec, Names, Publication, Publisher, Queue, Source, Subscription,
    To, Topology, WhenFull,
};
use postrider::message::Kind;
use postrider::testing::ForeignMessage;
use postrider::testing::{FaultKind, Faults, run};
use postrider_tests::on_both_brokers;
use postrider_tests::world::PATIENCE;
use tokio::time::{Instant, timeout};

fn message(queue: &str, text: &str) -> Addressed {
    ForeignMessage::default().addressed(To::Queue(queue.into()), text.to_owned())
}

async fn publisher(broker: &dyn Broker) -> Arc<dyn Publisher> {
    broker.publisher(Arc::new(|_| {})).await.unwrap()
}

async fn declared(broker: &dyn Broker, names: &[&str]) {
    broker.declare(&Topology::of_queues(names.iter().map(|name| Queue::replicated(*name)))).await.unwrap();
}

async fn consumer(broker: &dyn Broker, queue: Queue) -> Box<dyn Consumer> {
    broker.consume(&ConsumerSpec { queue, topology: Topology::default(), prefetch: 10, answers: false }).await.unwrap()
}

/// The next message's text, whether it came before, and how often. It is acknowledged.
async fn next(consumer: &mut Box<dyn Consumer>) -> (String, bool, Option<u32>) {
    let delivery = timeout(PATIENCE, consumer.next()).await.expect("a delivery comes").unwrap().unwrap();
    let text = String::from_utf8(delivery.envelope.payload.to_vec()).unwrap();
    delivery.receipt.ack();
    (text, delivery.redelivered, delivery.delivery_count)
}

/// A broker whose publisher suffers this fault with its first message, and the publisher.
async fn suffering(kind: FaultKind, longest_silence: Duration) -> (InProcess, Box<dyn Broker>, Arc<dyn Publisher>) {
    tokio::time::pause();
    let mut faults = Faults::seeded(5);
    (faults.kinds, faults.rate, faults.most, faults.longest_silence) = (vec![kind], 1.0, 1, longest_silence);
    let broker = InProcess::new();
    let session = broker.with_faults(faults).connect(&Names::default());
    declared(&session, &["q", "other"]).await;
    let publisher = publisher(&session).await;
    (broker, Box::new(session), publisher)
}

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn a_queue_that_is_suspended_neither_confirms_nor_delivers_until_it_goes_on() {
    run(async {
        tokio::time::pause();
        let broker = InProcess::new();
        let session = broker.connect(&Names::default());
        declared(&session, &["q", "other"]).await;
        let (publisher, mut consumer) = (publisher(&session).await, consumer(&session, Queue::replicated("q")).await);
        broker.suspend("q");
        let mut waiting = publisher.publish(message("q", "late"), Instant::now() + HOUR);
        assert!(timeout(MINUTE, &mut waiting).await.is_err(), "it is not confirmed");
        assert!(timeout(MINUTE, consumer.next()).await.is_err(), "it is not delivered");
        let beside = publisher.publish(message("other", "beside"), Instant::now() + MINUTE).await;
        assert_eq!(beside, Ok(Publication::Confirmed), "another queue confirms");
        let unknown = publisher.publish(message("q", "unknown"), Instant::now() + MINUTE).await;
        assert!(matches!(unknown, Ok(Publication::Unknown(_))), "{unknown:?}");
        broker.resume("q");
        assert_eq!(waiting.await, Ok(Publication::Confirmed));
        assert_eq!(next(&mut consumer).await.0, "late");
        assert_eq!(next(&mut consumer).await.0, "unknown", "what nobody confirmed has arrived all the same");
    });
}

#[test]
fn a_message_arrives_before_its_confirm_that_is_late() {
    run(async {
        let (_, session, publisher) = suffering(FaultKind::LateConfirm, HOUR).await;
        let mut consumer = consumer(&*session, Queue::replicated("q")).await;
        let publication = publisher.publish(message("q", "one"), Instant::now() + Duration::from_secs(1));
        let (publication, (text, ..)) = futures::join!(publication, next(&mut consumer));
        assert_eq!(text, "one");
        assert!(matches!(publication, Ok(Publication::Unknown(_))), "{publication:?}");
    });
}

#[test]
fn what_nobody_takes_comes_back_late() {
    run(async {
        let (_, _session, publisher) = suffering(FaultKind::LateConfirm, MINUTE).await;
        let begin = Instant::now();
        let publication = publisher.publish(message("nowhere", "one"), begin + HOUR).await;
        assert_eq!(publication, Ok(Publication::Returned));
        assert!(begin.elapsed() > Duration::from_secs(1), "it came after {:?}", begin.elapsed());
    });
}

#[test]
fn a_publishing_channel_that_ends_leaves_unknown_whatever_waited_for_its_confirm_and_the_next_one_works() {
    run(async {
        tokio::time::pause();
        let mut faults = Faults::seeded(7);
        (faults.kinds, faults.rate, faults.most) = (vec![FaultKind::PublisherChannel], 0.2, 1);
        let broker = InProcess::new();
        let session = broker.with_faults(faults).connect(&Names::default());
        declared(&session, &["q"]).await;
        let publisher = publisher(&session).await;
        broker.suspend("q");
        let mut waiting = Vec::new();
        let ended = loop {
            let mut sent = publisher.publish(message("q", "one"), Instant::now() + HOUR);
            match timeout(Duration::from_secs(1), &mut sent).await {
                Ok(ended) => break ended,
                Err(_) => waiting.push(sent),
            }
        };
        assert!(matches!(ended, Ok(Publication::Unknown(_))), "{ended:?}");
        assert!(!waiting.is_empty());
        for sent in waiting {
            let sent = timeout(Duration::from_secs(1), sent).await.expect("its channel has ended");
            assert!(matches!(sent, Ok(Publication::Unknown(_))), "{sent:?}");
        }
        broker.resume("q");
        let next = publisher.publish(message("q", "next"), Instant::now() + MINUTE).await;
        assert_eq!(next, Ok(Publication::Confirmed));
    });
}

#[test]
fn a_write_that_fails_says_so_and_nothing_arrives() {
    run(async {
        let (_, session, publisher) = suffering(FaultKind::FailedWrite, MINUTE).await;
        let failed = publisher.publish(message("q", "one"), Instant::now() + MINUTE).await;
        assert!(matches!(failed, Err(BrokerError::Lost { .. })), "{failed:?}");
        assert_eq!(session.inspect("q").await.unwrap().unwrap().ready, 0);
    });
}

#[test]
fn what_is_not_written_leaves_in_its_order_and_not_after_its_deadline() {
    run(async {
        let (_, session, publisher) = suffering(FaultKind::BlockedWrite, HOUR).await;
        let mut consumer = consumer(&*session, Queue::replicated("q")).await;
        let too_late = publisher.publish(message("q", "too late"), Instant::now() + Duration::from_secs(1));
        let first = publisher.publish(message("q", "first"), Instant::now() + 2 * HOUR);
        let second = publisher.publish(message("q", "second"), Instant::now() + 2 * HOUR);
        let (too_late, first, second) = futures::join!(too_late, first, second);
        assert!(matches!(too_late, Err(BrokerError::Lost { .. })), "{too_late:?}");
        assert_eq!((first, second), (Ok(Publication::Confirmed), Ok(Publication::Confirmed)));
        assert_eq!(next(&mut consumer).await.0, "first");
        assert_eq!(next(&mut consumer).await.0, "second");
    });
}

#[test]
fn a_consuming_channel_that_ends_alone_gives_back_what_it_held_and_costs_no_other() {
    run(async {
        let broker = InProcess::new();
        let session = broker.connect(&Names::default());
        declared(&session, &["q", "other"]).await;
        let publisher = publisher(&session).await;
        for queue in ["q", "other"] {
            let sent = publisher.publish(message(queue, queue), Instant::now() + MINUTE).await;
            assert_eq!(sent, Ok(Publication::Confirmed));
        }
        let (mut ends, mut stays) =
            (consumer(&session, Queue::replicated("q")).await, consumer(&session, Queue::replicated("other")).await);
        let held = ends.next().await.unwrap().unwrap();
        assert_eq!((held.redelivered, held.delivery_count), (false, Some(0)));
        let epoch = session.connection().borrow().epoch;
        broker.close_consumers("q");
        assert!(matches!(ends.next().await, Some(Err(BrokerError::Lost { .. }))));
        held.receipt.ack();
        let mut again = consumer(&session, Queue::replicated("q")).await;
        assert_eq!(next(&mut again).await, ("q".to_owned(), true, Some(1)));
        assert_eq!(next(&mut stays).await, ("other".to_owned(), false, Some(0)));
        assert_eq!(session.connection().borrow().epoch, epoch, "the connection stays");
    });
}

on_both_brokers! {
    async fn one_queue_that_is_full_rejects_the_message_for_all_and_the_others_have_it(world: World) {
        let broker = world.broker().await;
        let name = |what: &str| format!("{}.{what}", world.names.queue("fan", None));
        let full = Queue::replicated(name("full")).with_limit(1, WhenFull::Refuse);
        let free = Queue::replicated(name("free"));
        let subscriptions = [&full, &free].map(|queue| Subscription::new(Kind::Event, "#", &queue.name));
        let topology = Topology {
            sources: vec![Source::Kind(Kind::Event)],
            queues: vec![full.clone(), free.clone()],
            subscriptions: subscriptions.to_vec(),
            ..Topology::default()
        };
        broker.declare(&topology).await.unwrap();
        let publisher = publisher(&*broker).await;
        let mut rejected = 0;
        // A quorum queue takes a few more than its length says.
        while rejected == 0 {
            rejected += usize::from(publish(&*publisher, "filler").await == Publication::Rejected);
        }
        let mut consumer = consumer(&*broker, free).await;
        while publish(&*publisher, "last").await != Publication::Rejected {}
        while next(&mut consumer).await.0 != "last" {}
        broker.remove(&topology).await.unwrap();
    }
}

async fn publish(publisher: &dyn Publisher, text: &str) -> Publication {
    let event = Addressed { to: To::key(Kind::Event, &"all.hear".into()), ..message("", text) };
    publisher.publish(event, Instant::now() + PATIENCE).await.unwrap()
}
