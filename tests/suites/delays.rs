//! Messages and attempts that are put off: never early, in nobody's way, and kept whatever stops meanwhile.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use postrider::broker::Queue;
use postrider::operate::{DeadFilter, DeadLetters, Replay};
use postrider::testing::TestApp;
use postrider::{App, Context, Failure, Kind, Payload, Retry, SendError, distributed};
use postrider_tests::node::Node;
use postrider_tests::world::{Seen, World, assert_same, eventually, run};

/// When what was seen.
#[derive(Clone, Default)]
struct Clock(Arc<Mutex<Vec<(String, Instant)>>>);

impl Clock {
    fn note(&self, what: String) {
        self.0.lock().unwrap().push((what, Instant::now()));
    }

    fn at(&self, what: &str) -> Option<Instant> {
        self.0.lock().unwrap().iter().find(|(seen, _)| seen == what).map(|(_, at)| *at)
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(|(what, _)| what.clone()).collect()
    }
}

#[derive(Clone, Default)]
struct Alpha {
    clock: Clock,
    seen: Seen<String>,
}

impl Alpha {
    fn app(&self) -> App {
        let alpha = self.clone();
        App::new("alpha").actor(move || alpha.clone()).configure(|config| config.retry.pause = Duration::from_millis(5))
    }
}

#[distributed(service = "alpha", retry = "2 then 200ms, 400ms")]
impl Alpha {
    #[distributed(command = "alpha.note")]
    async fn note(&self, what: String) {
        self.clock.note(what);
    }

    #[distributed(event = "alpha.happened")]
    async fn happened(&self, what: String, cx: &Context) {
        let envelope = cx.envelope();
        let headers: Vec<&str> =
            envelope.headers.iter().map(|(name, _)| name).filter(|name| name.starts_with('x')).collect();
        self.seen.add(format!(
            "{what} {} {:?} {:?} {headers:?}",
            envelope.id,
            envelope.headers.text("tenant"),
            envelope.expiration
        ));
    }

    #[distributed(channel = "inlet")]
    async fn inlet(&self, what: String) {
        self.clock.note(what);
    }

    #[distributed(command = "alpha.outer")]
    async fn outer(&self, what: String, cx: &Context) -> Result<(), Failure> {
        self.clock.note(what);
        cx.send_key("alpha.note", Payload::text("inner"))?;
        Ok(())
    }

    #[distributed(command = "alpha.fail")]
    async fn fail(&self, what: String, cx: &Context) -> Result<(), Failure> {
        self.clock.note(format!("{what} {}", cx.attempt()));
        Err(Failure::transient(format!("attempt {} failed", cx.attempt())))
    }

    #[distributed(command = "alpha.targets")]
    async fn targets(&self, what: String, cx: &Context) -> Result<(), Failure> {
        let target = cx.envelope().target.as_ref().map(|name| name.as_str());
        self.seen.add(format!("{what} {} {target:?}", cx.attempt()));
        Err(Failure::transient("no"))
    }

    #[distributed(command = "alpha.once", retry = "none")]
    async fn once(&self, what: String) -> Result<(), Failure> {
        self.seen.add(what);
        Err(Failure::transient("no"))
    }

    #[distributed(command = "alpha.touchy", give_up = ["panic"], discard = ["panic", "rejected"])]
    async fn touchy(&self, what: String, cx: &Context) -> Result<(), Failure> {
        self.seen.add(format!("{what} {}", cx.attempt()));
        match what.as_str() {
            "panic" => panic!("on purpose"),
            "rejected" => Err(Failure::rejected("no", "no")),
            _ => Err(Failure::permanent("never")),
        }
    }
}

