//! Handlers that ask their own actor in its corners: what can be answered is, and whoever would wait in vain is told at once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::{App, Context, Envelope, Failure, Payload, RequestError, distributed};
use postrider_tests::world::{Seen, World, eventually, run};
use tokio::sync::Semaphore;

use crate::redelivery::{give_back, queue};

/// The answer, or what became of the request, and after how many seconds.
async fn ask(cx: &Context, key: &str, secs: u64) -> String {
    let began = Instant::now();
    let answer: Result<String, RequestError> =
        cx.request_key_with(key, Payload::msgpack("x"), |o| o.timeout(Duration::from_secs(secs))).await;
    let answer = match answer {
        Ok(text) => text,
        Err(RequestError::WouldWaitForItself { .. }) => "told".into(),
        Err(RequestError::TimedOut { .. }) => "timed out".into(),
        Err(error) => format!("{error}"),
    };
    format!("{answer} after {}s", began.elapsed().as_secs())
}

#[derive(Clone)]
struct Own {
    seen: Seen<String>,
    gate: Arc<Semaphore>,
    inner: Arc<Semaphore>,
}

impl Default for Own {
    fn default() -> Self {
        let [gate, inner] = [(); 2].map(|()| Arc::new(Semaphore::new(0)));
        Self { seen: Seen::default(), gate, inner }
    }
}

impl Own {
    fn app(&self) -> App {
        let own = self.clone();
        App::new("alpha").actor(move || own.clone())
    }
}

#[distributed(service = "alpha", retry = "none")]
impl Own {
    #[distributed(command = "alpha.outer")]
    async fn outer(&self, what: String, cx: &Context) {
        if what == "gated" || what == "gated look" {
            self.seen.add("waits".into());
            self.gate.acquire().await.unwrap().forget();
        }
        if what == "gated inner" {
            self.seen.add("asks".into());
            return self.seen.add(ask(cx, "alpha.gated-inner", 5).await);
        }
        let key = if what == "gated look" { "alpha.look" } else { "alpha.inner" };
        self.seen.add(ask(cx, key, 5).await);
    }

    #[distributed(query = "alpha.look")]
    async fn look(&self, what: String, cx: &Context) -> Result<String, Failure> {
        if what == "on" {
            self.seen.add(ask(cx, "alpha.inner", 5).await);
        }
        Ok("looked".to_owned())
    }

    #[distributed(command = "alpha.chain")]
    async fn chain(&self, _what: String, cx: &Context) -> Result<(), Failure> {
        cx.request_key::<String>("alpha.look", Payload::msgpack("on")).await.map(drop).map_err(Failure::transient)
    }

    #[distributed(command = "alpha.tell")]
    async fn tell(&self, _what: String, cx: &Context) -> Result<(), Failure> {
        cx.publish_key("alpha.told", Payload::msgpack("x"))?;
        Ok(())
    }

    #[distributed(command = "alpha.fanout")]
    async fn fanout(&self, count: usize, cx: &Context) {
        let answers = futures::future::join_all((0..count).map(|_| ask(cx, "alpha.inner", 5))).await;
        for answer in answers {
            self.seen.add(answer);
        }
    }

    #[distributed(command = "alpha.breaks")]
    async fn breaks(&self, what: String, cx: &Context) -> Result<(), Failure> {
        if what == "fail" {
            return Err(Failure::permanent("fails"));
        }
        let answer = ask(cx, "alpha.inner", 2).await;
        self.seen.add(answer.clone());
        if answer.starts_with("inner") { Ok(()) } else { Err(Failure::permanent(answer)) }
    }

    #[distributed(command = "alpha.inner")]
    async fn inner(&self, _what: String) -> Result<String, Failure> {
        Ok("inner".to_owned())
    }

    #[distributed(command = "alpha.gated-inner")]
    async fn gated_inner(&self, _what: String) -> Result<String, Failure> {
        self.inner.acquire().await.map_err(Failure::transient)?.forget();
        Ok("inner".to_owned())
    }

    #[distributed(command = "alpha.write")]
    async fn write(&mut self, _what: String) {}
    #[distributed(command = "alpha.spawns")]
    async fn spawns(&mut self, _what: String, cx: &Context) {
        let (cx, seen) = (cx.clone(), self.seen.clone());
        // Dropped as the handler ends.
        let (handler, ended) = tokio::sync::oneshot::channel::<()>();
        tokio::task::spawn_local(async move {
            ended.await.unwrap_err();
            seen.add(ask(&cx, "alpha.inner", 5).await);
        });
        drop(handler);
    }
}

