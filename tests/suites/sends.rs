//! What handlers send: it is sent again alone, with the id that it had, and nobody's effects are repeated for it.

use std::sync::Arc;
use std::time::Duration;

use postrider::broker::{ConsumerSpec, Queue, Subscription, Topology, WhenFull};
use postrider::{App, Context, Failure, Kind, Payload, distributed};
use postrider_tests::world::{PATIENCE, Seen, World, eventually, eventually_async};
use tokio::sync::Semaphore;

#[derive(Clone)]
struct Alpha {
    ran: Seen<u32>,
    heard: Seen<String>,
    gate: Arc<Semaphore>,
}

impl Default for Alpha {
    fn default() -> Self {
        Self { ran: Seen::default(), heard: Seen::default(), gate: Arc::new(Semaphore::new(0)) }
    }
}

#[distributed(service = "alpha")]
impl Alpha {
    /// Sends to itself and to another key.
    #[distributed(command = "alpha.forward")]
    async fn forward(&mut self, key: String, cx: &Context) -> Result<(), Failure> {
        self.ran.add(cx.attempt());
        cx.send_key("alpha.hear", Payload::text("it"))?;
        cx.send_key(&key, Payload::text("it"))?;
        Ok(())
    }

    #[distributed(command = "alpha.hear")]
    async fn hear(&self, _: String, cx: &Context) {
        self.heard.add(cx.id().to_string());
    }

    /// Works at the second attempt.
    #[distributed(command = "alpha.try")]
    async fn try_twice(&self, _: String, cx: &Context) -> Result<(), Failure> {
        self.at_second_attempt(cx)
    }

    /// Works at the second attempt.
    #[distributed(event = "alpha.happened")]
    async fn happened(&self, _: String, cx: &Context) -> Result<(), Failure> {
        self.at_second_attempt(cx)
    }

    #[distributed(command = "alpha.wait")]
    async fn wait(&self, _: String) {
        self.gate.acquire().await.unwrap().forget();
    }
}

impl Alpha {
    fn at_second_attempt(&self, cx: &Context) -> Result<(), Failure> {
        if cx.attempt() == 1 {
            return Err(Failure::transient("once more"));
        }
        self.heard.add(cx.id().to_string());
        Ok(())
    }

    fn app(&self) -> App {
        let alpha = self.clone();
        App::new("alpha").actor(move || alpha.clone()).configure(|config| {
            config.retry.pause = Duration::from_millis(5);
            config.stop_timeout = Duration::from_secs(5);
        })
    }
}

/// Passes on what it gets, in order.
#[derive(Clone, Default)]
struct Gamma(Seen<u32>);

#[distributed(service = "gamma", ordered)]
impl Gamma {
    #[distributed(command = "gamma.pass")]
    async fn pass(&mut self, number: u32, cx: &Context) -> Result<(), Failure> {
        self.0.add(number);
        cx.send_key_with("full.do", Payload::json(&number), |o| o.id(number.to_string()))?;
        Ok(())
    }
}

/// A queue that takes one message and refuses every other one, and gets what is sent by the key `full.do`.
async fn full_queue(world: &World) -> Queue {
    let name = format!("{}.full", world.names.namespace());
    let queue = Queue::on_one_node(&name).with_limit(1, WhenFull::Refuse);
    let subscriptions = vec![Subscription::new(Kind::Command, "full.do", &name)];
    let broker = world.broker().await;
    broker.declare(&Topology { queues: vec![queue.clone()], subscriptions, ..Topology::default() }).await.unwrap();
    broker.close().await;
    queue
}

/// Takes one message from a queue: its id.
async fn take(world: &World, queue: &Queue) -> String {
    let broker = world.broker().await;
    let spec = ConsumerSpec { queue: queue.clone(), topology: Topology::default(), prefetch: 1, answers: false };
    let mut consumer = broker.consume(&spec).await.unwrap();
    let delivery = tokio::time::timeout(PATIENCE, consumer.next()).await.unwrap().unwrap().unwrap();
    consumer.cancel().await;
    let id = delivery.envelope.id.to_string();
    delivery.receipt.ack();
    consumer.close().await;
    broker.close().await;
    id
}

