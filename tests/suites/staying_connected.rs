//! Everything that can go wrong between a service and its broker, made on purpose: nothing is lost, nothing hangs, and
//! everything consumes again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postrider::{App, Context, Failure, Options, Payload, RequestError, Running, SendError, distributed};
use postrider_tests::ledger::Ledger;
use postrider_tests::node::{ALARM, NO_ALARM, Node};
use postrider_tests::proxy::{Network, Proxy};
use postrider_tests::world::{PATIENCE, Seen, World, eventually, run};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

#[derive(Clone)]
struct Alpha {
    ledger: Ledger,
    seen: Seen<String>,
    broken: Arc<AtomicBool>,
    gate: Arc<Semaphore>,
}

impl Default for Alpha {
    fn default() -> Self {
        let gate = Arc::new(Semaphore::new(0));
        Self { ledger: Ledger::default(), seen: Seen::default(), broken: Arc::default(), gate }
    }
}

impl Alpha {
    fn app(&self) -> App {
        let alpha = self.clone();
        App::new("alpha").actor(move || alpha.clone())
    }
}

#[distributed(service = "alpha", retry = "1 then 200ms, 200ms, 200ms, 1s, 1s, 1s, 1s, 1s")]
impl Alpha {
    #[distributed(command = "alpha.do")]
    async fn act(&self, what: String, cx: &Context) -> Result<(), Failure> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(Failure::transient("broken"));
        }
        self.ledger.handles(cx.envelope().id.as_str());
        self.seen.add(what);
        Ok(())
    }

    #[distributed(command = "alpha.wait")]
    async fn wait(&self, what: String) {
        self.seen.add(format!("{what} began"));
        self.gate.acquire().await.unwrap().forget();
        self.seen.add(format!("{what} ended"));
    }

    #[distributed(query = "alpha.ask")]
    async fn ask(&self, _: ()) -> Result<u64, Failure> {
        Ok(self.seen.count() as u64)
    }

    #[distributed(query = "alpha.gated")]
    async fn gated(&self, _: ()) -> Result<u64, Failure> {
        self.gate.acquire().await.unwrap().forget();
        Ok(7)
    }

    #[distributed(query = "alpha.large")]
    async fn large(&self, bytes: usize) -> Result<String, Failure> {
        self.seen.add("large".into());
        Ok("x".repeat(bytes))
    }
}

#[derive(Clone, Default)]
struct Beta(Seen<String>);

#[distributed(service = "beta")]
impl Beta {
    #[distributed(command = "beta.note")]
    async fn note(&mut self, what: String) {
        self.0.add(what);
    }
}

fn node() -> Node {
    Node::start().unwrap_or_else(|error| {
        panic!("this test needs a RabbitMQ of its own (`cargo xtask test` installs one): {error}")
    })
}

/// Sends until told to stop; the ledger has what was accepted.
fn load(running: &Running, ledger: &Ledger, stop: &Arc<AtomicBool>, who: u32) -> tokio::task::JoinHandle<u64> {
    let (bus, ledger, stop) = (running.bus().clone(), ledger.clone(), Arc::clone(stop));
    tokio::spawn(async move {
        let mut number = 0;
        while !stop.load(Ordering::SeqCst) {
            let id = format!("m{who}-{number}");
            number += 1;
            ledger.attempts(&id);
            if bus.send_key_with("alpha.do", Payload::text(id.clone()), |o| o.id(id.as_str())).await.is_ok() {
                ledger.confirms(&id);
            }
        }
        number
    })
}

/// A message that is sent now is handled: nothing else proves that a service consumes.
async fn consumes(running: &Running, alpha: &Alpha, what: &str) {
    alpha.ledger.attempts(what);
    running.bus().send_key_with("alpha.do", Payload::text(what), |o| o.id(what)).await.unwrap();
    eventually("a message that is sent now is handled", || alpha.seen.all().contains(&what.to_owned())).await;
    eventually("ready", || running.health().ready).await;
}