#[derive(Clone, Default)]
struct Hears;

#[distributed(service = "hears")]
impl Hears {
    #[distributed(event = "alpha.told")]
    async fn hear(&self, _what: String) {}
}

#[derive(Clone)]
struct OneByOne;

#[distributed(service = "one-by-one", ordered)]
impl OneByOne {
    #[distributed(command = "one-by-one.step")]
    async fn step(&mut self, _what: String) -> Result<String, Failure> {
        Ok("stepped".to_owned())
    }

    #[distributed(command = "one-by-one.fail-once", retry = "2")]
    async fn fail_once(&mut self, _what: String, cx: &Context) -> Result<(), Failure> {
        if cx.attempt() == 1 { Err(Failure::transient("once")) } else { Ok(()) }
    }

    #[distributed(command = "one-by-one.look")]
    async fn look(&self, _what: String) -> Result<String, Failure> {
        Ok("looked".to_owned())
    }

    #[distributed(query = "one-by-one.ask-look")]
    async fn ask_look(&self, _what: String, cx: &Context) -> Result<String, Failure> {
        Ok(ask(cx, "one-by-one.look", 5).await)
    }

    #[distributed(query = "one-by-one.ask")]
    async fn ask(&self, _what: String, cx: &Context) -> Result<String, Failure> {
        Ok(ask(cx, "one-by-one.step", 5).await)
    }
}

