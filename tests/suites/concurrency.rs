//! Lanes, locks, limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postrider::{App, Failure, Payload, distributed};
use postrider_tests::world::{Seen, eventually};
use tokio::sync::Semaphore;

#[derive(Clone)]
struct Alpha {
    seen: Seen<String>,
    gate: Arc<Semaphore>,
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Default for Alpha {
    fn default() -> Self {
        Self { seen: Seen::default(), gate: Arc::new(Semaphore::new(0)), running: Arc::default(), most: Arc::default() }
    }
}

impl Alpha {
    fn app(&self) -> App {
        let alpha = self.clone();
        App::new("alpha").actor(move || alpha.clone())
    }

    fn enter(&self) {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(running, Ordering::SeqCst);
    }

    fn leave(&self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
    }

    fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }
}

#[distributed(service = "alpha", concurrency = 8, prefetch = 20)]
impl Alpha {
    #[distributed(command = "alpha.beside")]
    async fn beside(&self, text: String) {
        self.enter();
        self.gate.acquire().await.unwrap().forget();
        self.leave();
        self.seen.add(text);
    }

    #[distributed(command = "alpha.quick")]
    async fn quick(&self, text: String) {
        self.seen.add(text);
    }

    #[distributed(command = "alpha.alone")]
    async fn alone(&mut self, text: String) {
        self.enter();
        self.seen.add(format!("{text} begins"));
        self.gate.acquire().await.unwrap().forget();
        self.seen.add(format!("{text} ends"));
        self.leave();
    }
}

/// Only shared handlers, so that any prefetch goes.
#[derive(Clone)]
struct Crowd(Alpha);

#[distributed(service = "crowd", concurrency = 2000, prefetch = 2000)]
impl Crowd {
    #[distributed(command = "crowd.beside")]
    async fn beside(&self, text: String) {
        self.0.enter();
        self.0.gate.acquire().await.unwrap().forget();
        self.0.leave();
        self.0.seen.add(text);
    }

    #[distributed(query = "crowd.tick")]
    async fn tick(&self, _: ()) -> Result<u64, Failure> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(self.0.seen.count() as u64)
    }
}

#[derive(Default)]
struct Neighbour;

#[distributed(service = "neighbour")]
impl Neighbour {
    #[distributed(query = "neighbour.ask")]
    async fn ask(&self, number: u64) -> Result<u64, Failure> {
        Ok(number)
    }
}

async fn send(running: &postrider::Running, key: &str, count: usize) {
    let sends = (0..count).map(|number| running.bus().send_key(key, Payload::text(number.to_string())));
    futures::future::try_join_all(sends).await.unwrap();
}

