//! Orders to running actors: every process of a service hears them and answers.

use std::sync::Arc;
use std::time::Duration;

use postrider::app::ProcessReport;
use postrider::operate::{Actors, ControlError};
use postrider::{App, Failure, Payload, Running, distributed};
use postrider_tests::program::operator;
use postrider_tests::world::{Seen, World, eventually, run};
use tokio::sync::Semaphore;

#[derive(Clone, Default)]
struct Alpha {
    seen: Seen<String>,
}

#[distributed(service = "alpha")]
impl Alpha {
    #[distributed(command = "alpha.do")]
    async fn take(&mut self, text: String) {
        self.seen.add(text);
    }
}

#[derive(Clone)]
struct Strict {
    seen: Seen<String>,
    gate: Arc<Semaphore>,
}

impl Default for Strict {
    fn default() -> Self {
        Self { seen: Seen::default(), gate: Arc::new(Semaphore::new(0)) }
    }
}

#[distributed(service = "strict", ordered)]
impl Strict {
    #[distributed(command = "strict.note")]
    async fn note(&mut self, what: String) -> Result<(), Failure> {
        self.seen.add(format!("{what} began"));
        if what == "slow" {
            self.gate.acquire().await?.forget();
        }
        self.seen.add(format!("{what} ended"));
        Ok(())
    }
}

/// A further actor of the same service.
struct Audit;

#[distributed(service = "alpha", queue = "audit")]
impl Audit {
    #[distributed(event = "alpha.*")]
    async fn note(&mut self, _: String) {}
}

impl Alpha {
    async fn start(&self, world: &World) -> Running {
        let state = self.clone();
        world.start(App::new("alpha").actor(move || state.clone()).actor(|| Audit)).await
    }
}

/// Long enough for two processes on a busy machine; it is always waited for to the end.
const WINDOW: Duration = Duration::from_millis(1_500);

fn paused(reports: &[ProcessReport], actor: &str) -> Vec<bool> {
    let of = |report: &ProcessReport| report.actors.iter().find(|found| found.name == actor).map(|found| found.paused);
    reports.iter().filter_map(of).collect()
}