on_both_brokers! {
    /// Its lane lets nothing else through.
    async fn a_suspect_that_asks_its_own_lane_is_told_at_once(world: World) {
        let own = Own::default();
        world.start(own.app()).await.stop().await;
        let client = world.client().await;
        client.bus().send_key("alpha.outer", Payload::text("go")).await.unwrap();
        give_back(&world, &queue(&world, "alpha"), 3).await;
        let _running = world.start(own.app()).await;
        assert_eq!(own.seen.reach(1).await, ["told after 0s"]);
    }

    async fn a_handler_that_a_half_open_breaker_tries_and_that_asks_its_own_lane_is_told_at_once(world: World) {
        let own = Own::default();
        let app = own.app().configure(|config| config.breaker = Some("50% of 2 in 10s, pause 500ms".parse().unwrap()));
        let running = world.start(app).await;
        for what in ["fail", "fail"] {
            running.bus().send_key("alpha.breaks", Payload::text(what)).await.unwrap();
        }
        eventually("the breaker pauses", || running.stats().dead_lettered == 2).await;
        running.bus().send_key("alpha.breaks", Payload::text("asks")).await.unwrap();
        assert_eq!(own.seen.reach(1).await, ["told after 0s"]);
    }

    async fn a_handler_may_ask_its_own_actor_for_more_at_once_than_the_lane_holds(world: World) {
        let own = Own::default();
        let running = world.start(own.app().configure(|config| config.prefetch = 4)).await;
        running.bus().send_key("alpha.fanout", Payload::msgpack(&8_usize)).await.unwrap();
        assert_eq!(own.seen.reach(8).await, ["inner after 0s"; 8]);
    }

    /// A writer in front of the backlog waits for the one that asks.
    async fn whoever_asks_its_own_lane_behind_a_writer_and_more_than_the_lane_holds_is_told_at_once(world: World) {
        let own = Own::default();
        let running = world.start(own.app().configure(|config| config.prefetch = 4)).await;
        running.bus().send_key("alpha.outer", Payload::text("gated")).await.unwrap();
        own.seen.reach(1).await;
        for _ in 0..10 {
            running.bus().send_key("alpha.write", Payload::text("w")).await.unwrap();
        }
        eventually("the lane holds no more", || running.stats().in_flight == 4).await;
        own.gate.add_permits(1);
        assert_eq!(own.seen.reach(2).await[1], "told after 0s");
    }

    /// The queries wait for the writer too.
    async fn whoever_asks_the_query_lane_that_is_full_behind_a_writer_is_told_at_once(world: World) {
        let own = Own::default();
        let running = world.start(own.app().configure(|config| config.prefetch = 4)).await;
        let client = world.client().await;
        client.bus().send_key("alpha.outer", Payload::text("gated look")).await.unwrap();
        own.seen.reach(1).await;
        client.bus().send_key("alpha.write", Payload::text("w")).await.unwrap();
        eventually("the writer waits", || running.stats().in_flight == 2).await;
        let queries: Vec<_> = (0..6)
            .map(|_| {
                let bus = client.bus().clone();
                tokio::spawn(async move { bus.request_key::<String>("alpha.look", Payload::msgpack("x")).await })
            })
            .collect();
        eventually("the query lane holds no more", || running.stats().in_flight == 6).await;
        own.gate.add_permits(1);
        assert_eq!(own.seen.reach(2).await[1], "told after 0s");
        for query in queries {
            assert_eq!(query.await.unwrap().unwrap(), "looked");
        }
    }

    /// A command asks a query, and the query a command, for which there is no room.
    async fn a_circle_over_both_lanes_of_an_actor_is_told_at_once(world: World) {
        let own = Own::default();
        let running = world.start(own.app().configure(|config| config.prefetch = 1)).await;
        running.bus().send_key("alpha.chain", Payload::text("go")).await.unwrap();
        assert_eq!(own.seen.reach(1).await, ["told after 0s"]);
        // With room it is answered.
        running.stop().await;
        let running = world.start(own.app().configure(|config| config.prefetch = 2)).await;
        running.bus().send_key("alpha.chain", Payload::text("go")).await.unwrap();
        assert_eq!(own.seen.reach(2).await[1], "inner after 0s");
    }

    /// It begins to wait after the request has arrived.
    async fn whoever_asks_an_ordered_actor_behind_a_writer_that_tries_again_is_told(world: World) {
        let app = App::new("one-by-one").actor(|| OneByOne);
        let running = world.start(app.configure(|config| config.retry.pause = Duration::from_millis(500))).await;
        let client = world.client().await;
        client.bus().send_key("one-by-one.fail-once", Payload::msgpack("x")).await.unwrap();
        eventually("it has failed once", || running.stats().retried == 1).await;
        let answer = client.bus().request_key::<String>("one-by-one.ask-look", Payload::msgpack("x")).await.unwrap();
        assert!(answer == "told after 0s" || answer == "told after 1s", "{answer}");
    }

    async fn a_handler_that_asks_its_own_lane_while_a_breaker_lets_nothing_through_is_told_at_once(world: World) {
        let own = Own::default();
        let breaker = "50% of 2 in 10s, pause 20s".parse().unwrap();
        let app = own.app().configure(|config| config.breaker = Some(breaker));
        let running = world.start(app).await;
        running.bus().send_key("alpha.outer", Payload::text("gated")).await.unwrap();
        own.seen.reach(1).await;
        for what in ["fail", "fail"] {
            running.bus().send_key("alpha.breaks", Payload::text(what)).await.unwrap();
        }
        eventually("the breaker pauses", || running.stats().dead_lettered == 2).await;
        own.gate.add_permits(1);
        assert_eq!(own.seen.reach(2).await[1], "told after 0s");
    }

    /// Those behind it wait for its place, and the queue itself is empty.
    async fn whoever_asks_its_own_lane_which_is_full_of_what_waits_for_it_is_told_at_once(world: World) {
        let own = Own::default();
        let app = own.app().configure(|config| { config.prefetch = 4; config.concurrency = 1; });
        let running = world.start(app).await;
        running.bus().send_key("alpha.outer", Payload::text("gated")).await.unwrap();
        own.seen.reach(1).await;
        for _ in 0..3 {
            running.bus().send_key("alpha.inner", Payload::text("x")).await.unwrap();
        }
        eventually("the lane holds no more", || running.stats().in_flight == 4).await;
        own.gate.add_permits(1);
        assert_eq!(own.seen.reach(2).await[1], "told after 0s");
        eventually("what waited is handled", || running.stats().in_flight == 0).await;
        // With room for the request and for all before it, it is answered.
        running.bus().send_key("alpha.outer", Payload::text("gated")).await.unwrap();
        own.seen.reach(3).await;
        for _ in 0..2 {
            running.bus().send_key("alpha.inner", Payload::text("x")).await.unwrap();
        }
        eventually("the lane has room for one", || running.stats().in_flight == 3).await;
        own.gate.add_permits(1);
        assert_eq!(own.seen.reach(4).await[3], "inner after 0s");
    }

    /// Another handler's request fills the last place, and ends.
    async fn whoever_asks_its_own_lane_while_another_ones_request_is_answered_there_is_answered(world: World) {
        let own = Own::default();
        let app = own.app().configure(|config| { config.prefetch = 3; config.concurrency = 2; });
        let running = world.start(app).await;
        for _ in 0..2 {
            running.bus().send_key("alpha.outer", Payload::text("gated inner")).await.unwrap();
        }
        own.seen.reach(2).await;
        eventually("one of the requests is handled", || running.stats().in_flight == 3).await;
        own.inner.add_permits(2);
        assert_eq!(own.seen.reach(4).await[2..], ["inner after 0s", "inner after 0s"]);
    }

    /// Until it is sent there is room.
    async fn whoever_asks_its_own_lane_is_told_at_once_when_others_take_the_room(world: World) {
        let (own, client) = (Own::default(), world.client().await);
        let other = client.bus().clone();
        let takes_the_room = move |envelope: &mut Envelope| {
            let other = other.clone();
            if envelope.wants_reply() {
                let sending = async move { other.send_key("alpha.inner", Payload::text("x")).await.map(drop) };
                std::thread::spawn(|| run(sending)).join().unwrap().unwrap();
            }
            Ok(())
        };
        let app = own.app().before_send(takes_the_room).configure(|config| { config.prefetch = 2; config.concurrency = 1; });
        let running = world.start(app).await;
        client.bus().send_key("alpha.outer", Payload::text("go")).await.unwrap();
        assert_eq!(own.seen.reach(1).await, ["told after 0s"]);
        eventually("all are settled", || running.stats().in_flight == 0).await;
    }

    async fn a_query_of_a_passive_instance_is_answered_by_the_active_one_and_that_of_the_active_one_is_told(world: World) {
        let start = async || world.start(App::new("one-by-one").actor(|| OneByOne)).await;
        let instances = [start().await, start().await];
        let client = world.client().await;
        // One of them gets all commands.
        client.bus().send_key("one-by-one.step", Payload::msgpack("x")).await.unwrap();
        eventually("one is active", || instances.iter().any(|instance| instance.stats().handled == 1)).await;
        let asks = (0..20).map(|_| client.bus().request_key::<String>("one-by-one.ask", Payload::msgpack("x")));
        let answers: Vec<String> = futures::future::join_all(asks).await.into_iter().map(Result::unwrap).collect();
        let count = |answer: &str| answers.iter().filter(|given| *given == answer).count();
        let (answered, told) = (count("stepped after 0s"), count("told after 0s"));
        assert!(answered > 0 && told > 0 && answered + told == 20, "{answers:?}");
    }

    async fn what_a_handler_left_behind_is_answered_by_its_own_actor(world: World) {
        let own = Own::default();
        let running = world.start(own.app()).await;
        running.bus().send_key("alpha.spawns", Payload::text("x")).await.unwrap();
        assert_eq!(own.seen.reach(1).await, ["inner after 0s"]);
    }
}

