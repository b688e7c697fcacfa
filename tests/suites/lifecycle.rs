//! Start and stop.

use std::sync::Arc;
use std::time::Duration;

use postrider::{App, BrokerError, Failure, Payload, SendError, Setup, distributed};
use postrider_tests::world::{Seen, assert_same, eventually};
use tokio::sync::Semaphore;

use crate::messages::Note;

#[derive(Clone)]
struct Alpha {
    seen: Seen<String>,
    gate: Arc<Semaphore>,
}

impl Default for Alpha {
    fn default() -> Self {
        Self { seen: Seen::default(), gate: Arc::new(Semaphore::new(0)) }
    }
}

impl Alpha {
    fn app(&self) -> App {
        let alpha = self.clone();
        App::new("alpha").actor(move || alpha.clone())
    }
}

#[distributed(service = "alpha", prefetch = 4)]
impl Alpha {
    #[distributed(command = "alpha.note")]
    async fn note(&mut self, note: Note) -> Result<String, Failure> {
        self.seen.add(note.text.clone());
        if note.text.starts_with("slow") {
            self.gate.acquire().await?.forget();
        }
        self.seen.add(format!("{} done", note.text));
        Ok(note.text)
    }
}

#[derive(Clone)]
struct Desk {
    seen: Seen<String>,
    gate: Arc<Semaphore>,
}

impl Default for Desk {
    fn default() -> Self {
        Self { seen: Seen::default(), gate: Arc::new(Semaphore::new(0)) }
    }
}

impl Desk {
    async fn pass(&self, what: String) {
        self.seen.add(what);
        self.gate.acquire().await.unwrap().forget();
    }
}

#[distributed(service = "desk")]
impl Desk {
    #[distributed(command = "desk.write")]
    async fn write(&mut self, what: String) {
        self.pass(what).await;
    }

    #[distributed(command = "desk.read")]
    async fn read(&self, what: String) {
        self.pass(what).await;
    }

    #[distributed(command = "desk.break")]
    async fn break_it(&mut self, _: String) {
        panic!("on purpose");
    }

    #[distributed(query = "desk.count")]
    async fn count(&self, _: ()) -> Result<u32, Failure> {
        self.seen.add("count".to_owned());
        Ok(1)
    }
}

struct Strict;

#[distributed(service = "strict", ordered)]
impl Strict {
    #[distributed(command = "strict.note")]
    async fn note(&mut self, _: String) {}
}

#[derive(Debug, serde::Deserialize)]
struct Settings {
    greeting: String,
    times: u32,
}

struct Greeter {
    settings: Settings,
    service: String,
}

#[distributed(service = "greeter")]
impl Greeter {
    #[distributed(query = "greeter.greet")]
    async fn greet(&self, _: ()) -> Result<String, Failure> {
        Ok(format!("{} {}", self.service, self.settings.greeting.repeat(self.settings.times as usize)))
    }
}

impl Greeter {
    async fn make(setup: &Setup) -> Result<Self, Failure> {
        Ok(Self { settings: setup.config()?, service: setup.service().to_owned() })
    }
}

fn files_and_threads() -> (usize, usize) {
    let count = |path: &str| std::fs::read_dir(path).map_or(0, Iterator::count);
    (count("/proc/self/fd"), count("/proc/self/task"))
}