on_both_brokers! {
    /// T115
    async fn exactly_as_many_shared_handlers_run_as_allowed(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        send(&running, "alpha.beside", 16).await;
        eventually("eight run", || alpha.running() == 8 && running.stats().in_flight == 16).await;
        alpha.gate.add_permits(16);
        alpha.seen.reach(16).await;
        assert_eq!(alpha.most.load(Ordering::SeqCst), 8);
    }

    /// T116
    async fn the_number_of_handlers_at_once_changes_at_run_time(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        send(&running, "alpha.beside", 40).await;
        eventually("eight run", || alpha.running() == 8).await;
        running.set_concurrency("alpha", 12).unwrap();
        eventually("twelve run", || alpha.running() == 12).await;
        running.set_concurrency("alpha", 3).unwrap();
        alpha.gate.add_permits(9);
        alpha.seen.reach(9).await;
        eventually("three are left", || alpha.running() == 3).await;
        alpha.most.store(0, Ordering::SeqCst);
        alpha.gate.add_permits(31);
        alpha.seen.reach(40).await;
        assert!(alpha.most.load(Ordering::SeqCst) <= 3);
        let error = running.set_concurrency("nobody", 1).unwrap_err();
        assert!(error.contains("nobody") && error.contains("alpha"), "{error}");
    }

    /// T117 and T165
    async fn a_slow_actor_holds_no_more_than_its_prefetch_however_many_send(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let sends = (0..1_000).map(|number| {
            let bus = running.bus().clone();
            tokio::spawn(async move {
                for part in 0..5 {
                    bus.send_key("alpha.beside", Payload::text(format!("{number} {part}"))).await.unwrap();
                }
            })
        });
        let sends: Vec<_> = sends.collect();
        let mut most = 0;
        for send in sends {
            send.await.unwrap();
            most = most.max(running.stats().in_flight);
        }
        assert!(most <= 20, "{most} were held at once");
        alpha.gate.add_permits(5_000);
        eventually("all are handled", || {
            most = most.max(running.stats().in_flight);
            running.stats().handled == 5_000
        }).await;
        assert!(most <= 20, "{most} were held at once");
        eventually("all are settled", || running.stats().in_flight == 0).await;
    }

    /// T118
    async fn a_slow_handler_does_not_hold_up_the_others_beside_it(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        send(&running, "alpha.beside", 1).await;
        eventually("the slow one runs", || alpha.running() == 1).await;
        send(&running, "alpha.quick", 200).await;
        alpha.seen.reach(200).await;
        assert_eq!(alpha.running(), 1, "the slow one still runs");
        alpha.gate.add_permits(1);
        alpha.seen.reach(201).await;
    }

    /// T160
    async fn exclusive_handlers_run_one_after_the_other_in_delivery_order(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        for number in 0..5 {
            running.bus().send_key("alpha.alone", Payload::text(number.to_string())).await.unwrap();
        }
        alpha.seen.reach(1).await;
        eventually("the others wait in the mailbox", || running.stats().in_flight == 5).await;
        assert_eq!(alpha.seen.all(), ["0 begins"]);
        alpha.gate.add_permits(5);
        let expected: Vec<String> = (0..5).flat_map(|n| [format!("{n} begins"), format!("{n} ends")]).collect();
        assert_eq!(alpha.seen.reach(10).await, expected);
        assert_eq!(alpha.most.load(Ordering::SeqCst), 1);
    }

    /// T161
    async fn many_slow_messages_in_flight_leave_the_actor_responsive(world: World) {
        let alpha = Alpha::default();
        let crowd = Crowd(alpha.clone());
        let running = world.start(App::new("crowd").actor(move || crowd.clone())).await;
        send(&running, "crowd.beside", 2_000).await;
        eventually("two thousand run", || alpha.running() == 2_000).await;
        for _ in 0..20 {
            running.bus().request_key::<u64>("crowd.tick", Payload::msgpack(&())).await.unwrap();
        }
        alpha.gate.add_permits(2_000);
        alpha.seen.reach(2_000).await;
    }

    /// T162: a flood for one actor; its neighbour on the same arbiter goes on answering while it lasts.
    async fn a_flood_for_one_actor_leaves_its_neighbour_answering(world: World) {
        let alpha = Alpha::default();
        let app = alpha.app().arbiter("shared").actor(Neighbour::default).arbiter("shared");
        let running = world.start(app).await;
        let flood = if world.url().is_some() { 5_000 } else { 100_000 };
        let bus = running.bus().clone();
        let sending = tokio::spawn(async move {
            for number in 0..flood {
                bus.send_key("alpha.quick", Payload::text(number.to_string())).await.unwrap();
            }
        });
        let mut answered = 0_u64;
        while !sending.is_finished() || running.stats().handled < flood {
            assert_eq!(running.bus().request_key::<u64>("neighbour.ask", Payload::msgpack(&answered)).await.unwrap(), answered);
            answered += 1;
            if alpha.seen.count() == flood as usize {
                break;
            }
        }
        sending.await.unwrap();
        alpha.seen.reach(flood as usize).await;
        assert!(answered >= 20, "only {answered} answers while the flood lasted");
    }

    async fn prefetch_that_exclusive_handlers_cannot_finish_in_time_is_refused(world: World) {
        let app = Alpha::default().app().configure(|config| {
            config.actors.entry("alpha".into()).or_default().prefetch = Some(65);
            config.consumer_timeout = Duration::from_secs(600);
        });
        let Err(error) = world.try_start(app).await else { panic!("it started") };
        let error = error.to_string();
        assert!(error.contains("consumer time-out of 600s") && error.contains("prefetch to 20 or less"), "{error}");
    }
}