on_both_brokers! {
    async fn a_message_for_a_service_is_for_it_in_every_attempt_and_when_it_is_replayed(world: World) {
        let alpha = Alpha::default();
        let app = alpha.app().configure(|config| config.retry = "2 then 100ms, 100ms".parse().unwrap());
        let running = world.start(app).await;
        running.bus().send_to("alpha", "alpha.targets", Payload::text("it")).await.unwrap();
        let of_target = |attempt| format!("it {attempt} Some(\"alpha\")");
        assert_eq!(alpha.seen.reach(4).await, (1..=4).map(of_target).collect::<Vec<_>>());
        eventually("it is given up", || running.stats().dead_lettered == 1).await;
        let letters = DeadLetters::new(running.bus());
        let mut filter = DeadFilter::all();
        filter.key = Some("alpha.targets".into());
        assert_eq!(letters.list(&filter).await.unwrap()[0].key(), "alpha:alpha.targets");
        assert_eq!(letters.replay(&filter, &Replay::default()).await.unwrap().replayed, 1);
        assert_eq!(alpha.seen.reach(5).await[4], of_target(1));
    }

    /// T108
    async fn a_delayed_message_is_never_early_and_holds_up_no_shorter_one(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let bus = running.bus();
        let mut sent = Vec::new();
        for millis in [1_500, 700, 250] {
            let delay = Duration::from_millis(millis);
            sent.push((millis.to_string(), delay, Instant::now()));
            bus.send_key_with("alpha.note", Payload::text(millis.to_string()), |o| o.delay(delay)).await.unwrap();
        }
        let past = SystemTime::now() - Duration::from_secs(5);
        bus.send_key_with("alpha.note", Payload::text("past"), |o| o.deliver_at(past)).await.unwrap();
        eventually("all have arrived", || alpha.clock.all().len() == 4).await;
        assert_eq!(alpha.clock.all(), ["past", "250", "700", "1500"]);
        for (what, delay, at) in sent {
            let took = alpha.clock.at(&what).unwrap() - at;
            assert!(took >= delay, "{what} took only {took:?}");
        }
        eventually("they are counted", || running.stats().due == 3).await;
    }

    async fn a_delayed_message_keeps_its_id_headers_target_and_expiration(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let delay = Duration::from_millis(200);
        let id = running.bus().publish_key_with("alpha.happened", Payload::text("it"), |o| {
            o.delay(delay).header("tenant", "acme").expiration(Duration::from_secs(30))
        }).await.unwrap();
        running.bus().send_channel_with("alpha", "inlet", Payload::text("in"), |o| o.delay(delay)).await.unwrap();
        running.bus().send_to_with("alpha", "alpha.note", Payload::text("to"), |o| o.delay(delay)).await.unwrap();
        let seen = alpha.seen.reach(1).await;
        assert_eq!(seen, [format!("it {id} Some(\"acme\") Some(30s) []")]);
        eventually("the others arrive", || alpha.clock.all().len() == 2).await;
        assert_same(["in", "to"].map(str::to_owned), alpha.clock.all());
    }

    /// T109
    async fn a_delay_does_not_leak_to_what_the_handler_sends(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let delay = Duration::from_millis(800);
        running.bus().send_key_with("alpha.outer", Payload::text("outer"), |o| o.delay(delay)).await.unwrap();
        eventually("both have arrived", || alpha.clock.all().len() == 2).await;
        let between = alpha.clock.at("inner").unwrap() - alpha.clock.at("outer").unwrap();
        assert!(between < delay, "the inner message took {between:?}");
        assert_eq!(running.stats().due, 1, "only the outer one was delayed");
    }

    /// T53 and T54: two in place, one after each delay; exact across deliveries.
    async fn a_failing_message_is_tried_after_its_delays_and_then_dead_lettered_with_first_and_last_error(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        running.bus().send_key_with("alpha.fail", Payload::text("it"), |o| o.header("tenant", "acme")).await.unwrap();
        let dead = world.dead_letters("alpha", 1).await.remove(0);
        assert_eq!(alpha.clock.all(), ["it 1", "it 2", "it 3", "it 4"]);
        let at = |number: u32| alpha.clock.at(&format!("it {number}")).unwrap();
        assert!(at(3) - at(2) >= Duration::from_millis(200) && at(4) - at(3) >= Duration::from_millis(400));
        assert_eq!(dead.headers.text("postrider-dead-first-error"), Some("transient: attempt 1 failed"));
        assert_eq!(dead.headers.text("postrider-dead-error"), Some("attempt 4 failed"));
        assert_eq!(dead.headers.get("postrider-dead-attempts").and_then(postrider::Value::as_integer), Some(4));
        assert_eq!((dead.headers.text("tenant"), dead.headers.text("postrider-dead-handler")), (Some("acme"), Some("fail")));
        assert_eq!((dead.kind, dead.key.as_str(), &dead.payload[..]), (Kind::Command, "alpha.fail", &b"it"[..]));
        assert!(dead.headers.iter().all(|(name, _)| !name.starts_with("x-")), "{:?}", dead.headers);
        eventually("it is counted", || running.stats().dead_lettered == 1).await;
        assert_eq!((running.stats().delayed, running.stats().due), (2, 0), "a retry comes back to its own queue");
    }

    /// T58
    async fn a_poisoned_message_among_a_thousand_holds_up_nobody(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        for number in 0..1_000 {
            let key = if number == 300 { "alpha.fail" } else { "alpha.note" };
            running.bus().send_key(key, Payload::text(number.to_string())).await.unwrap();
        }
        world.dead_letters("alpha", 1).await;
        eventually("all others are handled", || running.stats().handled == 999).await;
        let handled = alpha.clock.all().into_iter().filter(|what| !what.contains(' '));
        assert_same((0..1_000).filter(|number| *number != 300).map(|number| number.to_string()), handled);
    }

    /// T55: with one policy per kind of failure they run once, once and once; others as the block says.
    async fn policies_of_handlers_and_failures_decide_between_retry_dead_letter_and_discard(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        for what in ["panic", "rejected", "permanent"] {
            running.bus().send_key("alpha.touchy", Payload::text(what)).await.unwrap();
        }
        running.bus().send_key("alpha.once", Payload::text("once")).await.unwrap();
        let dead = world.dead_letters("alpha", 2).await;
        assert_same(["permanent", "transient"], dead.iter().filter_map(|dead| dead.headers.text("postrider-dead-reason")));
        eventually("two are discarded", || running.stats().discarded == 2).await;
        assert_same(["panic 1", "rejected 1", "permanent 1", "once"].map(str::to_owned), alpha.seen.all());
    }

    async fn the_configuration_replaces_the_plan_of_an_actor_but_not_of_a_handler(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app().configure(|config| {
            config.actors.entry("alpha".into()).or_default().retry = Some("3".parse().unwrap());
        })).await;
        running.bus().send_key("alpha.fail", Payload::text("it")).await.unwrap();
        running.bus().send_key("alpha.once", Payload::text("once")).await.unwrap();
        world.dead_letters("alpha", 2).await;
        assert_eq!((alpha.clock.all(), alpha.seen.all()), (["it 1", "it 2", "it 3"].map(str::to_owned).to_vec(), vec!["once".to_owned()]));
    }

    /// T57
    async fn a_delayed_attempt_comes_also_when_its_service_was_away_meanwhile(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        running.bus().send_key("alpha.fail", Payload::text("it")).await.unwrap();
        eventually("it is put aside", || running.stats().delayed == 1).await;
        running.stop().await;
        let before = alpha.clock.all().len();
        let running = world.start(alpha.app()).await;
        eventually("it comes back", || alpha.clock.all().len() > before).await;
        assert_eq!(alpha.clock.all()[2], "it 3");
        running.stop().await;
    }

    async fn a_delayed_command_waits_for_an_owner_that_starts_late(world: World) {
        let client = world.start(App::new("client").configure(|config| config.skew.pause = Duration::from_millis(300))).await;
        client.bus().send_key_with("alpha.note", Payload::text("early"), |o| o.delay(Duration::from_millis(100))).await.unwrap();
        let alpha = Alpha::default();
        tokio::time::sleep(Duration::from_millis(400)).await;
        let running = world.start(alpha.app()).await;
        eventually("it arrives", || alpha.clock.all() == ["early"]).await;
        running.stop().await;
    }

    async fn a_delayed_command_that_nobody_ever_takes_is_dead_lettered(world: World) {
        let client = world.start(App::new("client").configure(|config| {
            config.skew.pause = Duration::from_millis(200);
            config.skew.window = Duration::from_secs(1);
        })).await;
        client.bus().send_key_with("nobody.there", Payload::text("lonely"), |o| o.delay(Duration::from_millis(100))).await.unwrap();
        let queue = Queue::replicated(world.names.dead_queue(&world.names.due()));
        eventually("it is given up", || client.stats().dead_lettered == 1).await;
        let dead = world.take(queue, 1).await.remove(0);
        assert_eq!((dead.kind, dead.key.as_str(), &dead.payload[..]), (Kind::Command, "nobody.there", &b"lonely"[..]));
        assert!(dead.headers.text("postrider-dead-error").unwrap().contains("nobody.there"));
    }

    async fn what_cannot_be_delayed_is_refused(world: World) {
        let running = world.start(Alpha::default().app()).await;
        let bus = running.bus();
        let long = Duration::from_secs(39 * 86_400);
        let refused = bus.send_key_with("alpha.note", Payload::text("x"), |o| o.delay(long)).await.unwrap_err();
        assert!(matches!(&refused, SendError::Option { option: "delay", reason } if reason.contains("38 days")), "{refused}");
        let delay = Duration::from_secs(1);
        let refused = bus.request_key_with::<String>("alpha.note", Payload::text("x"), |o| o.delay(delay)).await.unwrap_err();
        assert!(refused.to_string().contains("one way"), "{refused}");
    }

    /// T74, and the recipe of the guarantees.
    async fn an_update_that_comes_before_its_create_is_applied_after_it(world: World) {
        let orders = Orders::default();
        let (one, two) = (orders.clone(), orders.clone());
        let first = world.start(App::new("orders").actor(move || one.clone())).await;
        let second = world.start(App::new("orders").actor(move || two.clone())).await;
        for (key, order) in [("orders.create", "7"), ("orders.update", "7"), ("orders.update", "8")] {
            first.bus().send_key(key, Payload::text(order)).await.unwrap();
        }
        let dead = world.dead_letters("orders", 1).await.remove(0);
        assert_eq!((dead.key.as_str(), &dead.payload[..]), ("orders.update", &b"8"[..]), "its create never came");
        assert_eq!(*orders.0.lock().unwrap(), ["7", "7 updated"]);
        first.stop().await;
        second.stop().await;
    }

    async fn levels_that_somebody_removed_are_declared_again(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let delay = Duration::from_millis(100);
        running.bus().send_key_with("alpha.note", Payload::text("first"), |o| o.delay(delay)).await.unwrap();
        eventually("the first arrives", || alpha.clock.all() == ["first"]).await;
        let broker = world.broker().await;
        let levels = (0..25).map(|level| Queue::standing(world.names.delay_level(level)));
        broker.remove(&postrider::broker::Topology::of_queues(levels)).await.unwrap();
        broker.close().await;
        running.bus().send_key_with("alpha.note", Payload::text("second"), |o| o.delay(delay)).await.unwrap();
        eventually("the second arrives", || alpha.clock.all() == ["first", "second"]).await;
    }
}

