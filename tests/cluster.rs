//! A broker of three nodes loses one of them under load: nothing that was confirmed is lost, and the services go on
//! with the other two. Heavy, so it is no part of the suites: `cargo xtask test --only cluster`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use postrider::inbound::QueryQueue;
use postrider::operate::{DeadFilter, DeadLetters};
use postrider::{App, Context, Failure, Payload, Running, SendError, distributed};
use postrider_tests::cluster::{Cluster, NODES};
use postrider_tests::ledger::{Balance, Ledger};
use postrider_tests::node::send;
use postrider_tests::world::{PATIENCE, Seen, World, eventually, run_within};

/// How long one test may take, from the start of its nodes on.
const LIMIT: Duration = Duration::from_secs(300);
/// How long it may take until so many messages as are asked for went through.
const FLOW_LIMIT: Duration = Duration::from_secs(90);
/// How many messages are confirmed and handled in each part of a test.
const MANY: usize = 2_000;
/// How many publish at once, per app.
const PUBLISHERS: usize = 12;

/// Whose turn it is: the nodes of two tests at once would be too much for a small machine.
static TURN: Mutex<()> = Mutex::new(());

fn run<F: Future>(test: F) -> F::Output {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    run_within(LIMIT, test)
}

fn cluster() -> Cluster {
    Cluster::start().unwrap_or_else(|error| {
        panic!("this test needs a RabbitMQ cluster of its own (`cargo xtask test` installs RabbitMQ): {error}")
    })
}

/// The namespace of `world`, reached through this node first.
fn through(node: usize, cluster: &Cluster, world: &World) -> World {
    let mut through = World::on(cluster.urls_from(node));
    through.names = world.names.clone();
    through
}

#[derive(Clone, Default)]
struct Alpha {
    ledger: Ledger,
    handled: Arc<AtomicUsize>,
}

impl Alpha {
    fn app(&self) -> App {
        let alpha = self.clone();
        // A queue of one node would be away with that node.
        App::new("alpha").actor(move || alpha.clone()).configure(|config| config.query_queue = QueryQueue::Quorum)
    }
}

#[distributed(service = "alpha")]
impl Alpha {
    #[distributed(command = "alpha.do")]
    async fn act(&self, _: String, cx: &Context) -> Result<(), Failure> {
        self.ledger.handles(cx.envelope().id.as_str());
        self.handled.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    #[distributed(query = "alpha.ask")]
    async fn ask(&self, number: u64) -> Result<u64, Failure> {
        Ok(number + 1)
    }
}

#[derive(Clone, Default)]
struct Beta(Seen<String>);

#[distributed(service = "beta", guarantee = "at_most_once")]
impl Beta {
    #[distributed(command = "beta.note")]
    async fn note(&self, what: String) {
        self.0.add(what);
    }
}

/// Publishers that go on until they are told to stop; the ledger has what was accepted.
struct Load {
    alpha: Alpha,
    confirmed: Arc<AtomicUsize>,
    /// Why the last message that was not confirmed was not.
    refusal: Arc<Mutex<String>>,
    stop: Arc<AtomicBool>,
    publishers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(alpha: &Alpha, apps: &[&Running]) -> Self {
        let (confirmed, refusal, stop) = (Arc::default(), Arc::<Mutex<String>>::default(), Arc::default());
        let mut publishers = Vec::new();
        for who in 0..apps.len() * PUBLISHERS {
            let (bus, ledger) = (apps[who % apps.len()].bus().clone(), alpha.ledger.clone());
            let (confirmed, refusal) = (Arc::<AtomicUsize>::clone(&confirmed), Arc::clone(&refusal));
            let stop = Arc::<AtomicBool>::clone(&stop);
            publishers.push(tokio::spawn(async move {
                for number in 0_u64.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let id = format!("m{who}-{number}");
                    ledger.attempts(&id);
                    match bus.send_key_with("alpha.do", Payload::text(id.clone()), |o| o.id(id.as_str())).await {
                        Ok(_) => {
                            ledger.confirms(&id);
                            confirmed.fetch_add(1, Ordering::SeqCst);
                        }
                        // While the queue has no leader the broker rejects what comes.
                        Err(error) => *refusal.lock().unwrap() = error.to_string(),
                    }
                }
            }));
        }
        Self { alpha: alpha.clone(), confirmed, refusal, stop, publishers }
    }