on_both_brokers! {
    async fn stopping_finishes_what_runs_and_gives_the_rest_back(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let client = world.client().await;
        for number in 0..8 {
            client.bus().send(&Note::new(format!("slow {number}"))).await.unwrap();
        }
        eventually("four are held and the first one runs", || running.stats().in_flight == 4 && alpha.seen.count() == 1).await;
        let (report, ()) = tokio::join!(running.stop(), async {
            eventually("it has begun to stop", || !running.health().ready).await;
            alpha.gate.add_permits(1);
        });
        assert_eq!((report.given_back, report.abandoned), (3, false), "{report:?}");
        assert_eq!(alpha.seen.all(), ["slow 0", "slow 0 done"]);
        let second = Alpha::default();
        second.gate.add_permits(100);
        let _running = world.start(second.app()).await;
        let done = second.seen.reach(14).await.into_iter().filter(|text| text.ends_with("done"));
        assert_same((1..8).map(|number| format!("slow {number} done")), done);
    }

    async fn what_waits_for_the_state_or_for_a_place_when_the_app_stops_does_not_begin(world: World) {
        for slow in ["desk.write", "desk.read"] {
            let desk = Desk::default();
            let (seen, gate) = (desk.seen.clone(), desk.gate.clone());
            let app = App::new("desk").actor(move || desk.clone()).configure(|config| config.concurrency = 1);
            let running = world.start(app).await;
            let bus = running.bus();
            bus.send_key(slow, Payload::text("runs")).await.unwrap();
            seen.reach(1).await;
            bus.send_key("desk.read", Payload::text("waits")).await.unwrap();
            let asking = bus.clone();
            let question = tokio::spawn(async move { asking.request_key::<u32>("desk.count", Payload::msgpack(&())).await });
            // A query has a lane of its own; without the state it waits there, with it it is answered at once.
            let waiting = if slow == "desk.write" { 3 } else { 2 };
            if slow == "desk.read" {
                eventually("the query is answered", || seen.all().contains(&"count".to_owned())).await;
            }
            eventually("all are held", || running.stats().in_flight == waiting).await;
            let (report, ()) = tokio::join!(running.stop(), async {
                eventually("it has begun to stop", || !running.health().ready).await;
                gate.add_permits(10);
            });
            assert_eq!((report.given_back, report.abandoned), (waiting - 1, false), "{slow}: {report:?}");
            assert_eq!(seen.all(), if slow == "desk.write" { vec!["runs"] } else { vec!["runs", "count"] });
            assert!(question.await.unwrap().is_err() || slow == "desk.read");
            // What went back is there for the next one.
            let desk = Desk::default();
            desk.gate.add_permits(10);
            let seen = desk.seen.clone();
            let running = world.start(App::new("desk").actor(move || desk.clone())).await;
            eventually("it is handled", || seen.all().contains(&"waits".to_owned())).await;
            running.stop().await;
        }
    }

    async fn a_state_that_cannot_be_made_again_does_not_hold_up_the_stop(world: World) {
        let made = Arc::new(std::sync::atomic::AtomicU32::new(0));
        let count = Arc::clone(&made);
        let desk = Desk::default();
        let app = App::new("desk").actor_with(move |_: &Setup| {
            let again = count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0;
            let desk = desk.clone();
            async move { if again { Err(Failure::transient("there is no desk")) } else { Ok(desk) } }
        });
        let running = world.start(app.configure(|config| config.stop_timeout = Duration::from_secs(600))).await;
        running.bus().send_key("desk.break", Payload::text("it")).await.unwrap();
        running.bus().send_key("desk.read", Payload::text("waits")).await.unwrap();
        eventually("it is tried again", || made.load(std::sync::atomic::Ordering::SeqCst) >= 3).await;
        let report = running.stop().await;
        assert!(!report.abandoned && report.given_back == 2, "{report:?}");
    }

    /// T120 and T122
    async fn a_handler_that_does_not_finish_in_time_is_given_back_and_no_failed_attempt(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app().configure(|config| config.timeout = Duration::from_secs(60))).await; // longer than the time for stopping
        running.bus().send(&Note::new("slow")).await.unwrap();
        alpha.seen.reach(1).await;
        let report = running.stop().await;
        assert!(report.abandoned && report.given_back == 1, "{report:?}");
        assert_eq!(running.stats().timed_out + running.stats().failed_transient + running.stats().dead_lettered, 0);
        let second = Alpha::default();
        second.gate.add_permits(1);
        let _running = world.start(second.app()).await;
        assert_eq!(second.seen.reach(2).await, ["slow", "slow done"]);
    }

    /// T121
    async fn stopping_twice_and_dropping_without_stopping_do_not_hang(world: World) {
        let running = world.start(Alpha::default().app()).await;
        let bus = running.bus().clone();
        let (first, second) = tokio::join!(running.stop(), running.stop());
        assert_eq!(first, second);
        let error = bus.send(&Note::new("too late")).await.unwrap_err();
        assert_eq!(error, SendError::Broker(BrokerError::Stopped));
        let dropped = world.start(Alpha::default().app()).await;
        let bus = dropped.bus().clone();
        drop(dropped);
        let mut stopped = false;
        for _ in 0..400 {
            stopped = matches!(bus.send(&Note::new("x")).await, Err(SendError::Broker(BrokerError::Stopped)));
            if stopped {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(stopped, "a dropped app stops by itself");
    }

    /// T123
    async fn a_hundred_starts_and_stops_leak_neither_threads_nor_files(world: World) {
        let cycles = if world.url().is_some() { 20 } else { 100 };
        let alpha = Alpha::default();
        let cycle = async |number: usize| {
            let running = world.start(alpha.app()).await;
            running.bus().request(&Note::new(number)).await.unwrap();
            running.stop().await;
        };
        cycle(0).await;
        let before = files_and_threads();
        for number in 1..cycles {
            cycle(number).await;
        }
        assert_eq!(alpha.seen.count(), cycles * 2);
        // Other tests run beside this one and hold files and threads of their own; a leak would be one per cycle at least.
        let mut after = files_and_threads();
        for _ in 0..500 {
            after = files_and_threads();
            if after.0 < before.0 + cycles && after.1 < before.1 + cycles {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(after.0 < before.0 + cycles && after.1 < before.1 + cycles, "(files, threads) before {before:?}, after {after:?}");
    }

    async fn settings_reach_the_factory_of_an_actor(world: World) {
        let app = || App::new("greeter").actor_with(Greeter::make);
        let with = |greeting: &str| app().configure(|config| {
            let settings = config.services.entry("greeter".into()).or_default();
            settings.insert("greeting".into(), greeting.into());
            settings.insert("times".into(), "2".into());
        });
        let running = world.start(with("ho")).await;
        let answer: String = running.bus().request_key("greeter.greet", Payload::msgpack(&())).await.unwrap();
        assert_eq!(answer, "greeter hoho");
        let Err(error) = world.try_start(app()).await else { panic!("it started without its settings") };
        assert!(error.to_string().contains("greeter") && error.to_string().contains("greeting"), "{error}");
    }

    async fn replicas_compete_and_each_has_a_state_of_its_own(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app().replicas(3)).await;
        for number in 0..6 {
            running.bus().send(&Note::new(format!("slow {number}"))).await.unwrap();
        }
        eventually("three exclusive handlers run at once", || alpha.seen.count() == 3).await;
        alpha.gate.add_permits(6);
        alpha.seen.reach(12).await;
    }

    async fn replicas_of_an_ordered_actor_are_refused(world: World) {
        let app = App::new("strict").actor(|| Strict).replicas(2);
        let Err(error) = world.try_start(app).await else { panic!("it started") };
        assert!(error.to_string().contains("ordered") && error.to_string().contains("replicas"), "{error}");
    }

    async fn all_problems_of_an_app_are_reported_at_once(world: World) {
        let app = Alpha::default().app().actor(Alpha::default).replicas(0);
        let Err(error) = world.try_start(app).await else { panic!("it started") };
        let text = error.to_string();
        for part in ["alpha.note", "same queue", "zero replicas"] {
            assert!(text.contains(part), "{part:?} is missing in: {text}");
        }
    }
}