/// T56
#[postrider::test]
async fn delayed_attempts_keep_their_schedule() {
    let times = Seen::<(u32, Duration)>::default();
    struct Timed(Seen<(u32, Duration)>, tokio::time::Instant);
    #[distributed(service = "timed", retry = "1 then 1s, 10s, 1h")]
    impl Timed {
        #[distributed(command = "timed.fail")]
        async fn fail(&self, _: String, cx: &Context) -> Result<(), Failure> {
            self.0.add((cx.attempt(), self.1.elapsed()));
            Err(Failure::transient("no"))
        }
    }
    let (seen, start) = (times.clone(), tokio::time::Instant::now());
    let test = TestApp::start(App::new("timed").actor(move || Timed(seen.clone(), start))).await;
    test.pause_clock();
    test.bus().send_key("timed.fail", Payload::text("it")).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2 * 3_600)).await;
    assert_eq!(test.dead_letters().len(), 1);
    let times: Vec<(u32, u64)> = times.all().into_iter().map(|(attempt, at)| (attempt, at.as_secs())).collect();
    assert_eq!(times, [(1, 0), (2, 1), (3, 11), (4, 3_611)]);
    test.stop().await;
}

#[test]
fn delayed_messages_survive_a_restart_of_the_broker() {
    run(async {
        let mut node = Node::start().unwrap();
        let world = World::on(node.url().to_owned());
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let (start, delay) = (Instant::now(), Duration::from_secs(3));
        running.bus().send_key_with("alpha.note", Payload::text("it"), |o| o.delay(delay)).await.unwrap();
        node.stop().unwrap();
        node.restart().unwrap();
        eventually("it arrives", || alpha.clock.at("it").is_some()).await;
        assert!(alpha.clock.at("it").unwrap() - start >= delay);
        running.stop().await;
    });
}

