//! The doctor: a sound system has no problem, and each promise that is broken turns its row.

use std::time::Duration;

use postrider::adapter::http::Management;
use postrider::broker::{Claim, Queue, Source, Subscription, Topology};
use postrider::operate::{Doctor, Finding, Verdict};
use postrider::{App, Bus, Failure, Kind, Payload, Running, Secret, distributed};
use postrider_tests::node::{ALARM, NO_ALARM, Node};
use postrider_tests::program::operator;
use postrider_tests::world::{World, eventually, run};

#[derive(Clone, Default)]
struct Alpha;

#[distributed(service = "alpha")]
impl Alpha {
    #[distributed(command = "alpha.do")]
    async fn take(&mut self, _: String) -> Result<(), Failure> {
        Err(Failure::permanent("it cannot"))
    }

    #[distributed(query = "alpha.ask")]
    async fn ask(&self, _: ()) -> Result<u64, Failure> {
        Ok(7)
    }
}

/// The version before: it listened to an event more.
struct Before;

#[distributed(service = "alpha")]
impl Before {
    #[distributed(event = "beta.changed")]
    async fn changed(&mut self, _: String) {}
}

/// It mends nothing by itself while it is examined.
async fn start(world: &World) -> Running {
    let app = App::new("alpha").actor(|| Alpha);
    world.start(app.configure(|config| config.stall_after = Duration::from_secs(600))).await
}

async fn examine(bus: &Bus) -> Vec<Finding> {
    Doctor::new(bus).waiting(Duration::from_millis(700)).examine().await.unwrap()
}

/// The row of a check, of something whose name ends like this.
fn row<'a>(findings: &'a [Finding], check: &str, subject: &str) -> &'a Finding {
    let found = findings.iter().find(|row| row.check == check && row.subject.ends_with(subject));
    found.unwrap_or_else(|| panic!("no row {check:?} of {subject:?} in {findings:#?}"))
}

fn problems(findings: &[Finding]) -> Vec<&Finding> {
    findings.iter().filter(|row| row.verdict == Verdict::Problem).collect()
}

/// Puts a queue with other arguments where the actor's is.
async fn replace(world: &World, name: &str, other: Queue) {
    let broker = world.broker().await;
    let gone = Topology::of_queues([Queue::standing(name)]);
    broker.remove(&gone).await.unwrap();
    // The lane may have made its own again meanwhile.
    while broker.declare(&Topology::of_queues([other.clone()])).await.is_err() {
        broker.remove(&gone).await.unwrap();
    }
    broker.close().await;
}

async fn remove(world: &World, topology: Topology) {
    let broker = world.broker().await;
    broker.remove(&topology).await.unwrap();
    broker.close().await;
}

