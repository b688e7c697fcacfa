//! Messages that are fired: they cost less, say less, and are as safe as all others once a service takes them.

use std::time::Duration;

use postrider::operate::{DeadFilter, DeadLetters, Replay};
use postrider::{App, Command, Context, Event, Failure, Payload, RequestError, SendError, distributed};
use postrider_tests::world::{Seen, eventually};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, Command)]
#[message(key = "meter.read", reply = u64, fire)]
struct Read(u64);

#[derive(Serialize, Deserialize, Event)]
#[message(key = "meter.moved", fire)]
struct Moved(u64);

#[derive(Clone, Default)]
struct Meter {
    seen: Seen<String>,
}

#[distributed(service = "meter", retry = "1 then 200ms")]
impl Meter {
    #[distributed(command = "meter.read")]
    async fn read(&self, read: Read, cx: &Context) -> Result<u64, Failure> {
        self.seen.add(format!("{} from {:?} at {}", read.0, cx.sender().map(ToString::to_string), cx.attempt()));
        match read.0 {
            3 if cx.attempt() == 1 => return Err(Failure::transient("not yet")),
            4 if cx.header("postrider-replayed").is_none() => {
                return Err(Failure::permanent("the meter is gone"));
            }
            _ => {}
        }
        cx.publish(&Moved(read.0))?;
        Ok(read.0)
    }

    #[distributed(event = "meter.*")]
    async fn moved(&self, moved: Moved, cx: &Context) {
        let because = cx.envelope().causation_id.is_some();
        self.seen.add(format!(
            "moved {} ({})",
            moved.0,
            if because { "because of a message" } else { "out of the blue" }
        ));
    }
}

/// Hears events on every instance.
#[derive(Clone, Default)]
struct Bell(Seen<u64>);

#[distributed(service = "bell")]
impl Bell {
    #[distributed(event = "bell.rings", scope = "instance")]
    async fn rings(&self, number: u64) {
        self.0.add(number);
    }
}

on_both_brokers! {
    async fn a_fired_message_is_handled_tried_again_and_replayed_like_any_other(world: World) {
        let meter = Meter::default();
        let handles = meter.clone();
        let running = world.start(App::new("meter").actor(move || handles.clone())).await;
        let client = world.client().await;
        let bus = client.bus();
        bus.send(&Read(1)).await.unwrap();
        bus.send_key_with("meter.read", Payload::msgpack(&Read(2)), |o| o.fire()).await.unwrap();
        eventually("two are read, and have moved", || running.stats().handled == 4).await;
        bus.send(&Read(3)).await.unwrap();
        eventually("a delayed attempt succeeds", || running.stats().handled == 6).await;
        bus.send_with(&Read(5), |o| o.delay(Duration::from_millis(150))).await.unwrap();
        eventually("a delayed one comes", || running.stats().handled == 8).await;
        let mut expected = vec![
            "1 from None at 1", "2 from None at 1", "3 from None at 1", "3 from None at 2", "5 from None at 1",
            "moved 1 (because of a message)", "moved 2 (because of a message)", "moved 3 (because of a message)",
            "moved 5 (because of a message)",
        ];
        expected.sort_unstable();
        let mut seen = meter.seen.all();
        seen.sort();
        assert_eq!(seen, expected);

        bus.send_with(&Read(4), |o| o.id("four")).await.unwrap();
        eventually("it is given up", || running.stats().dead_lettered == 1).await;
        let letters = DeadLetters::new(bus);
        let list = letters.list(&DeadFilter::default()).await.unwrap();
        assert_eq!((list[0].id(), list[0].key()), ("four", "meter.read"));
        letters.replay(&DeadFilter::id("four"), &Replay::default()).await.unwrap();
        eventually("it is read when it is replayed", || running.stats().handled == 10).await;
        client.stop().await;
        running.stop().await;
    }

    async fn nobody_is_told_that_no_service_takes_a_fired_message(world: World) {
        let client = world.client().await;
        let bus = client.bus();
        let nobody = bus.send_with(&Read(1), |o| o).await;
        assert!(nobody.is_ok(), "{nobody:?}");
        let missed = bus.send_key("meter.read", Payload::msgpack(&Read(1))).await;
        assert!(matches!(missed, Err(SendError::Unroutable { .. })), "{missed:?}");
        let unrouted = client.stats().unrouted;
        bus.publish_with(&Moved(1), |o| o.as_owner()).await.unwrap();
        assert_eq!(client.stats().unrouted, unrouted, "nor is it counted");
        client.stop().await;
    }

    async fn who_fires_an_event_may_skip_itself_and_no_other_instance(world: World) {
        let (one, other) = (Bell::default(), Bell::default());
        let (first, second) = (one.clone(), other.clone());
        let sender = world.start(App::new("bell").actor(move || first.clone())).await;
        let hears = world.start(App::new("bell").actor(move || second.clone())).await;
        let bus = sender.bus();
        bus.publish_key_with("bell.rings", Payload::json(&1_u64), |o| o.skip_sender().fire()).await.unwrap();
        bus.publish_key_with("bell.rings", Payload::json(&2_u64), |o| o.fire()).await.unwrap();
        assert_eq!(other.0.reach(2).await, [1, 2]);
        assert_eq!(one.0.reach(1).await, [2]);
        hears.stop().await;
        sender.stop().await;
    }

    async fn a_hook_that_fires_a_request_changes_nothing(world: World) {
        let app = App::new("client").before_send(|envelope| {
            envelope.fire = true;
            Ok(())
        });
        let client = world.start(app).await;
        let nobody = client.bus().request_key::<u64>("nobody.there", Payload::json(&())).await;
        assert!(matches!(nobody, Err(RequestError::Send(SendError::Unroutable { .. }))), "{nobody:?}");
        client.stop().await;
    }

    async fn a_request_is_not_fired(world: World) {
        let meter = Meter::default();
        let running = world.start(App::new("meter").actor(move || meter.clone())).await;
        let client = world.client().await;
        let bus = client.bus();
        let refused = bus.request_key_with::<u64>("meter.read", Payload::msgpack(&Read(1)), |o| o.fire()).await;
        let Err(RequestError::Send(error @ SendError::Option { option: "fire", .. })) = refused else {
            panic!("{refused:?}")
        };
        assert!(error.to_string().contains("send it one way"), "{error}");
        // Its contract says how it is sent where nobody waits.
        bus.request(&Read(2)).await.unwrap();
        client.stop().await;
        running.stop().await;
    }
}