#[test]
fn a_delayed_attempt_of_an_ordered_actor_is_refused_by_the_configuration() {
    struct Strict;
    #[distributed(service = "strict", ordered)]
    impl Strict {
        #[distributed(command = "strict.go")]
        async fn go(&self, _: String) {}
    }
    run(async {
        let world = World::in_process();
        let delayed: Retry = "1 then 1s".parse().unwrap();
        let app = App::new("strict").actor(|| Strict).configure(|config| {
            config.actors.entry("strict".into()).or_default().retry = Some(delayed);
        });
        let Err(error) = world.try_start(app).await else { panic!("it started") };
        assert!(error.to_string().contains("Strict is ordered"), "{error}");
    });
}

/// What orders there are, as two services know it.
#[derive(Clone, Default)]
struct Orders(Arc<Mutex<Vec<String>>>);

#[distributed(service = "orders", retry = "1 then 300ms, 300ms, 300ms")]
impl Orders {
    /// Fails at first, as when the instance that has it dies.
    #[distributed(command = "orders.create")]
    async fn create(&mut self, order: String, cx: &Context) -> Result<(), Failure> {
        if cx.attempt() == 1 {
            return Err(Failure::transient("the first attempt fails"));
        }
        self.0.lock().unwrap().push(order);
        Ok(())
    }

    #[distributed(command = "orders.update")]
    async fn update(&mut self, order: String) -> Result<(), Failure> {
        let mut orders = self.0.lock().unwrap();
        if !orders.contains(&order) {
            return Err(Failure::transient(format!("order {order} is not there yet")));
        }
        orders.push(format!("{order} updated"));
        Ok(())
    }
}
