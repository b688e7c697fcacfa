//! What happens when handlers fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postrider::{App, Context, Failure, Payload, distributed};
use postrider_tests::world::{Seen, assert_same, eventually};

#[derive(Clone, Default)]
struct Shared {
    seen: Seen<String>,
    built: Arc<AtomicU64>,
}

/// Counts what this state has handled since it was made.
struct Alpha {
    shared: Shared,
    since_made: u64,
}

impl Shared {
    fn app(&self) -> App {
        let shared = self.clone();
        let make = move || {
            shared.built.fetch_add(1, Ordering::SeqCst);
            Alpha { shared: shared.clone(), since_made: 0 }
        };
        App::new("alpha").actor(make).configure(|config| config.retry.pause = Duration::from_millis(5))
    }
}

#[distributed(service = "alpha", timeout = "500ms")]
impl Alpha {
    #[distributed(command = "alpha.do")]
    async fn act(&mut self, what: String, cx: &Context) -> Result<u64, Failure> {
        self.since_made += 1;
        self.shared.seen.add(format!("{what} {}", cx.attempt()));
        cx.send_key("alpha.echo", Payload::text(format!("from {what}")))?;
        match what.as_str() {
            "panic" => panic!("on purpose"),
            "hang" => std::future::pending().await,
            "transient" => Err(Failure::transient("not now")),
            "permanent" => Err(Failure::permanent("never")),
            "rejected" => Err(Failure::rejected("no", "we do not do that")),
            "second-time" if cx.attempt() == 1 => Err(Failure::transient("once more")),
            _ => Ok(self.since_made),
        }
    }

    #[distributed(command = "alpha.shared")]
    async fn shared(&self, what: String) {
        assert!(what != "panic", "on purpose");
        self.shared.seen.add(what);
    }

    #[distributed(command = "alpha.echo")]
    async fn echo(&self, text: String) {
        self.shared.seen.add(text);
    }

    #[distributed(command = "alpha.forward")]
    async fn forward(&self, key: String, cx: &Context) -> Result<(), Failure> {
        self.shared.seen.add(format!("forward {}", cx.attempt()));
        cx.send_key(&key, Payload::text("onward"))?;
        Ok(())
    }
}

on_both_brokers! {
    /// T25 and T164
    async fn a_panic_is_a_failed_attempt_and_the_actor_serves_the_next_message(world: World) {
        let shared = Shared::default();
        let running = world.start(shared.app()).await;
        let bus = running.bus();
        bus.send_key("alpha.do", Payload::text("fine")).await.unwrap();
        bus.send_key("alpha.do", Payload::text("panic")).await.unwrap();
        let since_made: u64 = bus.request_key("alpha.do", Payload::text("after")).await.unwrap();
        assert_eq!(since_made, 1, "the state was made again");
        assert_eq!(shared.built.load(Ordering::SeqCst), 4, "once at the start and after each of three panics");
        assert_eq!(running.stats().panicked, 3);
        let dead = world.dead_letters("alpha", 1).await;
        assert_eq!(dead[0].headers.text("postrider-dead-reason"), Some("panic"));
        assert!(dead[0].headers.text("postrider-dead-error").unwrap().contains("on purpose"));
        assert_eq!(dead[0].headers.get("postrider-dead-attempts").and_then(postrider::Value::as_integer), Some(3));
        bus.send_key("alpha.shared", Payload::text("panic")).await.unwrap();
        bus.send_key("alpha.shared", Payload::text("still here")).await.unwrap();
        eventually("the shared handler goes on", || shared.seen.all().contains(&"still here".to_owned())).await;
    }

    /// T24, until delayed retries exist: three attempts in place, then the dead-letter queue.
    async fn a_failing_message_is_tried_three_times_in_order_and_then_dead_lettered(world: World) {
        let shared = Shared::default();
        let running = world.start(shared.app()).await;
        for what in ["transient", "second-time", "fine"] {
            running.bus().send_key("alpha.do", Payload::text(what)).await.unwrap();
        }
        eventually("all are settled", || running.stats().dead_lettered == 1 && running.stats().handled == 4).await;
        let acts: Vec<String> = shared.seen.all().into_iter().filter(|text| !text.starts_with("from")).collect();
        assert_eq!(acts, ["transient 1", "transient 2", "transient 3", "second-time 1", "second-time 2", "fine 1"]);
        assert_same(["from second-time", "from fine"].map(str::to_owned), shared.seen.all().into_iter().filter(|text| text.starts_with("from")));
        assert_eq!(running.stats().retried, 3);
        let dead = world.dead_letters("alpha", 1).await;
        assert_eq!(&dead[0].payload[..], b"transient");
        assert_eq!(dead[0].headers.text("postrider-dead-error"), Some("not now"));
        assert_eq!(dead[0].headers.text("postrider-dead-handler"), Some("act"));
    }

    async fn rejected_and_permanent_failures_are_not_repeated(world: World) {
        let shared = Shared::default();
        let running = world.start(shared.app()).await;
        for what in ["rejected", "permanent"] {
            running.bus().send_key("alpha.do", Payload::text(what)).await.unwrap();
        }
        let dead = world.dead_letters("alpha", 2).await;
        assert_same(["rejected", "permanent"].map(str::to_owned), dead.iter().filter_map(|d| d.headers.text("postrider-dead-reason")).map(str::to_owned));
        assert_same(["rejected 1", "permanent 1"].map(str::to_owned), shared.seen.all());
        // With an awaited reply a rejection is an answer and no dead letter.
        running.bus().request_key::<u64>("alpha.do", Payload::text("rejected")).await.unwrap_err();
        eventually("both are counted", || running.stats().dead_lettered == 2).await;
    }

    /// T26
    async fn a_handler_that_never_ends_is_dropped_in_time_and_its_state_made_again(world: World) {
        let shared = Shared::default();
        let running = world.start(shared.app()).await;
        running.bus().send_key("alpha.do", Payload::text("hang")).await.unwrap();
        let since_made: u64 = running.bus().request_key("alpha.do", Payload::text("after")).await.unwrap();
        assert_eq!((since_made, running.stats().timed_out), (1, 3));
        let dead = world.dead_letters("alpha", 1).await;
        assert_eq!(dead[0].headers.text("postrider-dead-reason"), Some("timed_out"));
    }

    async fn what_a_failed_handler_wanted_to_send_never_leaves(world: World) {
        let shared = Shared::default();
        let running = world.start(shared.app()).await;
        running.bus().send_key("alpha.do", Payload::text("permanent")).await.unwrap();
        running.bus().send_key("alpha.do", Payload::text("fine")).await.unwrap();
        eventually("all are settled", || running.stats().dead_lettered == 1 && running.stats().handled == 2).await;
        assert!(!shared.seen.all().contains(&"from permanent".to_owned()), "{:?}", shared.seen.all());
    }

    async fn an_unroutable_message_of_a_handler_is_a_transient_failure(world: World) {
        let shared = Shared::default();
        let running = world.start(shared.app()).await;
        running.bus().send_key("alpha.forward", Payload::text("nobody.there")).await.unwrap();
        let dead = world.dead_letters("alpha", 1).await;
        assert_eq!(dead[0].headers.text("postrider-dead-reason"), Some("transient"));
        assert!(dead[0].headers.text("postrider-dead-error").unwrap().contains("nobody.there"));
        assert_eq!(shared.seen.all(), ["forward 1", "forward 2", "forward 3"]);
        assert_eq!(running.stats().failed_transient, 3);
    }
}