    /// Many messages are confirmed and handled from now on: nothing else proves that it works.
    async fn flows(&self, when: &str, cluster: &Cluster, queue: &str) {
        let counts = || (self.confirmed.load(Ordering::SeqCst), self.alpha.handled.load(Ordering::SeqCst));
        let (begin, (confirmed, handled)) = (Instant::now(), counts());
        loop {
            let now = counts();
            if now.0 >= confirmed + MANY && now.1 >= handled + MANY {
                println!("{when}: {MANY} messages after {:?}, {} confirmed so far", begin.elapsed(), now.0);
                return;
            }
            assert!(
                begin.elapsed() < FLOW_LIMIT,
                "{when}: within {FLOW_LIMIT:?} only {} confirmed and {} handled, not {MANY}; {}; the queue: {}\n{}",
                now.0 - confirmed,
                now.1 - handled,
                self.refusal.lock().unwrap(),
                cluster.copies_of(queue),
                cluster.logs()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops, and waits until every confirmed message was handled or is a dead letter.
    async fn books(mut self, scenario: &str, running: &Running) -> Balance {
        self.stop.store(true, Ordering::SeqCst);
        for publisher in std::mem::take(&mut self.publishers) {
            publisher.await.unwrap();
        }
        let begin = Instant::now();
        while self.alpha.ledger.balance().lost > 0 && begin.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for letter in DeadLetters::new(running.bus()).list(&DeadFilter::all()).await.unwrap() {
            println!("dead letter {}: {} {}", letter.id(), letter.reason(), letter.error());
            self.alpha.ledger.buries(letter.id());
        }
        self.alpha.ledger.balanced(scenario).await
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // A test that fails must end: on an app that has stopped its publishers would fail for ever without a pause.
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// It is ready, also for requests.
async fn works(running: &Running, who: &str) {
    let begin = Instant::now();
    while !running.health().ready {
        assert!(begin.elapsed() < PATIENCE, "{who} is not ready: {:?}", running.health());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let answer = running.bus().request_key::<u64>("alpha.ask", Payload::json(&41_u64)).await;
    assert_eq!(answer.unwrap_or_else(|error| panic!("{who}: {error}")), 42);
}

/// A service at the leader and one elsewhere; publishers in both. One loses its connections, the other only the leader.
#[test]
fn nothing_confirmed_is_lost_when_the_leader_of_a_queue_is_killed_under_load() {
    run(async {
        let mut cluster = cluster();
        let world = World::on(cluster.urls());
        let (alpha, queue) = (Alpha::default(), world.names.queue("alpha", None));
        let one = world.start(alpha.app()).await;
        let leader = cluster.leader_of(&queue).unwrap();
        let other = (leader + 1) % NODES;
        let two = through(other, &cluster, &world).start(alpha.app()).await;
        // A queue that is younger than its first confirmed messages does not come back from a kill (RabbitMQ 3.10).
        cluster.await_whole(&queue).unwrap();
        let load = Load::start(&alpha, &[&one, &two]);
        load.flows("before", &cluster, &queue).await;
        let epochs = (one.connection().borrow().epoch, two.connection().borrow().epoch);
        let pid = cluster.kill(leader).unwrap();
        assert!(!send("0", pid), "process {pid} is still there");
        let new = cluster.leader_of(&queue).unwrap();
        assert_ne!(new, leader, "process {pid} is gone and its node still leads");
        println!("node {leader}, process {pid}, is gone; node {new} leads");
        load.flows("with two nodes", &cluster, &queue).await;
        works(&one, "the service that was connected to the leader").await;
        works(&two, "the service that was not").await;
        assert!(one.connection().borrow().epoch > epochs.0, "its own node is gone");
        assert_eq!(two.connection().borrow().epoch, epochs.1, "its own node was there all the time");
        let letters = DeadLetters::new(two.bus()).list(&DeadFilter::all()).await.unwrap();
        assert!(letters.is_empty(), "{letters:?}");
        assert_eq!(cluster.pid(leader), None, "nobody has started it again");
        cluster.restart(leader).unwrap();
        cluster.await_whole(&queue).unwrap();
        load.flows("with three nodes again", &cluster, &queue).await;
        let balance = load.books("SIGKILL of the leader", &one).await;
        assert!(balance.confirmed >= 3 * MANY, "{balance}");
        one.stop().await;
        two.stop().await;
    });
}

#[test]
fn a_service_connects_to_another_host_when_its_own_is_gone() {
    run(async {
        let mut cluster = cluster();
        let world = World::on(cluster.urls());
        let (alpha, queue) = (Alpha::default(), world.names.queue("alpha", None));
        let running = world.start(alpha.app()).await;
        cluster.await_whole(&queue).unwrap();
        let load = Load::start(&alpha, &[&running]);
        load.flows("before", &cluster, &queue).await;
        assert_eq!(cluster.connected_to("alpha").unwrap(), [0; 3], "publishing, consuming and answering");
        assert_eq!(cluster.consumed_at(&queue).unwrap(), [0]);
        let epoch = running.connection().borrow().epoch;
        cluster.kill(0).unwrap();
        eventually("a new connection", || running.connection().borrow().epoch > epoch).await;
        load.flows("at another host", &cluster, &queue).await;
        works(&running, "the service whose host is gone").await;
        let hosts = cluster.connected_to("alpha").unwrap();
        assert!(hosts.len() == 3 && !hosts.contains(&0), "connected to {hosts:?}");
        // The broker may go on listing the consumer of a node that is gone: it could come back.
        let consumed_at: Vec<_> = cluster.consumed_at(&queue).unwrap().into_iter().filter(|at| *at != 0).collect();
        assert!(
            matches!(consumed_at[..], [at] if hosts.contains(&at)),
            "consumed at {consumed_at:?}, connected to {hosts:?}"
        );
        // The first host of its list is gone from the beginning.
        let late = world.start(alpha.app()).await;
        works(&late, "a service that starts now").await;
        load.books("SIGKILL of the own host", &running).await;
        late.stop().await;
        running.stop().await;
    });
}

#[test]
fn nothing_confirmed_is_lost_in_a_rolling_restart_of_the_cluster() {
    run(async {
        let mut cluster = cluster();
        let world = World::on(cluster.urls());
        let (alpha, queue) = (Alpha::default(), world.names.queue("alpha", None));
        let running = world.start(alpha.app()).await;
        cluster.await_whole(&queue).unwrap();
        let load = Load::start(&alpha, &[&running]);
        load.flows("before", &cluster, &queue).await;
        for node in 0..NODES {
            cluster.stop(node).unwrap();
            assert_ne!(cluster.leader_of(&queue).unwrap(), node);
            load.flows(&format!("without node {node}"), &cluster, &queue).await;
            cluster.restart(node).unwrap();
            cluster.await_whole(&queue).unwrap();
        }
        load.flows("after", &cluster, &queue).await;
        works(&running, "the service").await;
        let balance = load.books("rolling restart of the cluster", &running).await;
        assert!(balance.confirmed >= (NODES + 2) * MANY, "{balance}");
        running.stop().await;
    });
}

/// Its queue is a classic one: it is on one node, and stays away as long as that node does.
#[test]
fn an_at_most_once_actor_waits_for_the_node_that_has_its_queue() {
    run(async {
        let mut cluster = cluster();
        let (world, beta) = (World::on(cluster.urls()), Beta::default());
        let app = || {
            let beta = beta.clone();
            App::new("beta").actor(move || beta.clone())
        };
        let running = world.start(app()).await;
        running.bus().send_key("beta.note", Payload::text("before")).await.unwrap();
        beta.0.reach(1).await;
        cluster.stop(0).unwrap();
        let why = "cannot be used for now";
        eventually("it says why it is not ready", || format!("{:?}", running.health()).contains(why)).await;
        let refused = running.bus().send_key("beta.note", Payload::text("meanwhile")).await.unwrap_err();
        assert!(matches!(refused, SendError::Unroutable { .. }), "{refused}");
        let impatient = world.app(app()).configure(|config| config.start_timeout = Duration::from_secs(2));
        let problem = impatient.start_as_configured().await.map(|_| ()).unwrap_err().to_string();
        assert!(problem.contains(why) && problem.contains("not started within 2s"), "{problem}");
        let patient = world.app(app()).configure(|config| config.start_timeout = LIMIT);
        let starting = tokio::spawn(patient.start_as_configured());
        cluster.restart(0).unwrap();
        let late = starting.await.unwrap().unwrap();
        eventually("ready again", || running.health().ready && late.health().ready).await;
        running.bus().send_key("beta.note", Payload::text("after")).await.unwrap();
        assert_eq!(beta.0.reach(2).await, ["before", "after"]);
        late.stop().await;
        running.stop().await;
    });
}