on_both_brokers! {
    async fn a_sound_system_has_no_problem_and_every_row_says_where_it_was_learnt(world: World) {
        let running = start(&world).await;
        let findings = examine(running.bus()).await;
        assert_eq!(problems(&findings), Vec::<&Finding>::new());
        for (check, subject) in [
            ("confirms", "broker"), ("exchanges", ""), ("delays", "delay.out"), ("process", "alpha"), ("claim", "alpha"), ("queue", ".alpha"),
            ("queue", ".alpha.query"), ("durability", ".alpha"), ("delivery limit", ".alpha"), ("dead-letter queue", ".dead"),
            ("dead letters", ".dead"), ("stale bindings", "alpha"), ("lanes", ""),
        ] {
            assert_eq!(row(&findings, check, subject).verdict, Verdict::Ok, "{check}: {findings:#?}");
        }
        // In process nobody else can delete any.
        let bound = if world.url().is_some() { Verdict::Ok } else { Verdict::NotChecked };
        assert_eq!(row(&findings, "bindings", ".alpha").verdict, bound);
        for check in ["policies", "replicas"] {
            let row = row(&findings, check, ".alpha");
            assert_eq!((row.verdict, row.text.as_str()), (Verdict::NotChecked, "not checked (needs --management URL)"));
        }
        assert!(findings.iter().all(|row| !row.source.is_empty() && !row.text.is_empty()), "{findings:#?}");
    }

    async fn a_queue_with_other_arguments_turns_durability_and_lanes(world: World) {
        let running = start(&world).await;
        let queue = world.names.queue("alpha", None);
        replace(&world, &queue, Queue::on_one_node(&queue)).await;
        eventually("the lane is not ready", || !running.health().ready).await;
        let findings = examine(running.bus()).await;
        assert_eq!(row(&findings, "durability", ".alpha").verdict, Verdict::Problem);
        assert!(row(&findings, "durability", ".alpha").text.contains("topology migrate"), "{findings:#?}");
        assert_eq!(row(&findings, "lanes", "").verdict, Verdict::Problem);
        assert_eq!(row(&findings, "queue", ".alpha").verdict, Verdict::Problem, "nobody consumes it");
    }

    async fn another_delivery_limit_turns_its_row(world: World) {
        let running = start(&world).await;
        let queue = world.names.queue("alpha", None);
        let other = Queue::replicated(&queue).with_delivery_limit(5).with_last_resort(world.names.dead_queue(&queue));
        replace(&world, &queue, other).await;
        let findings = examine(running.bus()).await;
        let row = row(&findings, "delivery limit", ".alpha");
        assert!(row.verdict == Verdict::Problem && row.text.contains("x-delivery-limit") && row.text.contains('5'), "{row:?}");
    }

    async fn a_missing_queue_dead_letter_queue_or_claim_turns_its_row(world: World) {
        let running = start(&world).await;
        running.pause("alpha").unwrap();
        eventually("it is paused", || running.health().lanes.iter().filter(|lane| lane.problem.is_some()).count() == 2).await;
        let findings = examine(running.bus()).await;
        assert_eq!(row(&findings, "queue", ".alpha").verdict, Verdict::Warning, "it is paused on purpose");
        assert_eq!(row(&findings, "lanes", "").verdict, Verdict::Warning);
        let queue = world.names.queue("alpha", None);
        let claimed_by = |service: &str| vec![Claim { domain: "alpha".into(), service: service.into() }];
        let queues = [queue.clone(), world.names.dead_queue(&queue)].map(Queue::standing).to_vec();
        remove(&world, Topology { claims: claimed_by("alpha"), queues, ..Topology::default() }).await;
        let findings = examine(running.bus()).await;
        for (check, subject) in [("queue", ".alpha"), ("dead-letter queue", ".alpha.dead"), ("claim", "alpha")] {
            assert_eq!(row(&findings, check, subject).verdict, Verdict::Problem, "{check}: {findings:#?}");
        }
        let broker = world.broker().await;
        broker.declare(&Topology { claims: claimed_by("thief"), ..Topology::default() }).await.unwrap();
        let findings = examine(running.bus()).await;
        let claim = row(&findings, "claim", "alpha");
        assert!(claim.verdict == Verdict::Problem && claim.text.contains("thief"), "{claim:?}");
    }

    async fn a_missing_exchange_is_seen_and_not_made(world: World) {
        let running = start(&world).await;
        let gone = world.names.exchange(Kind::Command);
        remove(&world, Topology { sources: vec![Source::Kind(Kind::Command)], ..Topology::default() }).await;
        for _ in 0..2 {
            let findings = examine(running.bus()).await;
            let exchanges = row(&findings, "exchanges", "");
            assert!(exchanges.verdict == Verdict::Problem && exchanges.text.contains(&*gone), "{exchanges:?}");
        }
    }

    async fn an_unfinished_migration_is_seen_also_when_no_process_runs(world: World) {
        start(&world).await.stop().await;
        let client = world.client().await;
        let queue = world.names.queue("alpha", None);
        for queue in [&queue, &world.names.dead_queue(&queue)] {
            let begun = Queue::replicated(format!("{queue}.migrating"));
            world.broker().await.declare(&Topology::of_queues([begun])).await.unwrap();
        }
        let findings = examine(client.bus()).await;
        for (check, subject) in [("queue", ".alpha"), ("dead letters", ".alpha.dead")] {
            let row = row(&findings, check, subject);
            assert!(row.verdict == Verdict::Problem && row.text.contains("not finished"), "{row:?}");
        }
    }

    async fn what_waits_for_nobody_stale_bindings_and_dead_letters_are_seen(world: World) {
        let before = world.start(App::new("alpha").actor(|| Before)).await;
        before.stop().await;
        let running = start(&world).await;
        running.bus().send_key("alpha.do", Payload::text("x")).await.unwrap();
        eventually("it is given up", || running.stats().dead_lettered == 1).await;
        let findings = examine(running.bus()).await;
        let stale = row(&findings, "stale bindings", "alpha");
        assert!(stale.verdict == Verdict::Problem && stale.text.contains("beta.changed"), "{stale:?}");
        let letters = row(&findings, "dead letters", ".dead");
        assert!(letters.verdict == Verdict::Warning && letters.text.starts_with("1 wait, for up to "), "{letters:?}");
        running.stop().await;
        let client = world.client().await;
        let findings = examine(client.bus()).await;
        assert_eq!(row(&findings, "process", "alpha").verdict, Verdict::Warning, "it may be meant");
        client.bus().send_key("alpha.do", Payload::text("y")).await.unwrap();
        let findings = examine(client.bus()).await;
        let process = row(&findings, "process", "alpha");
        assert!(process.verdict == Verdict::Problem && process.text.contains("1 messages wait"), "{process:?}");
        assert_eq!(row(&findings, "dead letters", ".dead").verdict, Verdict::Warning);
    }

    async fn a_missing_level_of_delays_turns_its_row(world: World) {
        let running = start(&world).await;
        let delayed = |o: postrider::Options| o.delay(Duration::from_secs(3_600));
        running.bus().send_key_with("alpha.do", Payload::text("x"), delayed).await.unwrap();
        let findings = examine(running.bus()).await;
        assert!(row(&findings, "delays", "delay.out").text.starts_with("25 levels"), "{findings:#?}");
        assert_eq!(row(&findings, "due", ".due").verdict, Verdict::Ok);
        let level = Queue::standing(world.names.delay_level(3));
        remove(&world, Topology::of_queues([level.clone()])).await;
        let findings = examine(running.bus()).await;
        let delays = row(&findings, "delays", "delay.out");
        assert!(delays.verdict == Verdict::Problem && delays.text.contains(&level.name), "{delays:?}");
    }
}