on_both_brokers! {
    async fn what_a_full_queue_refuses_is_sent_again_alone_until_there_is_room(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let queue = full_queue(&world).await;
        let bus = running.bus();
        let first = bus.send_key("full.do", Payload::text("first")).await.unwrap();
        bus.send_key("alpha.forward", Payload::text("full.do")).await.unwrap();
        eventually("it is sent again", || running.stats().resent >= 3).await;
        eventually("people see why", || {
            let lanes = running.health().lanes;
            running.health().ready && lanes.iter().any(|lane| lane.problem.as_deref().is_some_and(|why| why.contains("full.do") && why.contains("not taken")))
        }).await;
        assert_eq!((alpha.ran.all(), alpha.heard.count()), (vec![1], 1), "the handler ran once, and what was taken left once");
        // Nobody else waits for it.
        bus.send_key("alpha.hear", Payload::text("other")).await.unwrap();
        alpha.heard.reach(2).await;
        assert_eq!(take(&world, &queue).await, first.to_string());
        eventually("it is settled", || running.stats().in_flight == 0).await;
        let second = take(&world, &queue).await;
        assert_ne!(second, first.to_string());
        assert_eq!((alpha.ran.all(), alpha.heard.count(), running.stats().given_back), (vec![1], 2, 0));
        eventually("nothing is wrong", || running.health().lanes.iter().all(|lane| lane.problem.is_none())).await;
        running.stop().await;
    }

    async fn an_ordered_actor_waits_until_what_it_sent_is_taken_and_keeps_its_order(world: World) {
        let gamma = Gamma::default();
        let handles = gamma.clone();
        let running = world.start(App::new("gamma").actor(move || handles.clone())).await;
        let queue = full_queue(&world).await;
        running.bus().send_key_with("full.do", Payload::json(&0), |o| o.id("0")).await.unwrap();
        for number in 1..=3 {
            running.bus().send_key("gamma.pass", Payload::json(&number)).await.unwrap();
        }
        eventually("it is sent again", || running.stats().resent >= 3).await;
        assert_eq!(gamma.0.all(), [1], "what is behind it waits");
        for number in 0..=3 {
            assert_eq!(take(&world, &queue).await, number.to_string());
        }
        eventually("all are settled", || running.stats().in_flight == 0 && running.stats().handled == 3).await;
        assert_eq!(gamma.0.all(), [1, 2, 3], "each ran once");
        running.stop().await;
    }

    async fn what_is_not_taken_when_the_app_stops_goes_back_with_its_message_and_leaves_once_with_its_id(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let queue = full_queue(&world).await;
        running.bus().send_key("full.do", Payload::text("first")).await.unwrap();
        running.bus().send_key("alpha.forward", Payload::text("full.do")).await.unwrap();
        eventually("it is sent again", || running.stats().resent >= 1).await;
        let report = running.stop().await;
        assert_eq!((report.given_back, report.abandoned), (1, false));
        let again = Alpha::default();
        let running = world.start(again.app()).await;
        eventually("it is sent again by the next process", || running.stats().resent >= 1).await;
        take(&world, &queue).await;
        eventually("it is settled", || running.stats().in_flight == 0).await;
        take(&world, &queue).await;
        eventually_async("no other copy is there", || async { world.ready(&queue.name).await == Some(0) }).await;
        // What was taken the first time is known by its id.
        let heard = (alpha.heard.all(), again.heard.reach(1).await);
        assert_eq!(heard.0, heard.1);
        running.stop().await;
    }

    async fn a_handler_that_runs_again_sends_with_the_ids_that_it_used_before(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        running.bus().send_key("alpha.forward", Payload::text("nobody.there")).await.unwrap();
        alpha.ran.reach(3).await;
        let heard = alpha.heard.reach(3).await;
        assert!(heard.iter().all(|id| *id == heard[0]), "{heard:?}");
        // Another message's are others.
        running.bus().send_key("alpha.forward", Payload::text("nobody.there")).await.unwrap();
        let heard = alpha.heard.reach(6).await;
        assert!(heard[3..].iter().all(|id| *id == heard[3] && *id != heard[0]), "{heard:?}");
        running.stop().await;
    }

    async fn a_command_or_event_with_a_time_out_is_tried_again_however_long_that_takes(world: World) {
        let alpha = Alpha::default();
        // One pause is longer than the time-out.
        let running = world.start(alpha.app().configure(|config| config.retry.pause = Duration::from_millis(60))).await;
        for (kind, key) in [(Kind::Command, "alpha.try"), (Kind::Event, "alpha.happened")] {
            let text = postrider::Bytes::from_static(b"it");
            let mut envelope = postrider::Envelope::new(kind, postrider::message::Key::new(key).unwrap(), postrider::message::MediaType::TEXT, text);
            envelope.timeout = Some(Duration::from_millis(20));
            let (heard, id) = (alpha.heard.count(), envelope.id.to_string());
            running.bus().dispatch(envelope).await.unwrap();
            assert_eq!(alpha.heard.reach(heard + 1).await.last(), Some(&id));
        }
        eventually("both are settled", || running.stats().in_flight == 0).await;
        assert_eq!((running.stats().expired, running.stats().dead_lettered), (0, 0));
        running.stop().await;
    }

    async fn a_command_with_a_time_out_is_handled_however_long_it_waited(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app().configure(|config| config.concurrency = 1)).await;
        let bus = running.bus();
        for reply in [None, Some(postrider::message::ReplyTo::Queue("nobody.waits".into()))] {
            bus.send_key("alpha.wait", Payload::text("first")).await.unwrap();
            eventually("it runs", || running.stats().in_flight == 1).await;
            let text = postrider::Bytes::from_static(b"second");
            let mut envelope = postrider::Envelope::new(Kind::Command, postrider::message::Key::new("alpha.hear").unwrap(), postrider::message::MediaType::TEXT, text);
            envelope.timeout = Some(Duration::from_millis(20));
            envelope.reply_to = reply;
            let (heard, id) = (alpha.heard.count(), envelope.id.to_string());
            bus.dispatch(envelope).await.unwrap();
            eventually("it waits", || running.stats().in_flight == 2).await;
            tokio::time::sleep(Duration::from_millis(40)).await;
            alpha.gate.add_permits(1);
            assert_eq!(alpha.heard.reach(heard + 1).await.last(), Some(&id));
            eventually("both are settled", || running.stats().in_flight == 0).await;
        }
        assert_eq!((running.stats().expired, running.stats().dead_lettered), (0, 0));
        running.stop().await;
    }
}
