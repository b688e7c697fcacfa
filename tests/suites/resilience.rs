//! One failure stays one failure: what goes wrong in one place harms nobody else and ends.

use std::time::Duration;

use postrider::broker::{Addressed, BrokerError, ConsumerSpec, Publication, Queue, To, Topology};
use postrider::message::ReplyTo;
use postrider::testing::ForeignMessage;
use postrider::{App, Context, Failure, Payload, RequestError, SendError, distributed};
use postrider_tests::world::{Seen, World, assert_same, eventually, eventually_async, run};
use tokio::time::Instant;

#[derive(Clone, Default)]
struct Crowd {
    seen: Seen<u64>,
}

#[distributed(service = "crowd")]
impl Crowd {
    #[distributed(command = "crowd.panic")]
    async fn panic(&self, number: u64, cx: &Context) {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(cx.attempt() > 1, "the first attempt panics on purpose");
        self.seen.add(number);
    }

    #[distributed(command = "crowd.fail")]
    async fn fail(&self, number: u64, cx: &Context) -> Result<(), Failure> {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if cx.attempt() == 1 {
            return Err(Failure::transient("the database is away"));
        }
        self.seen.add(number);
        Ok(())
    }

    #[distributed(query = "crowd.ask")]
    async fn ask(&mut self, number: u64) -> Result<u64, Failure> {
        Ok(number)
    }
}

#[derive(Default)]
struct Answering;

#[distributed(service = "answering")]
impl Answering {
    #[distributed(query = "answering.one")]
    async fn one(&self, _: u64) -> Result<String, Failure> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok("one".into())
    }

    #[distributed(query = "answering.two")]
    async fn two(&self, _: u64) -> Result<String, Failure> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok("two".into())
    }
}

macro_rules! asking {
    ($name:ident, $service:literal, $query:literal) => {
        #[derive(Clone, Default)]
        struct $name {
            seen: Seen<String>,
        }

        #[distributed(service = $service)]
        impl $name {
            #[distributed(event = "answering.happened")]
            async fn happened(&self, number: u64, cx: &Context) -> Result<(), Failure> {
                self.seen.add(cx.request_key($query, Payload::json(&number)).await?);
                Ok(())
            }
        }
    };
}

asking!(First, "first", "answering.one");
asking!(Second, "second", "answering.two");

#[derive(Clone, Default)]
struct Sink {
    seen: Seen<u64>,
    late: Seen<String>,
}

#[distributed(service = "sink")]
impl Sink {
    #[distributed(command = "sink.put")]
    async fn put(&self, number: u64) {
        self.seen.add(number);
    }

    #[distributed(query = "sink.slow")]
    async fn slow(&self, number: u64) -> Result<u64, Failure> {
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(number)
    }

    #[distributed(command = "sink.late")]
    async fn late(&self, _: u64, cx: &Context) {
        let (cx, late) = (cx.clone(), self.late.clone());
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            late.add(format!("{:?}", cx.send_key("sink.put", Payload::json(&7_u64))));
        });
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "dropping panics on purpose");
    }
}

#[derive(Clone, Default)]
struct Dropper {
    seen: Seen<u64>,
}

#[distributed(service = "dropper", timeout = "100ms", retry = "none")]
impl Dropper {
    #[distributed(command = "dropper.go")]
    async fn go(&mut self, number: u64) {
        if number == 0 {
            let _bomb = Bomb;
            std::future::pending::<()>().await;
        }
        self.seen.add(number);
    }
}