/// What needs a node of its own: policies, bindings, an alarm.
#[test]
fn policies_bindings_and_an_alarm_are_seen() {
    run(async {
        let mut node = Node::start().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listen = format!("management.tcp.port = {free}\nmanagement.tcp.ip = 127.0.0.1");
        node.restart_with(&["rabbitmq_management"], &listen).unwrap();
        let world = World::on(node.url());
        let running = start(&world).await;
        let address = format!("http://guest:guest@127.0.0.1:{free}");
        let managed = || async {
            let management = Management::new(&Secret::new(&address)).unwrap();
            let doctor = Doctor::new(running.bus()).waiting(Duration::from_millis(700)).management(management);
            doctor.examine().await.unwrap()
        };
        let findings = managed().await;
        assert_eq!(problems(&findings), Vec::<&Finding>::new());
        for check in ["policies", "replicas", "bindings"] {
            assert_eq!(row(&findings, check, ".alpha").verdict, Verdict::Ok, "{findings:#?}");
        }
        assert!(row(&findings, "policies", ".alpha").source.contains("GET /api/queues/"));

        node.ctl(&["set_policy", "short", r"\.alpha$", r#"{"message-ttl":1000}"#]).unwrap();
        let queue = world.names.queue("alpha", None);
        let lost = Subscription::new(Kind::Command, "alpha.do", &queue);
        remove(&world, Topology { subscriptions: vec![lost], ..Topology::default() }).await;
        let start = std::time::Instant::now();
        // The management API's view is up to some seconds old.
        let findings = loop {
            let findings = managed().await;
            if problems(&findings).len() >= 2 || start.elapsed() > postrider_tests::world::PATIENCE {
                break findings;
            }
        };
        let policies = row(&findings, "policies", ".alpha");
        assert!(policies.verdict == Verdict::Problem && policies.text.contains("message-ttl = 1000"), "{policies:?}");
        let bindings = row(&findings, "bindings", ".alpha");
        assert!(bindings.verdict == Verdict::Problem && bindings.text.contains("alpha.do"), "{bindings:?}");

        let (fine, rows, problem) = operator(&world, &["doctor", "--management", &address, "--wait", "700ms"]).await;
        assert!(!fine && problem.contains("found a problem"), "{rows}{problem}");
        assert!(rows.lines().any(|line| line.starts_with("PROBLEM") && line.contains("message-ttl")), "{rows}");
        let (_, rows, _) = operator(&world, &["doctor", "--json", "--wait", "700ms"]).await;
        for line in rows.lines() {
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(json["verdict"].is_string() && json["source"].is_string(), "{line}");
        }
        let (fine, _, problem) = operator(&world, &["doctor", "--management", "http://u:hunter2@x:y:z/"]).await;
        assert!(!fine || !problem.contains("hunter2"), "{problem}");

        node.ctl(&["eval", ALARM]).unwrap();
        let findings = examine(running.bus()).await;
        assert_eq!(row(&findings, "confirms", "broker").verdict, Verdict::Problem, "{findings:#?}");
        assert_eq!(row(&findings, "process", "alpha").verdict, Verdict::NotChecked);
        node.ctl(&["eval", NO_ALARM]).unwrap();
        eventually("it takes messages again", || !running.health().blocked).await;
        assert_eq!(row(&examine(running.bus()).await, "confirms", "broker").verdict, Verdict::Ok);
    });
}
