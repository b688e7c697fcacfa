//! A broker that somebody else has set up, and changes while services run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use postrider::adapter::rabbitmq::{RabbitMq, RabbitMqSettings};
use postrider::broker::{BrokerError, Claim, ConsumerSpec, Names, Publication, Queue, Source, Subscription, Topology};
use postrider::operate::{Actors, DeadFilter, DeadLetters, Doctor, Replay, Verdict};
use postrider::testing::ForeignMessage;
use postrider::{App, Context, Failure, Kind, Payload, Running, Secret, TapFilter, distributed};
use postrider_tests::node::Node;
use postrider_tests::program::{err, operator_command, program, run as run_program};
use postrider_tests::raw::RawClient;
use postrider_tests::world::{Seen, World, amqp_url, assert_same, eventually, eventually_async, run};

/// The node that the tests of this file share. It ends with the last of them that runs.
static NODE: Mutex<Weak<Node>> = Mutex::new(Weak::new());

fn node() -> Arc<Node> {
    let mut shared = NODE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(node) = shared.upgrade() {
        return node;
    }
    let node = Node::start().unwrap_or_else(|error| {
        panic!("this test needs a RabbitMQ of its own (`cargo xtask test` installs one): {error}")
    });
    // The broker looks at its consumer time-out every second, for channels that are opened from now on.
    let setting = |name: &str, millis: u128| format!("application:set_env(rabbit, {name}, {millis})");
    let limit = setting("consumer_timeout", CONSUMER_TIMEOUT.as_millis());
    eval(&node, &[limit, setting("channel_tick_interval", 1_000)]);
    let node = Arc::new(node);
    *shared = Arc::downgrade(&node);
    node
}

/// How long the node lets a delivery be unsettled.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(4);

/// Each call of `rabbitmqctl` takes a second or two; so this does several things in one.
fn eval(node: &Node, expressions: &[String]) {
    node.ctl(&["eval", &format!("{}.", expressions.join(", "))]).unwrap();
}

/// Gives a user these rights in a virtual host.
fn allow(user: &str, host: &str, [configure, write, read]: [&str; 3]) -> String {
    format!(
        r#"rabbit_auth_backend_internal:set_permissions(<<"{user}">>, <<"{host}">>, <<"{configure}">>, <<"{write}">>, <<"{read}">>, <<"test">>)"#
    )
}