on_both_brokers! {
    async fn a_crowd_of_first_attempts_that_panic_all_succeed_at_the_second(world: World) {
        let crowd = Crowd::default();
        let actor = crowd.clone();
        let running = world.start(App::new("crowd").actor(move || actor.clone())).await;
        let sends = (0..64_u64).map(|number| running.bus().send_key("crowd.panic", Payload::json(&number)));
        futures::future::try_join_all(sends).await.unwrap();
        assert_same(0..64, crowd.seen.reach(64).await);
    }

    async fn retries_of_shared_handlers_and_a_writer_on_another_lane_do_not_wait_for_each_other(world: World) {
        let crowd = Crowd::default();
        let actor = crowd.clone();
        let running = world.start(App::new("crowd").actor(move || actor.clone())).await;
        let sends = (0..64_u64).map(|number| running.bus().send_key("crowd.fail", Payload::json(&number)));
        futures::future::try_join_all(sends).await.unwrap();
        for number in 0..10_u64 {
            assert_eq!(running.bus().request_key::<u64>("crowd.ask", Payload::json(&number)).await.unwrap(), number);
        }
        assert_same(0..64, crowd.seen.reach(64).await);
    }

    async fn two_actors_that_ask_because_of_one_event_get_their_own_answers(world: World) {
        let (first, second) = (First::default(), Second::default());
        let (one, two) = (first.clone(), second.clone());
        let app = App::new("answering").actor(Answering::default).arbiter("a").actor(move || one.clone()).arbiter("a");
        let running = world.start(app.actor(move || two.clone()).arbiter("a")).await;
        running.bus().publish_key("answering.happened", Payload::json(&1_u64)).await.unwrap();
        assert_eq!(first.seen.reach(1).await, ["one"]);
        assert_eq!(second.seen.reach(1).await, ["two"]);
    }

    async fn a_second_request_with_the_id_of_an_open_one_is_refused(world: World) {
        let running = world.start(App::new("sink").actor(Sink::default)).await;
        let ask = || running.bus().request_key_with::<u64>("sink.slow", Payload::json(&1_u64), |o| o.id("same"));
        let (one, two) = tokio::join!(ask(), ask());
        assert_eq!(one.unwrap(), 1);
        assert!(matches!(two, Err(RequestError::Send(SendError::Option { option: "id", .. }))), "{two:?}");
        assert_eq!(ask().await.unwrap(), 1, "afterwards the id is free");
    }

    async fn a_handler_whose_leftovers_panic_as_they_are_dropped_does_not_stop_its_actor(world: World) {
        let dropper = Dropper::default();
        let actor = dropper.clone();
        let running = world.start(App::new("dropper").actor(move || actor.clone())).await;
        for number in 0..2_u64 {
            running.bus().send_key("dropper.go", Payload::json(&number)).await.unwrap();
        }
        assert_eq!(dropper.seen.reach(1).await, [1]);
        assert_eq!((running.stats().timed_out, running.stats().given_back), (1, 0));
    }

    async fn a_context_that_outlives_its_handler_refuses_to_send(world: World) {
        let sink = Sink::default();
        let actor = sink.clone();
        let running = world.start(App::new("sink").actor(move || actor.clone())).await;
        running.bus().send_key("sink.late", Payload::json(&1_u64)).await.unwrap();
        assert_eq!(sink.late.reach(1).await, ["Err(HandlerEnded)"]);
        assert_eq!(sink.seen.count(), 0);
    }

    async fn the_queue_of_a_tap_ends_with_it(world: World) {
        let broker = world.broker().await;
        let queue = Queue::of_connection(format!("{}.tap.x", world.names.namespace()));
        let spec = ConsumerSpec { queue, topology: Topology::default(), prefetch: 1, answers: false };
        drop(broker.consume(&spec).await.unwrap());
        eventually_async("the queue is gone", || async { broker.inspect(&spec.queue.name).await.unwrap().is_none() }).await;
    }

    async fn an_endless_time_out_is_a_long_one(world: World) {
        let running = world.start(App::new("sink").actor(Sink::default)).await;
        running.bus().send_key_with("sink.put", Payload::json(&1_u64), |o| o.timeout(Duration::MAX)).await.unwrap();
    }

    async fn headers_that_copy_messages_elsewhere_are_refused(world: World) {
        let client = world.client().await;
        let error = client.bus().send_key_with("sink.put", Payload::text("x"), |o| o.header("CC", "x")).await.unwrap_err();
        assert!(matches!(error, SendError::Option { option: "header", .. }), "{error:?}");
    }

    async fn a_foreign_message_with_headers_as_large_as_a_frame_is_dead_lettered_without_the_largest(world: World) {
        let running = world.start(App::new("sink").actor(Sink::default)).await;
        let headers = [("big", "x".repeat(90_000)), ("small", "kept".to_owned()), ("second", "y".repeat(8_000))].into_iter().collect();
        let properties = ForeignMessage { content_type: Some("application/json".into()), headers, persistent: true, ..ForeignMessage::default() };
        world.publish_foreign(&world.names.exchange(postrider::Kind::Command), "sink.put", properties, "not json").await;
        let dead = world.dead_letters("sink", 1).await;
        assert_eq!(dead[0].headers.text("small"), Some("kept"));
        assert_eq!((dead[0].headers.text("big"), dead[0].headers.text("postrider-cut-headers")), (None, Some("big")));
        eventually("it is counted", || running.stats().dead_lettered == 1).await;
    }
}

