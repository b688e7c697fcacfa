//! Messages of clients in other languages.

use std::sync::Arc;

use postrider::broker::Properties;
use postrider::{App, Context, Failure, Headers, Value, distributed};
use postrider_tests::on_both_brokers;
use postrider_tests::world::{Seen, World, eventually, eventually_async};
use tokio::sync::Semaphore;

/// Properties of a foreign client: a media type and headers.
fn foreign(media_type: &str, headers: impl IntoIterator<Item = (&'static str, Value)>) -> Properties {
    let headers: Headers = headers.into_iter().collect();
    Properties { content_type: Some(media_type.to_owned().into()), headers, ..Properties::default() }
}

/// Sends as a foreign client to the exchange of commands.
async fn command(world: &World, key: &str, properties: Properties, payload: impl Into<postrider::Bytes>) {
    let exchange = world.names.exchange(postrider::Kind::Command);
    world.publish_foreign(&exchange, key, properties, payload).await;
}

/// Its handler fails for `no`.
#[derive(Clone, Default)]
struct Once(Seen<(String, u32)>);

#[distributed(service = "once", retry = "none")]
impl Once {
    #[distributed(command = "once.do")]
    async fn handle(&self, what: String, cx: &Context) -> Result<(), Failure> {
        self.0.add((what.clone(), cx.attempt()));
        if what == "no" { Err(Failure::transient("no")) } else { Ok(()) }
    }
}

#[derive(Clone, Default)]
struct Strict(Seen<(String, u32)>);

#[distributed(service = "strict", ordered)]
impl Strict {
    #[distributed(command = "strict.do")]
    async fn handle(&mut self, what: String, cx: &Context) {
        self.0.add((what, cx.attempt()));
    }
}

fn app<A: postrider::private::Actor + Clone + Send + Sync>(name: &str, actor: &A) -> App {
    let actor = actor.clone();
    App::new(name).actor(move || actor.clone())
}

on_both_brokers! {
    async fn a_forged_delivery_count_is_not_believed(world: World) {
        let (once, strict) = (Once::default(), Strict::default());
        let (first, second) = (world.start(app("once", &once)).await, world.start(app("strict", &strict)).await);
        let counts = [Value::from(20_i32), "20".into(), Value::from(-1_i64), Value::from(1_i64 << 40), Value::from(20_u8)];
        for count in counts.clone() {
            for key in ["once.do", "strict.do"] {
                let headers = [("x-delivery-count", count.clone()), ("x-acquired-count", count.clone()), ("x-death", vec![count.clone()].into())];
                command(&world, key, foreign("text/plain", headers), "it").await;
            }
        }
        let all = vec![("it".to_owned(), 1); counts.len()];
        assert_eq!((once.0.reach(all.len()).await, strict.0.reach(all.len()).await), (all.clone(), all));
        eventually("they are settled", || first.stats().in_flight + second.stats().in_flight == 0).await;
        assert_eq!((first.stats().dead_lettered, second.stats().dead_lettered), (0, 0));
    }

    async fn a_forged_attempt_is_not_believed_of_what_comes_straight_from_its_sender(world: World) {
        let once = Once::default();
        let running = world.start(app("once", &once)).await;
        for attempt in [Value::from(7_i32), Value::from(u32::MAX), Value::from(-3_i64), "9".into()] {
            let forged = [("postrider-attempt", attempt), ("postrider-first-error", "a lie".into())];
            command(&world, "once.do", foreign("text/plain", forged), "no").await;
        }
        for letter in world.dead_letters("once", 4).await {
            let says = |name: &str| letter.headers.get(name).cloned();
            assert_eq!(says("postrider-dead-attempts"), Some(Value::I64(1)));
            assert_eq!(says("postrider-dead-first-error"), says("postrider-dead-error").map(|_| "transient: no".into()));
        }
        assert!(once.0.all().iter().all(|(_, attempt)| *attempt == 1), "{:?}", once.0.all());
        running.stop().await;
    }
}

/// Its handlers wait until they may end.
#[derive(Clone)]
struct Slow {
    seen: Seen<(String, u32)>,
    gate: Arc<Semaphore>,
}

impl Default for Slow {
    fn default() -> Self {
        Self { seen: Seen::default(), gate: Arc::new(Semaphore::new(0)) }
    }
}

#[distributed(service = "slow")]
impl Slow {
    #[distributed(command = "slow.shared")]
    async fn shared(&self, what: String, cx: &Context) {
        self.seen.add((what, cx.attempt()));
        self.gate.acquire().await.unwrap().forget();
    }

    #[distributed(command = "slow.alone")]
    async fn alone(&mut self, what: String, cx: &Context) {
        self.seen.add((what, cx.attempt()));
        self.gate.acquire().await.unwrap().forget();
    }
}

mod without_an_id {
    use super::*;

    /// The channel of the actor's deliveries closes, and everything is delivered again.
    async fn lose_all(running: &postrider::Running, joined: u64) {
        running.restart("slow").unwrap();
        eventually("the redeliveries wait for the runs", || running.stats().joined == joined).await;
    }

    on_both_brokers! {
        async fn a_redelivery_joins_its_run_and_is_charged_to_nobody(world: World) {
            let slow = Slow::default();
            let running = world.start(app("slow", &slow)).await;
            command(&world, "slow.alone", foreign("text/plain", []), "first").await;
            slow.seen.reach(1).await;
            command(&world, "slow.alone", foreign("text/plain", []), "waits beside it").await;
            let queue = world.names.queue("slow", None);
            for _ in 0..4 {
                let opened = running.stats().consumers_opened;
                running.restart("slow").unwrap();
                eventually("it consumes again", || running.stats().consumers_opened > opened && running.health().ready).await;
                eventually_async("both are delivered again", || async { world.ready(&queue).await == Some(0) }).await;
            }
            slow.gate.add_permits(2);
            assert_eq!(slow.seen.reach(2).await, [("first".to_owned(), 1), ("waits beside it".to_owned(), 1)]);
            eventually("both are settled", || running.stats().in_flight == 0).await;
            eventually_async("nothing waits", || async { world.ready(&queue).await == Some(0) }).await;
            assert_eq!((slow.seen.count(), running.stats().handled, running.stats().dead_lettered), (2, 2, 0));
            running.stop().await;
            assert_eq!(world.ready(&queue).await, Some(0));
        }

        async fn messages_that_are_the_same_to_the_byte_are_all_handled(world: World) {
            let slow = Slow::default();
            let running = world.start(app("slow", &slow)).await;
            for _ in 0..3 {
                command(&world, "slow.shared", foreign("text/plain", [("tenant", "acme".into())]), "it").await;
            }
            slow.seen.reach(3).await;
            lose_all(&running, 3).await;
            lose_all(&running, 6).await;
            command(&world, "slow.shared", foreign("text/plain", [("tenant", "acme".into())]), "it").await;
            slow.seen.reach(4).await;
            slow.gate.add_permits(4);
            eventually("all are settled", || running.stats().in_flight == 0).await;
            running.stop().await;
            assert_eq!((slow.seen.count(), world.ready(&world.names.queue("slow", None)).await), (4, Some(0)));
        }
    }
}