on_both_brokers! {
    async fn an_order_reaches_every_process_of_a_service_and_each_answers(world: World) {
        let alpha = Alpha::default();
        let (first, second) = (alpha.start(&world).await, alpha.start(&world).await);
        let client = world.client().await;
        let actors = Actors::new(client.bus()).waiting(WINDOW);
        let reports = actors.pause("alpha").await.unwrap();
        assert_eq!(paused(&reports, "alpha"), [true, true], "{reports:?}");
        assert_eq!(paused(&reports, "alpha.audit"), [false, false], "only what was meant");
        assert!(reports.iter().all(|report| report.problem.is_none() && report.ready));
        let is_paused = |running: &Running| running.health().lanes.iter().any(|lane| lane.problem.as_deref() == Some("paused"));
        eventually("both have paused", || is_paused(&first) && is_paused(&second)).await;
        for number in 0..10 {
            client.bus().send_key("alpha.do", Payload::text(number.to_string())).await.unwrap();
        }
        let queue = world.names.queue("alpha", None);
        postrider_tests::world::eventually_async("all ten wait", || async { world.ready(&queue).await == Some(10) }).await;
        assert_eq!(alpha.seen.count(), 0);

        let one = reports[0].instance.clone();
        let resumed = Actors::new(client.bus()).waiting(WINDOW).of_instance(&one).resume("alpha").await.unwrap();
        assert_eq!(resumed.iter().map(|report| &report.instance).collect::<Vec<_>>(), [&one], "one was meant");
        alpha.seen.reach(10).await;
        let now = actors.about("alpha").await.unwrap();
        assert_eq!(paused(&now, "alpha").iter().filter(|paused| **paused).count(), 1, "{now:?}");
        actors.resume("alpha").await.unwrap();

        let opened = || first.stats().consumers_opened + second.stats().consumers_opened;
        eventually("both consume", || first.health().ready && !is_paused(&first) && !is_paused(&second)).await;
        let before = opened();
        actors.restart("alpha.audit").await.unwrap();
        eventually("one lane of each is opened again", || opened() == before + 2).await;
    }

    async fn a_restart_of_an_ordered_actor_lets_it_finish_before_another_instance_begins(world: World) {
        let (first, second) = (Strict::default(), Strict::default());
        let start = |strict: &Strict| { let strict = strict.clone(); world.start(App::new("strict").actor(move || strict.clone())) };
        let active = start(&first).await;
        for what in ["slow", "next"] {
            active.bus().send_key("strict.note", Payload::text(what)).await.unwrap();
        }
        first.seen.reach(1).await;
        let waiting = start(&second).await;
        active.restart("strict").unwrap();
        let reports = Actors::new(active.bus()).waiting(WINDOW).about("strict").await.unwrap();
        assert_eq!((reports.len(), second.seen.count()), (2, 0), "the first one still runs: {reports:?}");
        first.gate.add_permits(1);
        eventually("both are handled", || first.seen.count() + second.seen.count() == 4).await;
        assert_eq!(first.seen.all()[..2], ["slow began", "slow ended"]);
        eventually("all is settled", || active.stats().in_flight + waiting.stats().in_flight == 0).await;
    }

    async fn an_order_that_nobody_can_carry_out_says_why(world: World) {
        let alpha = Alpha::default();
        let running = alpha.start(&world).await;
        let actors = Actors::new(running.bus()).waiting(Duration::from_millis(300));
        let reports = actors.pause("alpha.nothing").await.unwrap();
        let problem = reports[0].problem.clone().unwrap();
        assert!(problem.contains("\"alpha.nothing\"") && problem.contains("\"alpha.audit\""), "{problem}");
        let nobody = actors.pause("beta").await.unwrap_err();
        assert!(matches!(&nobody, ControlError::Nobody { service, .. } if service == "beta"), "{nobody}");
        let silence = Actors::new(running.bus()).waiting(Duration::from_millis(300)).of_instance("gone");
        let silence = silence.about("alpha").await.unwrap_err();
        assert!(matches!(silence, ControlError::Silence { .. }) && silence.to_string().contains("no instance \"gone\""), "{silence}");
        assert!(matches!(actors.pause("No Name").await.unwrap_err(), ControlError::Name(_)));
        // What no version understands is answered, and nothing changes.
        let payload = Payload::json(&serde_json::json!({ "order": "explode" }));
        running.bus().send_channel("alpha", "postrider.control", payload).await.unwrap();
        assert_eq!(paused(&actors.about("alpha").await.unwrap(), "alpha"), [false]);
    }
}

struct Taken;

#[distributed(service = "taken")]
impl Taken {
    #[distributed(channel = "postrider.control")]
    async fn hear(&self, _: String) {}
}

#[test]
fn the_channel_of_orders_is_refused_to_handlers() {
    run(async {
        let refused = World::in_process().try_start(App::new("taken").actor(|| Taken)).await;
        let text = refused.err().unwrap().to_string();
        assert!(text.contains("postrider.control") && text.contains("another name"), "{text}");
    });
}

#[test]
fn actors_are_seen_paused_and_resumed_from_the_shell() {
    run(async {
        let (world, alpha) = (World::rabbitmq(), Alpha::default());
        let running = alpha.start(&world).await;
        let (fine, listed, problem) = operator(&world, &["actor", "list", "alpha"]).await;
        assert!(fine && listed.contains("  ready  version"), "{listed}{problem}");
        assert!(listed.contains(&world.names.queue("alpha", Some("audit"))), "{listed}");
        let (fine, done, problem) = operator(&world, &["actor", "pause", "alpha"]).await;
        assert!(fine && done.starts_with("alpha@") && done.trim_end().ends_with("paused"), "{done}{problem}");
        let (_, json, _) = operator(&world, &["actor", "list", "alpha", "--json"]).await;
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["actors"][0]["paused"], true, "{json}");
        running.bus().send_key("alpha.do", Payload::text("later")).await.unwrap();
        let (fine, ..) = operator(&world, &["actor", "resume", "alpha"]).await;
        assert!(fine);
        assert_eq!(alpha.seen.reach(1).await, ["later"]);
        assert!(operator(&world, &["actor", "restart", "alpha"]).await.0);
        for (actor, expected) in [("nobody", "no process of service \"nobody\""), ("alpha.x", "there is no actor")] {
            let (fine, _, problem) = operator(&world, &["actor", "pause", actor]).await;
            assert!(!fine && problem.contains(expected), "{problem}");
        }
    });
}