#[test]
fn a_message_that_the_broker_refuses_takes_no_other_with_it() {
    run(async {
        let world = World::rabbitmq();
        let running = world.start(App::new("sink").actor(Sink::default)).await;
        let broker = world.broker().await;
        let publisher = broker.publisher(std::sync::Arc::new(|_| {})).await.unwrap();
        let message = |number: u64, headers| {
            let foreign = ForeignMessage {
                content_type: Some("application/json".into()),
                message_id: Some(number.to_string().into()),
                headers,
                ..ForeignMessage::default()
            };
            foreign.addressed(To::key(postrider::Kind::Command, &"sink.put".into()), number.to_string())
        };
        let deadline = Instant::now() + Duration::from_secs(30);
        let publications = (0..300_u64).map(|number| {
            // RabbitMQ wants a list there, and closes the channel.
            let headers = if number == 100 { [("CC", "x")].into_iter().collect() } else { postrider::Headers::new() };
            publisher.publish(message(number, headers), deadline)
        });
        for (number, publication) in futures::future::join_all(publications).await.into_iter().enumerate() {
            match publication {
                Ok(Publication::Confirmed) => assert_ne!(number, 100),
                Err(BrokerError::Protocol { reason }) => assert_eq!(number, 100, "{reason}"),
                other => panic!("message {number}: {other:?}"),
            }
        }
        eventually("all others are handled", || running.stats().handled >= 299).await;
    });
}

/// The end of the reply consumer, or of its opening, must not hide why the channel was closed.
#[test]
fn a_message_that_the_broker_refuses_is_found_also_on_a_channel_that_listens_to_replies() {
    run(async {
        let world = World::rabbitmq();
        let _sink = world.start(App::new("sink").actor(Sink::default)).await;
        let broker = world.broker().await;
        let message = |number: u64, refused: bool, awaits_reply: bool| {
            let foreign = ForeignMessage {
                content_type: Some("application/json".into()),
                message_id: Some(number.to_string().into()),
                // RabbitMQ wants a list there, and closes the channel.
                headers: if refused { [("CC", "x")].into_iter().collect() } else { postrider::Headers::new() },
                ..ForeignMessage::default()
            };
            let to = To::key(postrider::Kind::Command, &"sink.put".into());
            let mut envelope = foreign.envelope(&to, number.to_string().into());
            envelope.reply_to = awaits_reply.then_some(ReplyTo::Caller);
            Addressed { to, ..Addressed::to_queue("", envelope) }
        };
        for round in 0..20 {
            let publisher = broker.publisher(std::sync::Arc::new(|_| {})).await.unwrap();
            let began = Instant::now();
            let deadline = began + Duration::from_secs(20);
            let publish =
                |number, refused, awaits_reply| publisher.publish(message(number, refused, awaits_reply), deadline);
            publish(0, false, round % 2 == 0).await.unwrap();
            // In every second round the request is what opens the way for replies, right behind the refused message.
            let (refused, _) = tokio::join!(publish(1, true, false), publish(2, false, true));
            assert!(matches!(refused, Err(BrokerError::Protocol { .. })), "round {round}: {refused:?}");
            assert!(began.elapsed() < Duration::from_secs(10), "round {round}: {:?}", began.elapsed());
        }
    });
}

#[test]
fn a_hasty_caller_does_not_disturb_the_requests_of_others() {
    run(async {
        let world = World::rabbitmq();
        let _sink = world.start(App::new("sink").actor(Sink::default)).await;
        let client = world.client().await;
        let slow = client.bus().request_key::<u64>("sink.slow", Payload::json(&1_u64));
        let hasty = async {
            for number in 0..200_u64 {
                // Whether one microsecond was enough is not the question.
                let _ = client
                    .bus()
                    .send_key_with("sink.put", Payload::json(&number), |o| o.timeout(Duration::from_micros(1)))
                    .await;
            }
        };
        let (slow, ()) = tokio::join!(slow, hasty);
        assert_eq!(slow.unwrap(), 1);
    });
}