/// A virtual host of the node that one test has for itself, and a user of it with the same name.
fn virtual_host(node: &Node, name: &str, [configure, write, read]: [&str; 3]) -> World {
    eval(
        node,
        &[
            format!(r#"rabbit_vhost:add(<<"{name}">>, <<"test">>)"#),
            format!(r#"rabbit_auth_backend_internal:add_user(<<"{name}">>, <<"secret">>, <<"test">>)"#),
            allow(name, name, [configure, write, read]),
            allow("guest", name, EVERYTHING),
        ],
    );
    World::on(format!("amqp://{name}:secret@127.0.0.1:{}/{name}", node.port()))
}

/// Rights to configure, write and read.
const EVERYTHING: [&str; 3] = [".*"; 3];

/// The same virtual host and namespace, as somebody who may do everything.
fn as_administrator(node: &Node, world: &World, name: &str) -> World {
    let mut administrator = World::on(format!("{}/{name}", node.url()));
    administrator.names = world.names.clone();
    administrator
}

#[derive(Clone, Default)]
struct Alpha {
    seen: Seen<String>,
}

#[distributed(service = "alpha", retry = "none")]
impl Alpha {
    #[distributed(command = "alpha.do")]
    async fn act(&self, what: String, cx: &Context) -> Result<(), Failure> {
        if what == "wrong" {
            return Err(Failure::permanent("it is wrong"));
        }
        cx.publish_key("alpha.done", Payload::text(what))?;
        Ok(())
    }

    #[distributed(query = "alpha.ask")]
    async fn ask(&self, what: String) -> Result<String, Failure> {
        Ok(what)
    }

    #[distributed(channel = "inbox")]
    async fn inbox(&self, what: String) {
        self.seen.add(what);
    }

    #[distributed(event = "alpha.done", scope = "instance")]
    async fn done(&self, what: String) {
        self.seen.add(what);
    }
}

#[derive(Clone, Default)]
struct Beta(Seen<String>);

#[distributed(service = "beta")]
impl Beta {
    #[distributed(event = "alpha.done")]
    async fn done(&self, what: String) {
        self.0.add(what);
    }
}

/// Deletes exchanges, as whoever has the rights can.
fn delete(world: &World, exchanges: &[&str]) {
    let mut whoever = RawClient::connect(world.url().unwrap());
    exchanges.iter().for_each(|exchange| whoever.delete_exchange(exchange));
}

/// Two services, each a process of its own as far as the broker sees.
async fn alpha_and_beta(world: &World, look: Duration) -> (Running, Alpha, Running, Beta) {
    let (alpha, beta) = (Alpha::default(), Beta::default());
    let (actor, other) = (alpha.clone(), beta.clone());
    let app = App::new("alpha").actor(move || actor.clone()).configure(|config| config.stall_after = look);
    let first = world.start(app).await;
    let app = App::new("beta").actor(move || other.clone()).configure(|config| config.stall_after = look);
    (first, alpha, world.start(app).await, beta)
}

/// One message of each kind reaches whoever it is for.
async fn all_kinds_arrive(client: &Running, alpha: &Alpha, beta: &Beta, what: &str) {
    eventually_async("a command is handled, and both get its event", || async {
        // While an exchange is gone sending is an error, and while a binding is gone the event is lost.
        let _ = client.bus().send_key("alpha.do", Payload::text(format!("{what} done"))).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let done = format!("{what} done");
        alpha.seen.all().contains(&done) && beta.0.all().contains(&done)
    })
    .await;
    eventually_async("a query is answered", || async {
        client.bus().request_key::<String>("alpha.ask", Payload::text(what)).await.is_ok()
    })
    .await;
    eventually_async("a channel is heard", || async {
        let _ = client.bus().send_channel("alpha", "inbox", Payload::text(format!("{what} inbox"))).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        alpha.seen.all().contains(&format!("{what} inbox"))
    })
    .await;
}

#[test]
fn exchanges_that_are_deleted_stand_again_with_the_bindings_of_all_who_live() {
    run(async {
        let world = World::rabbitmq();
        let (first, alpha, second, beta) = alpha_and_beta(&world, Duration::from_millis(600)).await;
        let client = world.client().await;
        let mut tap = client.bus().tap(TapFilter::patterns(["alpha.done"])).await.unwrap();
        all_kinds_arrive(&client, &alpha, &beta, "before").await;
        let kinds = [Kind::Event, Kind::Command, Kind::Query, Kind::Channel].map(|kind| world.names.exchange(kind));
        for name in &kinds[..2] {
            delete(&world, &[&**name]);
            all_kinds_arrive(&client, &alpha, &beta, name).await;
        }
        let (taps, claim) = (world.names.tap(), world.names.domain("alpha"));
        let all: Vec<&str> = kinds.iter().map(|name| &**name).chain([&*taps, &*claim]).collect();
        delete(&world, &all);
        all_kinds_arrive(&client, &alpha, &beta, "all").await;
        let hears = async { while tap.next().await.unwrap().payload != "for the tap" {} };
        let speaks = async {
            loop {
                client.bus().send_key("alpha.do", Payload::text("for the tap")).await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! { () = hears => {}, () = speaks => {} }
        let broker = world.broker().await;
        let claims = vec![Claim { domain: "alpha".into(), service: "alpha".into() }];
        let claimed = Topology { claims, ..Topology::default() };
        assert_eq!(broker.absent(&claimed).await.unwrap(), [""; 0], "the claim stands again");
        broker.compare(&claimed).await.unwrap();
        eventually("all are ready", || first.health().ready && second.health().ready).await;
        assert_eq!(first.stats().dead_lettered + second.stats().dead_lettered, 0);
    });
}

#[test]
fn while_exchanges_are_gone_a_service_is_not_ready_and_says_which() {
    run(async {
        let node = node();
        let world = virtual_host(&node, "gone", EVERYTHING);
        let (first, alpha, second, beta) = alpha_and_beta(&world, Duration::from_millis(600)).await;
        eventually("both are ready", || first.health().ready && second.health().ready).await;
        // Nobody may declare it again for now.
        eval(&node, &[allow("gone", "gone", ["^$", ".*", ".*"])]);
        let events = world.names.exchange(Kind::Event).to_string();
        let sources = vec![Source::Kind(Kind::Event)];
        let administrator = as_administrator(&node, &world, "gone").broker().await;
        administrator.remove(&Topology { sources, ..Topology::default() }).await.unwrap();
        for running in [&first, &second] {
            eventually("it is not ready and says why", || {
                let health = running.health();
                let problems = health.lanes.iter().filter_map(|lane| lane.problem.as_deref());
                let says = problems.into_iter().any(|text| text.contains("declared again") && text.contains(&events));
                !health.ready && says
            })
            .await;
        }
        eval(&node, &[allow("gone", "gone", EVERYTHING)]);
        eventually("both are ready again", || first.health().ready && second.health().ready).await;
        all_kinds_arrive(&first, &alpha, &beta, "after").await;
    });
}

#[test]
fn what_a_limit_by_policy_drops_is_listed_with_its_key_and_handled_when_it_is_replayed() {
    run(async {
        let node = node();
        let world = virtual_host(&node, "short", EVERYTHING);
        let alpha = Alpha::default();
        let app = || {
            let alpha = alpha.clone();
            App::new("alpha").actor(move || alpha.clone())
        };
        world.start(app()).await.stop().await;
        let home = world.names.queue("alpha", None);
        let policy = format!(
            r#"rabbit_policy:set(<<"short">>, <<"short">>, <<"^{}$">>, [{{<<"max-length">>, 1}}], 0, <<"queues">>, <<"test">>)"#,
            home.replace('.', r"\\.")
        );
        eval(&node, &[policy]);
        let commands = world.names.exchange(Kind::Command);
        let foreign = || ForeignMessage { content_type: Some("text/plain".into()), ..ForeignMessage::default() };
        let client = world.client().await;
        let letters = DeadLetters::new(client.bus());
        let dead = async || letters.list(&DeadFilter::all()).await.unwrap();
        // The policy holds a moment after it was set.
        let mut sent = 0_usize;
        while dead().await.len() < 2 {
            sent += 1;
            assert!(sent < 100, "no letter of {sent} messages");
            world.publish_foreign(&commands, "alpha.do", foreign(), sent.to_string()).await;
        }
        for letter in dead().await {
            assert_eq!((letter.kind(), letter.key(), letter.reason()), ("command", "alpha.do", "maxlen"), "{letter:?}");
        }
        let running = world.start(app()).await;
        alpha.seen.reach(1).await;
        for letter in dead().await {
            // One at a time, because the limit still holds.
            let id = DeadFilter::id(letter.address());
            assert_eq!(letters.replay(&id, &Replay::default()).await.unwrap().replayed, 1);
            eventually_async("it is taken", || async { world.ready(&home).await == Some(0) }).await;
        }
        assert_same((1..=sent).map(|number| number.to_string()), alpha.seen.reach(sent).await);
        assert_eq!(running.stats().dead_lettered, 0);
    });
}

#[test]
fn a_handler_that_sends_to_a_deleted_exchange_is_tried_again_until_it_stands() {
    run(async {
        let world = World::rabbitmq();
        let (first, alpha, _second, beta) = alpha_and_beta(&world, Duration::from_secs(4)).await;
        delete(&world, &[&*world.names.exchange(Kind::Event)]);
        first.bus().send_key("alpha.do", Payload::text("kept")).await.unwrap();
        eventually("its event could not be sent", || first.stats().resent > 0).await;
        eventually("it is handled", || first.stats().handled > 0).await;
        eventually("its process is ready", || first.health().ready).await;
        all_kinds_arrive(&first, &alpha, &beta, "after").await;
        let stats = first.stats();
        assert_eq!((stats.dead_lettered, stats.failed_permanent, stats.failed_transient), (0, 0, 0));
    });
}

#[test]
fn levels_of_delays_that_are_deleted_stand_again() {
    run(async {
        let world = World::rabbitmq();
        let (first, alpha, _second, _beta) = alpha_and_beta(&world, Duration::from_millis(600)).await;
        let later = |what: &'static str, millis: u64| {
            let delay = Duration::from_millis(millis);
            first.bus().send_channel_with("alpha", "inbox", Payload::text(what), move |o| o.delay(delay))
        };
        later("one", 100).await.unwrap();
        alpha.seen.reach(1).await;
        // One on the way, and the one where they come out, while messages are within.
        later("two", 5_000).await.unwrap();
        let (level, out) = (world.names.delay_level(3), world.names.delay_out());
        delete(&world, &[&*level, &*out]);
        alpha.seen.reach(2).await;
        // A level with its queue, which is used at once.
        let gone = Topology::of_queues([Queue::standing(&level)]);
        let broker = world.broker().await;
        broker.remove(&gone).await.unwrap();
        delete(&world, &[&*level]);
        later("three", 900).await.unwrap();
        alpha.seen.reach(3).await;
        broker.remove(&gone).await.unwrap();
        delete(&world, &[&*level]);
        // Also for a message of which nobody is told.
        let fired = Payload::text("four");
        let delay = Duration::from_millis(900);
        first.bus().send_channel_with("alpha", "inbox", fired, move |o| o.delay(delay).fire()).await.unwrap();
        alpha.seen.reach(4).await;
        broker.remove(&gone).await.unwrap();
        delete(&world, &[&*level]);
        eventually_async("the level stands again also if nobody uses it", || async {
            broker.inspect(&level).await.unwrap().is_some()
        })
        .await;
    });
}

#[test]
fn bindings_that_vanish_alone_are_declared_again() {
    run(async {
        let world = World::rabbitmq();
        let (ours, other) = (world.broker().await, world.broker().await);
        let name = world.names.exchange(Kind::Command).to_string();
        let commands = || Topology { sources: vec![Source::Kind(Kind::Command)], ..Topology::default() };
        let mut consumers = Vec::new();
        let mut bindings = Vec::new();
        for queue in [Queue::on_one_node(format!("{name}.lasting")), Queue::of_connection(format!("{name}.mine"))] {
            let binding = Subscription::new(Kind::Command, &queue.name, &queue.name);
            let topology = Topology { subscriptions: vec![binding.clone()], ..commands() };
            ours.declare(&commands()).await.unwrap();
            consumers.push(ours.consume(&ConsumerSpec { queue, topology, prefetch: 1, answers: false }).await.unwrap());
            bindings.push(binding);
        }
        // Nobody else can take a binding from an exclusive queue.
        let first = Topology { subscriptions: vec![bindings[0].clone()], ..Topology::default() };
        other.remove(&first).await.unwrap();
        assert_eq!(ours.missing().await.unwrap(), Some(Vec::new()), "the exchange stands");
        let arrives = async |binding: &Subscription| {
            let publication = world.publish_foreign(&name, &binding.pattern, Default::default(), "x").await;
            assert_eq!(publication, Publication::Confirmed, "{binding:?}");
        };
        ours.restore().await.unwrap();
        arrives(&bindings[0]).await;
        // Somebody else has declared the exchange again.
        other.remove(&commands()).await.unwrap();
        other.declare(&commands()).await.unwrap();
        ours.restore().await.unwrap();
        arrives(&bindings[0]).await;
        arrives(&bindings[1]).await;
        drop(consumers);
        other
            .remove(&Topology { queues: vec![Queue::standing(format!("{name}.lasting"))], ..commands() })
            .await
            .unwrap();
        assert_eq!(ours.missing().await.unwrap(), Some(vec![name.clone()]));
        assert!(ours.restore().await.is_err(), "the queue is its consumer's affair");
        assert_eq!(ours.absent(&commands()).await.unwrap(), [""; 0], "what can be declared is declared");
    });
}

#[test]
fn the_doctor_knows_of_bindings_without_the_management_api() {
    run(async {
        let world = World::rabbitmq();
        let (first, ..) = alpha_and_beta(&world, Duration::from_millis(600)).await;
        let findings = Doctor::new(first.bus()).waiting(Duration::from_millis(700)).examine().await.unwrap();
        let bindings: Vec<_> = findings.iter().filter(|row| row.check == "bindings").collect();
        assert_eq!(bindings.len(), 2, "of two queues that last: {findings:#?}");
        for row in bindings {
            assert!(row.verdict == Verdict::Ok && row.text.contains("declared again"), "{row:?}");
        }
    });
}

#[test]
fn what_a_user_may_not_ask_is_no_problem_for_the_doctor() {
    run(async {
        let node = node();
        let world = virtual_host(&node, "asks", EVERYTHING);
        let (first, ..) = alpha_and_beta(&world, Duration::from_millis(600)).await;
        eval(&node, &[allow("asks", "asks", ["^$", ".*", ".*"])]);
        let findings = Doctor::new(first.bus()).waiting(Duration::from_millis(700)).examine().await.unwrap();
        let problems: Vec<_> = findings.iter().filter(|row| row.verdict == Verdict::Problem).collect();
        assert!(problems.is_empty(), "{problems:#?}");
        let not_told = findings.iter().filter(|row| row.text.contains("the user has no right to configure"));
        assert!(not_told.count() > 3, "{findings:#?}");
    });
}

#[test]
fn a_virtual_host_that_is_full_for_now_is_waited_for() {
    run(async {
        let node = node();
        let world = virtual_host(&node, "full", EVERYTHING);
        for (set, clear) in [
            (["set_vhost_limits", "-p", "full", r#"{"max-connections":0}"#], vec!["clear_vhost_limits", "-p", "full"]),
            (["set_user_limits", "full", r#"{"max-connections":0}"#, "-q"], vec!["clear_user_limits", "full", "all"]),
        ] {
            node.ctl(&set).unwrap();
            let broker = RabbitMq::connect(RabbitMqSettings::new(Secret::new(world.url().unwrap()), "test")).await;
            let Err(error) = broker else { panic!("the limit is not one") };
            assert!(matches!(error, BrokerError::Full { .. }) && error.to_string().contains("limit"), "{error:?}");
            let starting = {
                let world = world.clone();
                tokio::spawn(async move { world.start(App::new("beta").actor(Beta::default)).await })
            };
            // Longer than the pause between two tries.
            tokio::time::sleep(Duration::from_millis(700)).await;
            assert!(!starting.is_finished(), "it waits");
            node.ctl(&clear).unwrap();
            let running = starting.await.unwrap();
            eventually("ready", || running.health().ready).await;
            // The same for one that runs.
            node.ctl(&set).unwrap();
            node.ctl(&["close_all_connections", "--vhost", "full", "test"]).unwrap();
            eventually("its connection is gone", || !running.health().ready).await;
            node.ctl(&clear).unwrap();
            eventually("ready again", || running.health().ready).await;
            running.stop().await;
        }
    });
}

#[test]
fn the_next_host_is_tried_when_one_refuses() {
    run(async {
        let (good, elsewhere) = (amqp_url(), amqp_url().replace("guest:guest", "guest:wrong"));
        let world = World::on(format!("{good}/nowhere,{elsewhere}/,{good}/"));
        let running = world.start(App::new("beta").actor(Beta::default)).await;
        eventually("ready", || running.health().ready).await;
    });
}

#[test]
fn what_all_hosts_refuse_ends_the_start_at_once_with_one_sentence() {
    run(async {
        let (good, wrong) = (amqp_url(), amqp_url().replace("guest:guest", "guest:hunter2"));
        for (addresses, said) in [
            (format!("{good}/nowhere"), "vhost nowhere not found"),
            (format!("{good}/nowhere,{good}/nowhere"), "vhost nowhere not found"),
            (format!("{wrong}/,{wrong}/"), "refused us"),
        ] {
            let start = Instant::now();
            let Err(error) = World::on(addresses).try_start(App::new("beta").actor(Beta::default)).await else {
                panic!("it started");
            };
            assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
            let text = error.to_string();
            assert!(text.contains(said) && text.lines().count() == 1 && !text.contains("hunter2"), "{text}");
        }
    });
}

#[test]
fn an_exchange_that_is_deleted_while_nobody_is_connected_gets_its_bindings_back() {
    run(async {
        let node = node();
        let world = virtual_host(&node, "cut", EVERYTHING);
        let (first, alpha, second, beta) = alpha_and_beta(&world, Duration::from_millis(600)).await;
        all_kinds_arrive(&first, &alpha, &beta, "before").await;
        eventually("both look after it", || first.health().ready && second.health().ready).await;
        let epoch = first.connection().borrow().epoch;
        let script = format!(
            "rabbit_exchange:delete(rabbit_misc:r(<<\"cut\">>, exchange, <<\"{}\">>), false, <<\"x\">>), [rabbit_networking:close_connection(P, \"test\") || P <- rabbit_networking:connections()].",
            world.names.exchange(Kind::Event)
        );
        node.ctl(&["eval", &script]).unwrap();
        eventually("connected again", || first.connection().borrow().epoch > epoch).await;
        all_kinds_arrive(&first, &alpha, &beta, "after").await;
    });
}

#[test]
fn a_user_who_may_not_declare_uses_what_an_administrator_has_applied() {
    run(async {
        let node = node();
        let world = virtual_host(&node, "given", ["^$", ".*", ".*"]);
        let administrator = as_administrator(&node, &world, "given");
        // Without what is to be applied the start ends with one sentence.
        let Err(error) = world.try_start(App::new("beta").actor(Beta::default)).await else { panic!("it started") };
        let text = error.to_string();
        assert!(text.contains("does not stand") && text.contains("topology apply"), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
        let invoice = |world: &World, arguments: &[&str]| {
            let mut command = program("invoice");
            command.env("POSTRIDER_BROKER", world.url().unwrap()).env("POSTRIDER_LOG", "info");
            command.env("POSTRIDER_NAMESPACE", world.names.namespace()).args(arguments);
            command
        };
        let mut apply = invoice(&administrator, &["topology", "apply"]);
        let applied = tokio::task::spawn_blocking(move || run_program(&mut apply)).await.unwrap();
        assert!(applied.status.success(), "{}", err(&applied));
        let broker = world.broker().await;
        let events = Topology { sources: vec![Source::Kind(Kind::Event)], ..Topology::default() };
        broker.declare(&events).await.unwrap();
        assert!(broker.compare(&events).await.is_err(), "nobody can say whether it is the same");
        let running = invoice(&world, &["--messages", "1"]).spawn().unwrap();
        eventually_async("it answers", || async {
            let mut ask = operator_command(&world, &["request", "invoice.issued", "--json", "null", "--timeout", "2s"]);
            tokio::task::spawn_blocking(move || run_program(&mut ask).status.success()).await.unwrap()
        })
        .await;
        let output = tokio::task::spawn_blocking(move || postrider_tests::program::finish(running)).await.unwrap();
        let log = err(&output);
        assert!(output.status.success(), "{log}");
        assert_eq!(log.matches("may not declare").count(), 1, "{log}");
    });
}

/// Everything of the table in `docs/operations.md`, for the service `alpha`.
#[test]
fn a_user_who_has_the_rights_of_each_part_and_no_others_can_do_all_of_it() {
    run(async {
        let node = node();
        // Erlang reads a backslash in a text as we do.
        let named = |parts: &str, beside: &str| format!(r"^(app\\.({parts})|{beside})$");
        let own = r"alpha|alpha\\..*";
        let kinds = "command|query|event|channel";
        let configure = format!(
            r"{kinds}|tap|due|due\\.dead|generation|delay\\..*|{own}|domain\\.alpha|tap\\..*|topology\\.alpha|domain\\.claims"
        );
        let write = format!(r"{kinds}|tap|due|delay\\..*|{own}|owner\\.alpha|tap\\..*");
        let read =
            format!(r"{kinds}|due|delay\\..*|{own}|domain\\.alpha|tap|tap\\..*|topology\\.alpha|domain\\.claims");
        let rights = [named(&configure, "-"), named(&write, r"amq\\.default"), named(&read, "-")];
        let mut world = virtual_host(&node, "table", [&rights[0], &rights[1], &rights[2]]);
        world.names = Names::new("app").unwrap();
        let alpha = Alpha::default();
        let actor = alpha.clone();
        let running = world.start(App::new("alpha").actor(move || actor.clone())).await;
        let bus = running.bus();
        let mut tap = bus.tap(TapFilter::everything()).await.unwrap();
        bus.send_key("alpha.do", Payload::text("sent")).await.unwrap();
        alpha.seen.reach(1).await;
        assert_eq!(bus.request_key::<String>("alpha.ask", Payload::text("asked")).await.unwrap(), "asked");
        bus.send_channel("alpha", "inbox", Payload::text("told")).await.unwrap();
        alpha.seen.reach(2).await;
        let later = Duration::from_millis(100);
        bus.send_channel_with("alpha", "inbox", Payload::text("later"), |o| o.delay(later)).await.unwrap();
        bus.send_key("alpha.do", Payload::text("wrong")).await.unwrap();
        eventually("a dead letter is written", || running.stats().dead_lettered == 1).await;
        assert_same(["sent", "told", "later"].map(str::to_owned), alpha.seen.reach(3).await);
        tap.next().await.unwrap();
        let reports = Actors::new(bus).waiting(Duration::from_millis(700)).about("alpha").await.unwrap();
        assert!(reports.len() == 1 && reports[0].ready, "{reports:?}");
        let findings = Doctor::new(bus).waiting(Duration::from_millis(700)).examine().await.unwrap();
        let process: Vec<_> = findings.iter().filter(|row| row.check == "claim" || row.check == "bindings").collect();
        assert!(process.len() >= 2 && process.iter().all(|row| row.verdict == Verdict::Ok), "{process:#?}");
        let broker = as_administrator(&node, &world, "table").broker().await;
        assert!(broker.inspect(&world.names.topology("alpha")).await.unwrap().is_some_and(|state| state.ready == 1));
    });
}

/// One at a time, each for a while.
#[derive(Clone, Default)]
struct Slow {
    seen: Seen<(String, u32)>,
    broken: Arc<AtomicBool>,
}

#[distributed(service = "slow", concurrency = 1, timeout = "1s", retry = "none")]
impl Slow {
    #[distributed(command = "slow.do")]
    async fn act(&self, what: String, cx: &Context) -> Result<(), Failure> {
        self.seen.add((what, cx.attempt()));
        if self.broken.load(Ordering::SeqCst) {
            return Err(Failure::permanent("broken"));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(())
    }
}

async fn sends(running: &Running, count: u32) {
    for number in 0..count {
        running.bus().send_key("slow.do", Payload::text(number.to_string())).await.unwrap();
    }
}

fn each_once(slow: &Slow, count: u32) {
    assert_same((0..count).map(|number| (number.to_string(), 1)), slow.seen.all());
}

#[test]
fn a_lane_of_shared_handlers_holds_no_more_than_they_finish_within_the_brokers_consumer_timeout() {
    run(async {
        let node = node();
        let world = virtual_host(&node, "slow", EVERYTHING);
        let slow = Slow::default();
        let actor = slow.clone();
        let app = App::new("slow").actor(move || actor.clone());
        let running = world.start(app.configure(|config| config.consumer_timeout = CONSUMER_TIMEOUT)).await;
        let opened = running.stats().consumers_opened;
        sends(&running, 18).await;
        eventually("all are handled", || running.stats().handled == 18).await;
        each_once(&slow, 18);
        assert_eq!(running.stats().consumers_opened, opened, "the broker closed no channel");
    });
}

#[test]
fn a_consumer_timeout_that_is_shorter_than_was_said_is_learnt_once() {
    run(async {
        let node = node();
        let world = virtual_host(&node, "learns", EVERYTHING);
        let slow = Slow::default();
        let actor = slow.clone();
        let running = world.start(App::new("slow").actor(move || actor.clone())).await;
        let opened = running.stats().consumers_opened;
        sends(&running, 24).await;
        eventually("all are handled", || running.stats().handled == 24 && running.stats().in_flight == 0).await;
        each_once(&slow, 24);
        assert_eq!(running.stats().consumers_opened, opened + 1, "the broker closed one channel, and no other");
    });
}

#[test]
fn a_circuit_breaker_gives_back_what_would_wait_for_it_too_long() {
    run(async {
        let node = node();
        let world = virtual_host(&node, "breaks", EVERYTHING);
        let slow = Slow { broken: Arc::new(AtomicBool::new(true)), ..Slow::default() };
        let actor = slow.clone();
        let app = App::new("slow").actor(move || actor.clone()).configure(|config| {
            config.consumer_timeout = CONSUMER_TIMEOUT;
            config.breaker = Some("100% of 1 in 10s, pause 6s".parse().unwrap());
        });
        let running = world.start(app).await;
        let opened = running.stats().consumers_opened;
        sends(&running, 1).await;
        eventually("it pauses", || running.stats().dead_lettered == 1).await;
        slow.broken.store(false, Ordering::SeqCst);
        running.bus().send_key("slow.do", Payload::text("1")).await.unwrap();
        eventually("it says why", || {
            let lanes = running.health().lanes;
            lanes.iter().any(|lane| lane.problem.as_deref() == Some("paused by its circuit breaker"))
        })
        .await;
        assert!(running.health().ready, "it is meant so");
        let queue = world.names.queue("slow", None);
        eventually_async("the message waits in its queue", || async { world.ready(&queue).await == Some(1) }).await;
        eventually("it is handled after the pause", || running.stats().handled == 1).await;
        each_once(&slow, 2);
        assert_eq!(running.stats().consumers_opened, opened + 1, "it was opened again after the pause");
    });
}
