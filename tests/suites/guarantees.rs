//! What each guarantee promises.

use std::sync::Arc;

use postrider::{App, Failure, Payload, distributed};
use postrider_tests::world::{Seen, eventually};
use tokio::sync::Semaphore;

#[derive(Clone)]
struct Once {
    seen: Seen<String>,
    gate: Arc<Semaphore>,
}

impl Default for Once {
    fn default() -> Self {
        Self { seen: Seen::default(), gate: Arc::new(Semaphore::new(0)) }
    }
}

#[distributed(service = "once", guarantee = "at_most_once", prefetch = 5)]
impl Once {
    #[distributed(command = "once.measure")]
    async fn measure(&mut self, text: String) -> Result<(), Failure> {
        self.seen.add(text);
        self.gate.acquire().await?.forget();
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Ordered {
    seen: Seen<String>,
}

#[distributed(service = "ordered", ordered = true)]
impl Ordered {
    #[distributed(command = "ordered.step")]
    async fn step(&self, number: u64, cx: &postrider::Context) -> Result<(), Failure> {
        self.seen.add(format!("{number} {}", cx.attempt()));
        cx.publish_key("ordered.stepped", Payload::msgpack(&number))?;
        if number % 10 == 3 && cx.attempt() < 3 { Err(Failure::transient("not yet")) } else { Ok(()) }
    }
}

#[derive(Clone, Default)]
struct Slow {
    seen: Seen<String>,
}

#[distributed(service = "slow", ordered = true)]
impl Slow {
    #[distributed(command = "slow.step")]
    async fn step(&self, number: u64) {
        self.seen.add(format!("{number} begins"));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        self.seen.add(format!("{number} ends"));
    }
}

on_both_brokers! {
    async fn at_most_once_acknowledges_on_receipt_and_stays_bounded(world: World) {
        let once = Once::default();
        let actor = once.clone();
        let running = world.start(App::new("once").actor(move || actor.clone())).await;
        for number in 0..20 {
            running.bus().send_key("once.measure", Payload::text(number.to_string())).await.unwrap();
        }
        eventually("five are held, acknowledged", || running.stats().in_flight == 5 && once.seen.count() == 1).await;
        let queue = world.names.queue("once", None);
        // What is held is gone from the broker, so that an orderly stop handles it: only a crash would cost it.
        let (report, ()) = tokio::join!(running.stop(), async {
            eventually("it has begun to stop", || !running.health().ready).await;
            once.gate.add_permits(5);
        });
        assert_eq!((report.given_back, report.abandoned), (0, false), "{report:?}");
        assert_eq!(once.seen.all(), ["0", "1", "2", "3", "4"]);
        assert_eq!(world.ready(&queue).await, Some(15));
    }

    async fn an_ordered_actor_keeps_the_queues_order_over_retries_and_instances(world: World) {
        let ordered = Ordered::default();
        let app = |actor: Ordered| App::new("ordered").actor(move || actor.clone());
        let first = world.start(app(ordered.clone())).await;
        let second = world.start(app(ordered.clone())).await;
        for number in 0..50_u64 {
            first.bus().send_key("ordered.step", Payload::msgpack(&number)).await.unwrap();
        }
        eventually("all are handled", || first.stats().handled + second.stats().handled == 50).await;
        let expected: Vec<String> = (0..50)
            .flat_map(|number| (1..=if number % 10 == 3 { 3 } else { 1 }).map(move |attempt| format!("{number} {attempt}")))
            .collect();
        assert_eq!(ordered.seen.all(), expected);
        assert!(first.stats().handled == 0 || second.stats().handled == 0, "one instance is active");
    }

    /// T73
    async fn the_next_instance_of_an_ordered_actor_takes_over_without_an_overlap(world: World) {
        let slow = Slow::default();
        let app = |actor: Slow| App::new("slow").actor(move || actor.clone());
        let (first, second) = (world.start(app(slow.clone())).await, world.start(app(slow.clone())).await);
        for number in 0..60_u64 {
            first.bus().send_key("slow.step", Payload::msgpack(&number)).await.unwrap();
        }
        slow.seen.reach(20).await;
        let (active, standby) = if first.stats().handled > 0 { (first, second) } else { (second, first) };
        assert_eq!(standby.stats().handled, 0, "one instance is active");
        active.stop().await;
        let seen = slow.seen.reach(120).await;
        let expected: Vec<String> = (0..60).flat_map(|number| [format!("{number} begins"), format!("{number} ends")]).collect();
        assert_eq!(seen, expected, "each once, one after the other, in order");
        assert!(standby.stats().handled > 0, "the other one has taken over");
    }
}
