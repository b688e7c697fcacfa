//! A task of the framework that panics is started again, and the app is not ready until it is well. Panics are made on purpose.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider::adapter::rabbitmq::{RabbitMq, RabbitMqSettings};
use postrider::broker::{Addressed, Broker, Publication, ReplyEvent, To};
use postrider::message::ReplyTo;
use postrider::operate::Actors;
use postrider::testing::ForeignMessage;
use postrider::{App, Payload, Running, Secret, distributed};
use postrider_tests::world::{PATIENCE, Seen, World, amqp_url, eventually, run};
use tokio::time::Instant;

#[derive(Clone, Default)]
struct Alpha(Seen<String>);

#[distributed(service = "alpha")]
impl Alpha {
    #[distributed(command = "alpha.do")]
    async fn act(&self, what: String) {
        self.0.add(what);
    }
}

async fn started(world: &World, alpha: &Alpha) -> Running {
    let alpha = alpha.clone();
    world.start(App::new("alpha").actor(move || alpha.clone())).await
}

/// Panics in what consumes a queue, and waits until the app is unready because of that, and ready again.
async fn panics(world: &World, running: &Running, queue: &str, task: &str) {
    assert!(running.health().ready, "{:?}", running.health());
    world.in_process_broker().unwrap().panic_in_consumers(queue);
    eventually("it is not ready and says why", || !running.health().panicked.is_empty()).await;
    let health = running.health();
    assert!(!health.ready && health.panicked[0].starts_with(task), "{health:?}");
}

#[test]
fn a_lane_that_panics_makes_the_app_unready_and_consumes_again_and_loses_nothing() {
    run(async {
        let (world, alpha) = (World::in_process(), Alpha::default());
        let running = started(&world, &alpha).await;
        let (queue, permits) = (world.names.queue("alpha", None), running.stats().permits);
        running.bus().send_key("alpha.do", Payload::text("before")).await.unwrap();
        alpha.0.reach(1).await;
        panics(&world, &running, &queue, &format!("lane of {queue}")).await;
        running.bus().send_key("alpha.do", Payload::text("after")).await.unwrap();
        assert_eq!(alpha.0.reach(2).await, ["before", "after"]);
        eventually("it is ready again", || running.health().ready).await;
        assert_eq!((running.stats().permits, running.stats().in_flight), (permits, 0));
        assert_eq!(running.stop().await.failure, None);
    });
}

#[test]
fn what_is_due_is_published_after_a_panic() {
    run(async {
        let (world, alpha) = (World::in_process(), Alpha::default());
        let running = started(&world, &alpha).await;
        panics(&world, &running, &world.names.due(), "publishing from").await;
        let delay = Duration::from_millis(20);
        running.bus().send_key_with("alpha.do", Payload::text("later"), |o| o.delay(delay)).await.unwrap();
        assert_eq!(alpha.0.reach(1).await, ["later"]);
        eventually("it is ready again", || running.health().ready).await;
        running.stop().await;
    });
}

#[test]
fn orders_are_heard_after_a_panic() {
    run(async {
        let (world, alpha) = (World::in_process(), Alpha::default());
        let running = started(&world, &alpha).await;
        let client = world.client().await;
        let actors = Actors::new(client.bus());
        let reports = actors.about("alpha").await.unwrap();
        let queue = world.names.instance_queue(&world.names.queue("alpha", None), &reports[0].instance, 0);
        panics(&world, &running, &format!("{queue}.control"), "orders").await;
        let start = Instant::now();
        while actors.about("alpha").await.map_or(0, |reports| reports.len()) == 0 {
            assert!(start.elapsed() < PATIENCE, "no order is heard");
        }
        eventually("it is ready again", || running.health().ready).await;
        running.stop().await;
    });
}

/// Their consumers get nothing, and no error says so.
#[test]
fn orders_and_what_is_due_are_heard_again_after_their_consumers_have_stalled() {
    run(async {
        let (world, alpha) = (World::in_process(), Alpha::default());
        let actor = alpha.clone();
        let app = App::new("alpha").actor(move || actor.clone());
        let running = world.start(app.configure(|config| config.stall_after = Duration::from_millis(300))).await;
        let client = world.client().await;
        let actors = Actors::new(client.bus());
        let reports = actors.about("alpha").await.unwrap();
        let queue = world.names.instance_queue(&world.names.queue("alpha", None), &reports[0].instance, 0);
        let broker = world.in_process_broker().unwrap();
        [format!("{queue}.control"), world.names.due().to_string()].iter().for_each(|queue| broker.mute(queue));
        let delay = Duration::from_millis(20);
        running.bus().send_key_with("alpha.do", Payload::text("later"), |o| o.delay(delay)).await.unwrap();
        let start = Instant::now();
        while actors.about("alpha").await.map_or(0, |reports| reports.len()) == 0 {
            assert!(start.elapsed() < PATIENCE, "no order is heard");
        }
        assert_eq!(alpha.0.reach(1).await, ["later"]);
        running.stop().await;
    });
}

#[test]
fn a_confirm_channel_whose_owner_panics_confirms_what_is_sent_next() {
    run(async {
        let broker = RabbitMq::connect(RabbitMqSettings::new(Secret::new(amqp_url()), "test")).await.unwrap();
        let told = Arc::new(AtomicBool::new(false));
        let tells = Arc::clone(&told);
        let publisher = broker.publisher(Arc::new(move |event| {
            let first = matches!(event, ReplyEvent::Arrived(_)) && !tells.swap(true, Ordering::SeqCst);
            assert!(!first, "the first reply");
        }));
        let publisher = publisher.await.unwrap();
        let message = |key: &str, awaits_reply: bool| {
            let to = To::Queue(key.into());
            let mut envelope = ForeignMessage::default().envelope(&to, "x".into());
            envelope.reply_to = awaits_reply.then_some(ReplyTo::Caller);
            Addressed::to_queue(key, envelope)
        };
        let within = || Instant::now() + PATIENCE;
        // The broker says which address its replies have by sending a message to itself.
        let world = World::rabbitmq();
        let queue = postrider::broker::Queue::of_connection(world.names.queue("mirror", None));
        let spec = postrider::broker::ConsumerSpec {
            queue,
            topology: postrider::broker::Topology::default(),
            prefetch: 10,
            answers: false,
        };
        let mut consumer = broker.consume(&spec).await.unwrap();
        let sent = publisher.publish(message(&spec.queue.name, true), within()).await;
        assert_eq!(sent.unwrap(), Publication::Confirmed);
        let question = consumer.next().await.unwrap().unwrap();
        let Some(ReplyTo::Queue(address)) = question.envelope.reply_to.clone() else { panic!("nobody asks") };
        question.receipt.ack();
        let answer = Addressed { mandatory: false, ..message(&address, false) };
        let answering = broker.publisher(Arc::new(|_| {})).await.unwrap();
        assert_eq!(answering.publish(answer, within()).await.unwrap(), Publication::Confirmed);
        eventually("the owner has panicked", || told.load(Ordering::SeqCst)).await;
        eventually("readiness knows of it", || !broker.tasks().problems().is_empty()).await;
        for _ in 0..100 {
            let sent = publisher.publish(message(&spec.queue.name, false), within()).await;
            assert_eq!(sent.unwrap(), Publication::Confirmed);
            consumer.next().await.unwrap().unwrap().receipt.ack();
        }
        eventually("it is healthy again", || broker.tasks().problems().is_empty()).await;
        broker.close().await;
    });
}