/// The queue of what they send is silent, so they end a little later.
#[test]
fn whoever_asks_its_own_lane_while_what_fills_it_waits_for_confirms_alone_is_answered() {
    run(async {
        let (world, own) = (World::in_process(), Own::default());
        let broker = world.in_process_broker().unwrap().clone();
        let _hears = world.start(App::new("hears").actor(Hears::default)).await;
        let app = own.app().configure(|config| {
            config.prefetch = 4;
            config.concurrency = 1;
        });
        let running = world.start(app).await;
        let silent = world.names.queue("hears", None);
        broker.suspend(&silent);
        for _ in 0..3 {
            running.bus().send_key("alpha.tell", Payload::text("x")).await.unwrap();
        }
        running.bus().send_key("alpha.outer", Payload::text("gated")).await.unwrap();
        own.seen.reach(1).await;
        assert_eq!(running.stats().in_flight, 4, "the lane holds no more");
        own.gate.add_permits(1);
        let resumes = async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            broker.resume(&silent);
        };
        let (seen, ()) = tokio::join!(own.seen.reach(2), resumes);
        assert_eq!(seen[1], "inner after 0s");
        eventually("all are settled", || running.stats().in_flight == 0).await;
    });
}

/// Suspects that never end, on several instances that are stopped again and again.
#[test]
fn orderly_stops_of_several_instances_condemn_nobody() {
    run(async {
        let (world, own) = (World::rabbitmq(), Own::default());
        world.start(own.app()).await.stop().await;
        let client = world.client().await;
        for _ in 0..3 {
            client.bus().send_key("alpha.outer", Payload::text("gated")).await.unwrap();
        }
        let app = || {
            own.app().configure(|config| {
                config.prefetch = 1;
                config.stop_timeout = Duration::from_millis(300);
            })
        };
        for round in 1..=5 {
            let seen = own.seen.count();
            let apps = futures::future::join_all((0..3).map(|_| world.start(app()))).await;
            own.seen.reach(seen + 3).await;
            assert_eq!(apps.iter().map(|app| app.stats().dead_lettered).sum::<u64>(), 0, "round {round}");
            futures::future::join_all(apps.iter().map(|app| app.stop())).await;
        }
        client.stop().await;
    });
}