async fn get(address: &str, path: &str) -> String {
    let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { return "no answer".into() };
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

on_both_brokers! {
    async fn a_paused_actor_takes_nothing_and_goes_on_when_it_is_resumed(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        consumes(&running, &alpha, "before").await;
        running.bus().send_key("alpha.wait", Payload::text("slow")).await.unwrap();
        alpha.seen.reach(2).await;
        running.pause("alpha").unwrap();
        running.pause("alpha").unwrap();
        for number in 0..20 {
            running.bus().send_key("alpha.do", Payload::text(number.to_string())).await.unwrap();
        }
        alpha.gate.add_permits(1);
        eventually("what ran has ended", || running.stats().in_flight == 0).await;
        eventually("it says that it is paused", || running.health().lanes.iter().any(|lane| lane.problem.as_deref() == Some("paused"))).await;
        let queue = world.names.queue("alpha", None);
        postrider_tests::world::eventually_async("all twenty wait", || async { world.ready(&queue).await == Some(20) }).await;
        assert_eq!(alpha.seen.all(), ["before", "slow began", "slow ended"]);
        assert!(running.health().ready, "it is paused on purpose");
        running.resume("alpha").unwrap();
        alpha.seen.reach(23).await;
        consumes(&running, &alpha, "after").await;
        assert_eq!((running.stats().dead_lettered, alpha.seen.count()), (0, 24));
        assert!(running.pause("nobody").unwrap_err().contains("\"alpha\""));
    }

    async fn a_restarted_consumer_is_a_new_one_and_what_runs_goes_on(world: World) {
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        running.bus().send_key("alpha.wait", Payload::text("slow")).await.unwrap();
        alpha.seen.reach(1).await;
        let opened = running.stats().consumers_opened;
        running.restart("alpha").unwrap();
        eventually("both lanes are opened again", || running.stats().consumers_opened == opened + 2).await;
        consumes(&running, &alpha, "meanwhile").await;
        alpha.gate.add_permits(1);
        eventually("all is settled", || running.stats().in_flight == 0).await;
        assert_eq!(alpha.seen.all(), ["slow began", "meanwhile", "slow ended"], "the redelivery took the outcome");
    }

    /// T68
    async fn a_circuit_breaker_pauses_tries_one_and_goes_on_and_loses_nothing(world: World) {
        let alpha = Alpha::default();
        let app = alpha.app().configure(|config| {
            config.breaker = Some("50% of 5 in 10s, pause 500ms".parse().unwrap());
            config.prefetch = 10;
        });
        let running = world.start(app).await;
        consumes(&running, &alpha, "before").await;
        alpha.broken.store(true, Ordering::SeqCst);
        for number in 0..100 {
            let id = format!("m{number}");
            alpha.ledger.attempts(&id);
            running.bus().send_key_with("alpha.do", Payload::text(id.clone()), |o| o.id(id.as_str())).await.unwrap();
            alpha.ledger.confirms(&id);
        }
        eventually("it has paused", || running.stats().failed_transient >= 5).await;
        let failed = running.stats().failed_transient;
        assert!(failed < 50, "{failed} of a hundred failed before it paused");
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let tried = running.stats().failed_transient - failed;
        assert!((1..=20).contains(&tried), "{tried} were tried while it was paused twice");
        alpha.broken.store(false, Ordering::SeqCst);
        let balance = alpha.ledger.balanced("circuit breaker").await;
        assert_eq!((balance.handled, running.stats().dead_lettered), (101, 0));
    }
}

/// The loudest complaint of all: it is connected, it consumes, and nothing comes.
#[test]
fn a_consumer_that_gets_nothing_although_messages_wait_is_opened_again() {
    run(async {
        let world = World::in_process();
        let alpha = Alpha::default();
        let running =
            world.start(alpha.app().configure(|config| config.stall_after = Duration::from_millis(300))).await;
        consumes(&running, &alpha, "before").await;
        tokio::time::sleep(Duration::from_millis(700)).await;
        assert_eq!(running.stats().stalls, 0, "an idle queue does not stall");
        world.in_process_broker().unwrap().mute(&world.names.queue("alpha", None));
        consumes(&running, &alpha, "after").await;
        assert_eq!(running.stats().stalls, 1);
    });
}

/// T45, T49, T52
#[test]
fn a_service_that_starts_before_its_broker_is_alive_unready_and_connects_later() {
    run(async {
        let mut node = node();
        let world = World::on(node.url());
        node.stop().unwrap();
        let alpha = Alpha::default();
        let address = "127.0.0.1:19745";
        let app = world.app(alpha.app()).configure(|config| config.health = Some(address.parse().unwrap()));
        let starting = tokio::spawn(app.start_as_configured());
        let start = Instant::now();
        while !get(address, "/ready").await.contains("cannot reach") {
            assert!(start.elapsed() < Duration::from_secs(20), "{}", get(address, "/ready").await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(get(address, "/ready").await.starts_with("HTTP/1.1 503"));
        assert!(get(address, "/live").await.starts_with("HTTP/1.1 200"));
        node.restart().unwrap();
        let running = starting.await.unwrap().unwrap();
        let ready = get(address, "/ready").await;
        assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("\"connected\":true"), "{ready}");
        consumes(&running, &alpha, "at last").await;
        node.kill().unwrap();
        eventually("unready without its broker", || !running.health().ready).await;
        assert!(get(address, "/ready").await.starts_with("HTTP/1.1 503"));
        running.stop().await;
        assert_eq!(get(address, "/live").await, "no answer");
    });
}

/// T44 with a real SIGKILL, T35
#[test]
fn nothing_confirmed_is_lost_when_the_broker_is_killed_twice_under_load() {
    run(async {
        let mut node = node();
        let world = World::on(node.url());
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let stop = Arc::new(AtomicBool::new(false));
        let loads: Vec<_> = (0..4).map(|who| load(&running, &alpha.ledger, &stop, who)).collect();
        for round in 1..=2 {
            alpha.seen.reach(round * 500).await;
            // A queue that is younger than this does not come back from a kill (seen with RabbitMQ 3.10).
            tokio::time::sleep(Duration::from_secs(1)).await;
            node.kill().unwrap();
            node.restart().unwrap();
            eventually("ready again", || running.health().ready).await;
        }
        consumes(&running, &alpha, "after").await;
        stop.store(true, Ordering::SeqCst);
        for load in loads {
            load.await.unwrap();
        }
        let balance = alpha.ledger.balanced("SIGKILL of the broker").await;
        assert!(balance.confirmed > 1_000, "{balance}");
        running.stop().await;
    });
}

/// T34: the broker is there and does not answer.
#[test]
fn publications_end_in_time_while_the_broker_is_frozen_and_go_on_when_it_thaws() {
    run(async {
        let mut node = node();
        let world = World::on(node.url());
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        consumes(&running, &alpha, "before").await;
        node.freeze().unwrap();
        let (start, patience) = (Instant::now(), Duration::from_secs(2));
        let bus = running.bus();
        let sends = (0..50).map(|_| bus.send_key_with("alpha.do", Payload::text("frozen"), |o| o.timeout(patience)));
        for result in futures::future::join_all(sends).await {
            let error = result.unwrap_err();
            assert!(matches!(error, SendError::Unknown { .. }), "{error}");
        }
        assert!(start.elapsed() < patience + Duration::from_secs(3), "it took {:?}", start.elapsed());
        node.thaw().unwrap();
        consumes(&running, &alpha, "after").await;
        running.stop().await;
    });
}

/// What is alone is put on its channel by whoever sends it, and its time is over sooner than that of anything before it.
#[test]
fn a_message_or_a_request_that_is_alone_ends_in_time_while_the_broker_is_frozen() {
    run(async {
        let mut node = node();
        let world = World::on(node.url());
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let patience = Duration::from_secs(1);
        for asks in [false, true] {
            // Each is the first on its client that is frozen, so that nothing else has had the owner look.
            let client = world.client().await;
            for number in 0..3 {
                client.bus().send_key("alpha.do", Payload::text(format!("{asks} {number}"))).await.unwrap();
                client.bus().request_key::<u64>("alpha.ask", Payload::msgpack(&())).await.unwrap();
            }
            // Time itself is what is waited for: replies are no longer expected.
            tokio::time::sleep(Duration::from_millis(20)).await;
            node.freeze().unwrap();
            let start = Instant::now();
            let (bus, of) = (client.bus(), |o: Options| o.timeout(patience));
            let error = if asks {
                bus.request_key_with::<u64>("alpha.ask", Payload::msgpack(&()), of).await.unwrap_err().to_string()
            } else {
                let error = bus.send_key_with("alpha.do", Payload::text("frozen"), of).await.unwrap_err();
                assert!(matches!(error, SendError::Unknown { .. }), "{error}");
                error.to_string()
            };
            assert!(start.elapsed() < patience + Duration::from_secs(3), "it took {:?}: {error}", start.elapsed());
            node.thaw().unwrap();
            client.bus().request_key::<u64>("alpha.ask", Payload::msgpack(&())).await.unwrap();
            client.stop().await;
        }
        consumes(&running, &alpha, "after").await;
        running.stop().await;
    });
}

/// T47: no reset, no end, no byte.
#[test]
fn a_network_that_swallows_everything_is_noticed_by_heartbeats() {
    run(async {
        let node = node();
        let proxy = Proxy::start(node.port()).await;
        let world = World::on(format!("{}/?heartbeat=2", proxy.url()));
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        consumes(&running, &alpha, "before").await;
        let epoch = running.connection().borrow().epoch;
        proxy.set(Network::BlackHole);
        let start = Instant::now();
        eventually("unready", || !running.health().ready).await;
        eventually("both connections are lost", || !running.connection().borrow().up).await;
        assert!(start.elapsed() < Duration::from_secs(10), "noticed only after {:?}", start.elapsed());
        proxy.set(Network::Fine);
        consumes(&running, &alpha, "after").await;
        assert!(running.connection().borrow().epoch > epoch);
        proxy.set(Network::Cut);
        eventually("unready", || !running.health().ready).await;
        proxy.set(Network::Fine);
        consumes(&running, &alpha, "after the cut").await;
        running.stop().await;
    });
}

/// T48
#[test]
fn a_memory_alarm_holds_up_publishers_and_not_consumers() {
    run(async {
        let node = node();
        let world = World::on(node.url());
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        running.pause("alpha").unwrap();
        for number in 0..20 {
            running.bus().send_key("alpha.do", Payload::text(number.to_string())).await.unwrap();
        }
        let bus = running.bus().clone();
        node.ctl(&["eval", ALARM]).unwrap();
        let patience = Duration::from_secs(2);
        let held = bus.send_key_with("alpha.do", Payload::text("held"), |o| o.timeout(patience)).await.unwrap_err();
        assert!(matches!(held, SendError::Unknown { .. } | SendError::Broker(_)), "{held}");
        eventually("health says so", || running.health().blocked).await;
        running.resume("alpha").unwrap();
        alpha.seen.reach(20).await;
        let waiting = tokio::spawn(async move { bus.send_key("alpha.do", Payload::text("waits")).await });
        node.ctl(&["eval", NO_ALARM]).unwrap();
        waiting.await.unwrap().unwrap();
        eventually("it is over", || !running.health().blocked).await;
        consumes(&running, &alpha, "after").await;
        running.stop().await;
    });
}

/// The broker blocks a connection at the first message that it sends. From then on answers are held until they have left.
#[test]
fn an_answer_leaves_when_the_broker_takes_messages_again() {
    run(async {
        let node = node();
        let world = World::on(node.url());
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let client = world.client().await;
        let ask = || {
            let bus = client.bus().clone();
            let ask = async move {
                bus.request_key_with::<u64>("alpha.gated", Payload::msgpack(&()), |o| o.timeout(PATIENCE)).await
            };
            tokio::spawn(ask)
        };
        let asked = [ask(), ask()];
        eventually("they are asked", || running.stats().in_flight == 2).await;
        node.ctl(&["eval", ALARM]).unwrap();
        alpha.gate.add_permits(1);
        eventually("one is handled", || running.stats().handled == 1).await;
        let blocked = || {
            let connections = node.ctl(&["-q", "list_connections", "state", "client_properties"]).unwrap();
            connections.lines().any(|line| line.contains("(answering)") && line.starts_with("block"))
        };
        eventually("the broker takes no answers", blocked).await;
        eventually("health says so", || running.health().blocked).await;
        eventually("one is held", || running.stats().in_flight == 1).await;
        alpha.gate.add_permits(1);
        eventually("the other is handled", || running.stats().handled == 2).await;
        assert!(asked.iter().any(|asked| !asked.is_finished()), "the answer cannot have left");
        assert_eq!(running.stats().in_flight, 1, "it is held until then");
        node.ctl(&["eval", NO_ALARM]).unwrap();
        for asked in asked {
            assert_eq!(asked.await.unwrap().unwrap(), 7);
        }
        eventually("it is settled", || running.stats().in_flight == 0).await;
        client.stop().await;
        running.stop().await;
    });
}

/// An answer costs its channel when the broker takes none of that size. The query comes again once, and is then answered
/// on the channel that finds out which message is refused.
#[test]
fn an_answer_that_the_broker_refuses_does_not_bring_its_query_again_for_ever() {
    run(async {
        let node = node();
        node.ctl(&[
            "eval",
            "application:set_env(rabbit, max_message_size, 65536), persistent_term:put(max_message_size, 65536).",
        ])
        .unwrap();
        let world = World::on(node.url());
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        let client = world.client().await;
        let ask = |bytes: usize| {
            let bus = client.bus().clone();
            async move {
                let patience = Duration::from_secs(3);
                let asked =
                    bus.request_key_with::<String>("alpha.large", Payload::msgpack(&bytes), |o| o.timeout(patience));
                asked.await.map(|answer| answer.len())
            }
        };
        assert_eq!(ask(1_000).await.unwrap(), 1_000);
        let refused = ask(100_000).await.unwrap_err();
        assert!(matches!(refused, RequestError::TimedOut { .. }), "{refused}");
        eventually("it is settled", || running.stats().in_flight == 0).await;
        let runs = alpha.seen.count();
        assert!((2..=3).contains(&runs), "it was handled {} times", runs - 1);
        assert_eq!(ask(1_000).await.unwrap(), 1_000);
        assert_eq!(alpha.seen.count(), runs + 1, "the refused one does not come again");
        client.stop().await;
        running.stop().await;
    });
}

/// Longer than a confirm is waited for on one channel: whoever wants to know sooner does.
#[test]
fn a_connection_that_is_blocked_from_its_beginning_says_so_and_goes_on_when_the_alarm_ends() {
    let node = node();
    run(async {
        let (world, alpha) = (World::on(node.url()), Alpha::default());
        let _running = world.start(alpha.app()).await;
        let client = world.client().await;
        let mut connection = client.connection();
        node.ctl(&["eval", ALARM]).unwrap();
        node.ctl(&["close_all_connections", "test"]).unwrap();
        connection.wait_for(|state| state.up && state.epoch > 1).await.unwrap();
        let send = client.bus().send_key("alpha.do", Payload::text("ok"));
        let (sent, ()) = tokio::join!(send, async {
            connection.wait_for(|state| state.blocked).await.unwrap();
            node.ctl(&["eval", NO_ALARM]).unwrap();
        });
        sent.unwrap();
        connection.wait_for(|state| !state.blocked).await.unwrap();
    });
}

#[test]
fn publications_end_in_time_also_when_the_alarm_lasts() {
    run(async {
        let node = node();
        let world = World::on(node.url());
        let alpha = Alpha::default();
        let running = world.start(alpha.app()).await;
        consumes(&running, &alpha, "before").await;
        node.ctl(&["eval", ALARM]).unwrap();
        let (began, patience) = (Instant::now(), Duration::from_secs(1));
        while began.elapsed() < Duration::from_secs(45) {
            let start = Instant::now();
            let sent = running.bus().send_key_with("alpha.do", Payload::text("held"), |o| o.timeout(patience)).await;
            assert!(sent.is_err(), "the broker took it");
            assert!(start.elapsed() < patience + Duration::from_secs(3), "it took {:?}", start.elapsed());
        }
        node.ctl(&["eval", NO_ALARM]).unwrap();
        consumes(&running, &alpha, "after").await;
        running.stop().await;
    });
}

/// T42, T43, T50: one channel, one queue, one wrong queue.
#[test]
fn a_queue_in_trouble_comes_back_and_its_neighbours_do_not_notice() {
    run(async {
        let node = node();
        // The broker looks at its consumer time-out every second, for channels that are opened from now on.
        for (setting, millis) in [("consumer_timeout", 3_000), ("channel_tick_interval", 1_000)] {
            node.ctl(&["eval", &format!("application:set_env(rabbit, {setting}, {millis}).")]).unwrap();
        }
        let world = World::on(node.url());
        let (alpha, beta) = (Alpha::default(), Beta::default());
        let actor = beta.clone();
        let running = world.start(alpha.app().actor(move || actor.clone())).await;
        let (queue, broker) = (world.names.queue("alpha", None), world.broker().await);
        let opened = || running.stats().consumers_opened;
        let epoch = running.connection().borrow().epoch;
        let before = opened();
        node.ctl(&["delete_queue", &queue]).unwrap();
        eventually("the lane is opened again, and no other", || opened() == before + 1).await;
        consumes(&running, &alpha, "after the queue was deleted").await;
        // The consumer time-out of the broker closes the channel of one lane.
        running.bus().send_key("alpha.wait", Payload::text("long")).await.unwrap();
        eventually("its channel is closed", || opened() >= before + 2).await;
        alpha.gate.add_permits(1);
        eventually("the redelivery is settled", || running.stats().in_flight == 0).await;
        let began = alpha.seen.all().iter().filter(|what| *what == "long began").count();
        assert_eq!(began, 1, "it ran once");
        // Somebody puts another queue in its place.
        let wrong = postrider::broker::Queue::on_one_node(queue.clone());
        let topology = postrider::broker::Topology::of_queues([wrong]);
        broker.remove(&topology).await.unwrap();
        broker.declare(&topology).await.unwrap();
        running.restart("alpha").unwrap();
        eventually("unready, and it says why", || {
            let lanes = running.health().lanes;
            let lane = lanes.iter().find(|lane| lane.queue == queue);
            lane.is_some_and(|lane| lane.problem.as_deref().is_some_and(|problem| problem.contains("other arguments")))
        })
        .await;
        running.bus().send_key("beta.note", Payload::text("meanwhile")).await.unwrap();
        beta.0.reach(1).await;
        broker.remove(&topology).await.unwrap();
        eventually("ready again", || running.health().ready).await;
        consumes(&running, &alpha, "after the wrong queue was removed").await;
        assert_eq!(running.connection().borrow().epoch, epoch, "the connection for publishing never broke");
        let query = world.names.query_queue(&queue);
        let unharmed = [query, world.names.queue("beta", None), world.names.due()];
        let lanes = running.health().lanes;
        for lane in lanes.iter().filter(|lane| unharmed.contains(&lane.queue)) {
            assert_eq!(lane.epochs, 1 + u64::from(lane.queue.ends_with(".query")), "{} was disturbed", lane.queue);
        }
        broker.close().await;
        running.stop().await;
    });
}

/// T41
#[test]
fn twenty_killed_connections_under_load_lose_nothing() {
    run(async {
        let node = node();
        let world = World::on(node.url());
        let alpha = Alpha::default();
        let (one, two) = (world.start(alpha.app()).await, world.start(alpha.app()).await);
        let stop = Arc::new(AtomicBool::new(false));
        let loading = load(&one, &alpha.ledger, &stop, 0);
        let topology = || node.ctl(&["-q", "list_bindings", "source_name", "routing_key", "destination_name"]).unwrap();
        let before = topology();
        for kill in 1..=20_u64 {
            let epoch = one.connection().borrow().epoch;
            node.ctl(&["close_all_connections", "test"]).unwrap();
            eventually("a new connection", || one.connection().borrow().epoch > epoch).await;
            alpha.seen.reach(usize::try_from(kill).unwrap() * 20).await;
        }
        stop.store(true, Ordering::SeqCst);
        loading.await.unwrap();
        let balance = alpha.ledger.balanced("twenty killed connections").await;
        assert!(balance.confirmed >= 400, "{balance}");
        // What is exclusive to a connection comes back with the next one.
        eventually("bindings neither grow nor are lost", || topology().lines().count() == before.lines().count()).await;
        let channels = node.ctl(&["-q", "list_channels", "pid"]).unwrap().lines().count();
        assert!(channels < 30, "{channels} channels");
        consumes(&one, &alpha, "after").await;
        one.stop().await;
        two.stop().await;
    });
}

/// T119 for a fleet: three instances are replaced one after the other.
#[test]
fn a_rolling_restart_of_three_instances_under_load_loses_nothing() {
    run(async {
        let world = World::rabbitmq();
        let (alpha, client) = (Alpha::default(), world.client().await);
        let mut fleet = Vec::new();
        for _ in 0..3 {
            fleet.push(world.start(alpha.app()).await);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let loads: Vec<_> = (0..3).map(|who| load(&client, &alpha.ledger, &stop, who)).collect();
        for round in 1..=3 {
            alpha.seen.reach(round * 300).await;
            fleet.remove(0).stop().await;
            fleet.push(world.start(alpha.app()).await);
        }
        stop.store(true, Ordering::SeqCst);
        for load in loads {
            load.await.unwrap();
        }
        let balance = alpha.ledger.balanced("rolling restart").await;
        assert_eq!(balance.duplicated, 0, "nobody crashed: {balance}");
        for running in fleet {
            running.stop().await;
        }
    });
}
