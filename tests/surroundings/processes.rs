//! Environments, shells, pipes, signals and logs.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use postrider::testing::TestApp;
use postrider::{App, Payload};
use postrider_tests::program::{PATIENCE, err, finish, operator, out, program, run};
use postrider_tests::world::{World, amqp_url};

/// A program on the shared RabbitMQ.
fn on(namespace: &str, name: &str) -> Command {
    let mut command = program(name);
    command.env("POSTRIDER_BROKER", amqp_url()).env("POSTRIDER_NAMESPACE", namespace);
    command
}

fn namespace() -> String {
    World::rabbitmq().names.namespace().to_owned()
}

/// A program that is told what it must not accept: exit code 1, and only one sentence for each mistake.
fn refused(command: &mut Command) -> String {
    let output = run(command);
    let text = err(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// A process that ends with the test.
struct Started {
    child: Child,
    log: BufReader<std::process::ChildStderr>,
}

impl Started {
    fn new(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Reads the log until a line has these words.
    fn says(&mut self, words: &str) -> String {
        let mut all = String::new();
        loop {
            let before = all.len();
            assert!(self.log.read_line(&mut all).unwrap() > 0, "it ended and did not say {words:?}: {all}");
            if all[before..].contains(words) {
                return all;
            }
        }
    }

    fn signal(&self, signal: &str) {
        signal_to(self.child.id(), signal);
    }

    /// Waits for the end: how long it took, the exit code, the rest of the log.
    fn end(mut self) -> (Duration, Option<i32>, String) {
        let start = Instant::now();
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let (took, mut rest) = (start.elapsed(), String::new());
        self.log.read_to_string(&mut rest).unwrap();
        (took, code, rest)
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal_to(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

// Variables and flags.

#[test]
fn a_service_starts_beside_any_service_of_kubernetes() {
    let mut command = program("loans");
    for service in ["POSTRIDER", "POSTRIDER_RABBITMQ", "POSTRIDER_BROKER", "POSTRIDER_SERVICE"] {
        for (end, value) in [
            ("SERVICE_HOST", "10.0.0.7"),
            ("SERVICE_PORT", "5672"),
            ("SERVICE_PORT_AMQP", "5672"),
            ("PORT", "tcp://10.0.0.7:5672"),
            ("PORT_5672_TCP", "tcp://10.0.0.7:5672"),
            ("PORT_5672_TCP_ADDR", "10.0.0.7"),
            ("PORT_5672_TCP_PORT", "5672"),
            ("PORT_5672_TCP_PROTO", "tcp"),
        ] {
            command.env(format!("{service}_{end}"), value);
        }
    }
    let output = run(command.args(["list"]));
    assert!(output.status.success(), "{}", err(&output));
    assert!(refused(command.env("POSTRIDER_BROKER_SERVCE_HOST", "10.0.0.7")).contains("POSTRIDER_BROKER_SERVCE_HOST"));
}

#[test]
fn a_misspelt_variable_is_told_by_its_name_and_what_was_meant() {
    let text = refused(program("loans").env("POSTRIDER_BROKR", "amqp://u:hunter2@h"));
    assert!(text.contains("POSTRIDER_BROKR") && text.contains("did you mean POSTRIDER_BROKER?"), "{text}");
    let text = refused(program("loans").env("POSTRIDER_SERVICE__LOAN__DAYS", "3"));
    assert!(
        text.contains("POSTRIDER_SERVICE__LOAN__DAYS") && text.contains("did you mean POSTRIDER_SERVICE__LOANS__DAYS?"),
        "{text}"
    );
    let text = refused(program("loans").env("POSTRIDER_SERVICE__LOANS__DAYZ", "3"));
    assert!(
        text.contains("POSTRIDER_SERVICE__LOANS__DAYZ")
            && text.contains("did you mean POSTRIDER_SERVICE__LOANS__DAYS?"),
        "{text}"
    );
    let text = refused(program("loans").env("POSTRIDER_SERVICE__LOANS__DAYS", "abc"));
    assert!(text.contains("POSTRIDER_SERVICE__LOANS__DAYS (service.loans.days): a text that is no u32"), "{text}");
    let text = refused(program("loans").env("POSTRIDER_ACTOR__LOAN__PREFETCH", "3"));
    assert!(text.contains("did you mean POSTRIDER_ACTOR__LOANS__PREFETCH?"), "{text}");
    // Somebody else's settings, in an environment that several processes share.
    let output = run(program("loans").env("POSTRIDER_SERVICE__WEATHER__DAYS", "3").args(["--time", "10ms"]));
    assert!(output.status.success() && err(&output).contains("POSTRIDER_SERVICE__WEATHER__DAYS"), "{}", err(&output));
}

#[test]
fn what_is_nearly_the_name_of_a_variable_or_of_an_actor_is_told() {
    let mut loans = program("loans");
    for (name, value) in
        [("POSTRIDER_CONFG", "x"), ("POSTRIDER_LOGG", "info"), ("POSTRIDER_SERVICE__LOANS__DAYS__X", "3")]
    {
        loans.env(name, value);
    }
    let output = run(loans.arg("list"));
    let said = err(&output);
    assert!(!output.status.success());
    for text in [
        "did you mean POSTRIDER_CONFIG?",
        "did you mean POSTRIDER_LOG?",
        "POSTRIDER_SERVICE__LOANS__DAYS__X: no such setting",
    ] {
        assert!(said.contains(text), "{text:?} is missing in {said}");
    }
}

#[test]
fn set_and_empty_is_a_mistake_in_variables_and_flags() {
    for name in
        ["BROKER", "BROKER_CA", "NAMESPACE", "PREFETCH", "HEALTH", "LOG", "CONFIG", "RETRY", "SERVICE__LOANS__DAYS"]
    {
        let text = refused(program("loans").env(format!("POSTRIDER_{name}"), ""));
        assert!(text.contains(&format!("POSTRIDER_{name}")) && text.contains("set and empty"), "{text}");
    }
    let text = refused(program("postrider").env("POSTRIDER_BROKER", "").args(["ping", "x"]));
    assert!(text.contains("POSTRIDER_BROKER (broker)") || text.contains("POSTRIDER_BROKER:"), "{text}");
    for arguments in [["--broker", ""], ["--config", ""], ["--time", ""]] {
        let output = run(program("loans").args(arguments));
        assert!(output.status.code() == Some(2) && err(&output).contains(arguments[0]), "{}", err(&output));
    }
    let output = run(program("postrider").args(["doctor", "--management="]));
    assert!(
        output.status.code() == Some(2) && err(&output).contains("--management is given and empty"),
        "{}",
        err(&output)
    );
}

#[test]
fn the_management_api_may_be_named_in_the_environment() {
    let doctor = run(on(&namespace(), "postrider").env("POSTRIDER_MANAGEMENT", "no address").arg("doctor"));
    assert!(!err(&doctor).contains("no such setting"), "{}", err(&doctor));
}

#[test]
fn what_cannot_be_meant_is_refused_in_one_sentence() {
    let text = refused(program("loans").env("POSTRIDER_LOG", "info,postrider=debgu"));
    assert!(text.contains("POSTRIDER_LOG") && text.lines().count() == 1, "{text}");
    assert!(refused(program("postrider").env("POSTRIDER_LOG", "inof").args(["ping", "x"])).contains("inof"));
    let memory = run(program("loans").args(["--memory", "0"]));
    assert_eq!(memory.status.code(), Some(2), "{}", err(&memory));

    let folder = std::env::temp_dir().join(format!("postrider-processes-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (file, ca) = (folder.join("some.toml"), folder.join("ca.pem"));
    std::fs::write(&ca, "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n").unwrap();
    std::fs::write(&file, "prefetch = 99999999999999999999999999\nconcurrency = 0\n").unwrap();
    let text = refused(program("loans").arg("--config").arg(&file).env("POSTRIDER_ARBITERS", "none"));
    for expected in ["some.toml, line 1 (prefetch)", "some.toml, line 2 (concurrency)", "POSTRIDER_ARBITERS (arbiters)"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let address = "amqps://u:hunter2@127.0.0.1:1";
    let text = refused(program("loans").args(["--broker", address]).env("POSTRIDER_BROKER_CA", &ca));
    assert!(
        text.contains("ca.pem") && text.contains("no certificate") && text.contains("POSTRIDER_BROKER_CA"),
        "{text}"
    );
    std::fs::remove_dir_all(&folder).unwrap();
}

// The network.

#[test]
fn a_start_ends_in_time_although_the_peer_is_silent() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("amqp://u:hunter2@{}", silent.local_addr().unwrap());
    let start = Instant::now();
    let text = refused(program("loans").env("POSTRIDER_BROKER", &address).env("POSTRIDER_START_TIMEOUT", "2s"));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    assert!(text.contains("no answer within 2s") && text.contains("set by POSTRIDER_BROKER"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
}

// Pipes.

/// Runs a program whose output nobody reads.
fn into_nothing(command: &mut Command) -> Output {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    finish(command.stdout(writer).spawn().unwrap())
}

#[test]
fn a_closed_pipe_ends_a_listing_silently() {
    let namespace = namespace();
    let commands: [(&str, &[&str]); 7] = [
        ("loans", &["list", "--json"]),
        ("loans", &["list"]),
        ("loans", &["topology", "show"]),
        ("loans", &["topology", "diff"]),
        ("postrider", &["dead", "list"]),
        ("postrider", &["doctor"]),
        ("postrider", &["domain", "list", "--json"]),
    ];
    for (name, arguments) in commands {
        let output = into_nothing(on(&namespace, name).args(arguments));
        assert_eq!((output.status.code(), err(&output).as_str()), (Some(141), ""), "{name} {arguments:?}");
    }
}

#[test]
fn a_full_disk_is_named() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = finish(program("loans").arg("list").stdout(full).spawn().unwrap());
    assert!(output.status.code() == Some(1) && err(&output).contains("standard output"), "{}", err(&output));
}

#[test]
fn a_tap_that_nobody_reads_ends() {
    let namespace = namespace();
    let mut tap = on(&namespace, "postrider").arg("tap").spawn().unwrap();
    drop(tap.stdout.take());
    let start = Instant::now();
    while tap.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < PATIENCE, "it goes on");
        run(on(&namespace, "postrider").args(["publish", "weather.changed", "--text", "rain"]));
    }
    let output = tap.wait_with_output().unwrap();
    assert_eq!((output.status.code(), err(&output).as_str()), (Some(141), ""));
}

#[test]
fn a_service_goes_on_when_nobody_reads_what_it_prints() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let both = writer.try_clone().unwrap();
    let output = finish(program("delivery").stdout(writer).stderr(both).spawn().unwrap());
    assert_eq!(output.status.code(), Some(0), "it has done its work");
}

// Signals.

/// As process 1 of a container: with a `/proc` of others, but with its signals.
fn as_process_1(program: &Command) -> Command {
    let allowed = Command::new("unshare").args(["--pid", "--fork", "true"]).status();
    assert!(
        allowed.is_ok_and(|status| status.success()),
        "this test starts a service as process 1 of a PID namespace, which is not allowed here: run it as root, or in a container with CAP_SYS_ADMIN"
    );
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child"]).arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// The only child of a process.
fn child_of(pid: u32) -> u32 {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn sigterm_ends_a_service_that_awaits_its_broker() {
    let mut absent = program("loans");
    absent.env("POSTRIDER_BROKER", "amqp://127.0.0.1:1").env("POSTRIDER_START_TIMEOUT", "50s");
    let mut service = Started::new(&mut absent);
    service.says("trying again");
    service.signal("-TERM");
    let (took, code, log) = service.end();
    assert!(code == Some(0) && took < Duration::from_secs(2), "{code:?} {took:?} {log}");

    let mut container = as_process_1(&absent);
    let mut service = Started::new(&mut container);
    service.says("trying again");
    signal_to(child_of(service.child.id()), "-TERM");
    let (took, code, log) = service.end();
    assert!(code == Some(0) && took < Duration::from_secs(2), "as process 1: {code:?} {took:?} {log}");
}

#[test]
fn sigterm_ends_a_service_whose_actor_is_still_being_made_and_gives_back_what_came() {
    for blocks in ["false", "true"] {
        let namespace = namespace();
        // Its queues stand before.
        assert!(run(on(&namespace, "loans").args(["topology", "apply"])).status.success());
        let send = |seconds: &str| run(on(&namespace, "postrider").args(["send", "loans.lend", "--json", seconds]));
        assert!((0..3).all(|_| send("40").status.success()));
        let mut slow = on(&namespace, "loans");
        slow.env("POSTRIDER_SERVICE__LOANS__START", "40").env("POSTRIDER_SERVICE__LOANS__BLOCKS", blocks);
        slow.env("POSTRIDER_ARBITERS", "2");
        let queue = format!("{namespace}.loans.shelf");
        for contained in [false, true] {
            let mut service = if contained { Started::new(&mut as_process_1(&slow)) } else { Started::new(&mut slow) };
            service.says("connected");
            wait_for_ready(&namespace, &queue, 0);
            let pid = if contained { child_of(service.child.id()) } else { service.child.id() };
            signal_to(pid, "-TERM");
            let (took, code, log) = service.end();
            assert!(code == Some(0) && took < Duration::from_secs(2), "{code:?} {took:?} {log}");
            wait_for_ready(&namespace, &queue, 3);
        }
    }
}

/// Waits until a queue has so many messages that nobody holds.
fn wait_for_ready(namespace: &str, queue: &str, count: u64) {
    postrider_tests::world::run(async {
        let mut world = World::rabbitmq();
        world.names = postrider::broker::Names::new(namespace).unwrap();
        let ready = async || world.ready(queue).await == Some(count);
        postrider_tests::world::eventually_async(&format!("{queue} has {count}"), ready).await;
    });
}

#[test]
fn sigterm_ends_the_operators_program_too() {
    let namespace = namespace();
    let mut tap = on(&namespace, "postrider").args(["tap", "-v"]).spawn().unwrap();
    let mut log = BufReader::new(tap.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    signal_to(tap.id(), "-TERM");
    assert_eq!(tap.wait().unwrap().code(), Some(143), "{line}");
}

// Logs.

/// How the client would show a text: as numbers.
fn as_numbers(text: &str) -> String {
    text.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ")
}

#[test]
fn no_filter_shows_user_or_password() {
    let (broker, namespace) =
        (amqp_url().replace("amqp://guest:guest@", "amqp://some%2Duser:hunter2%21@"), namespace());
    for (filter, more) in [("trace", "-v"), ("lapin=trace,amq_protocol=trace", "-v"), ("", "-vvv")] {
        let mut loans = program("loans");
        loans.args(["--time", "1ms", more]).env("POSTRIDER_BROKER", &broker).env("POSTRIDER_NAMESPACE", &namespace);
        let mut ping = program("postrider");
        ping.args(["ping", "loans", more]).env("POSTRIDER_BROKER", &broker);
        if !filter.is_empty() {
            loans.env("POSTRIDER_LOG", filter);
            ping.env("POSTRIDER_LOG", filter);
        }
        for output in [run(&mut loans), run(&mut ping)] {
            let log = err(&output) + &out(&output);
            assert!(log.contains("refused") || log.contains("ACCESS_REFUSED"), "{log}");
            for secret in ["hunter2!", "hunter2%21", &as_numbers("hunter2!"), &as_numbers("some-user")] {
                assert!(!log.contains(secret), "{filter} {more} shows {secret}");
            }
        }
    }
}

#[test]
fn no_filter_shows_a_payload_or_a_token_of_a_message_that_comes_back() {
    let namespace = namespace();
    for filter in ["trace", "warn", "info,postrider=debug"] {
        let mut send = program("postrider");
        send.args(["send", "nobody.there", "--json", r#"{"pin":471147}"#, "--header", "authorization=Bearer hunter2!"]);
        send.env("POSTRIDER_BROKER", amqp_url()).env("POSTRIDER_NAMESPACE", &namespace).env("POSTRIDER_LOG", filter);
        let output = run(&mut send);
        let log = err(&output) + &out(&output);
        assert!(log.contains("reached nobody"), "{log}");
        for secret in ["471147", "hunter2!", &as_numbers("471147"), &as_numbers("hunter2!"), "lapin", "io_loop"] {
            assert!(!log.contains(secret), "{filter} shows {secret}: {log}");
        }
    }
}

#[test]
fn a_log_of_the_programs_own_that_would_show_the_password_is_named() {
    let namespace = namespace();
    let text = refused(on(&namespace, "loans").env("LOANS_LOG", "careless"));
    assert!(text.contains("without_secrets") && !text.contains(&as_numbers("guest")), "{text}");
    let careful = run(on(&namespace, "loans").env("LOANS_LOG", "careful").args(["--time", "10ms"]));
    assert!(careful.status.success() && err(&careful).contains("ready"), "{}", err(&careful));
    assert!(!err(&careful).contains(&as_numbers("guest")));
}

#[test]
fn a_log_that_is_no_terminal_has_no_colours() {
    let output = run(program("loans").args(["--time", "10ms", "-vv"]));
    assert!(err(&output).contains("stopped") && !err(&output).contains('\u{1b}'), "{}", err(&output));
}

#[test]
fn a_thousand_bad_messages_are_a_few_lines_and_a_count() {
    let namespace = namespace();
    let mut service = Started::new(&mut on(&namespace, "loans"));
    service.says("ready");
    postrider_tests::world::run(async {
        let mut world = World::rabbitmq();
        world.names = postrider::broker::Names::new(&namespace).unwrap();
        let client = world.client().await;
        for _ in 0..200 {
            client.bus().send_key("loans.lose", Payload::json(&1)).await.unwrap();
        }
        client.stop().await;
    });
    wait_for_ready(&namespace, &format!("{namespace}.loans.shelf.dead"), 200);
    for _ in 0..7 {
        let pause = run(on(&namespace, "postrider").args(["actor", "pause", "loans.shelf", "--wait", "50ms"]));
        assert!(!err(&pause).contains("panicked"), "{}", err(&pause));
    }
    service.signal("-TERM");
    let (_, code, log) = service.end();
    assert_eq!(code, Some(0), "{log}");
    let count = |words: &str| log.lines().filter(|line| line.contains(words)).count();
    assert_eq!((count("ERROR message given up"), count("WARN handle{")), (5, 5), "{log}");
    assert_eq!(count("dead-lettered: and 195 more like it within 10 s"), 1, "{log}");
    assert_eq!(count("attempt failed: and 195 more like it within 10 s"), 1, "{log}");
    assert_eq!((count("INFO an order "), count("an order: and 2 more")), (5, 1), "{log}");
    assert!(!log.contains("Order {") && !log.contains("Control {"), "{log}");
}

// Rights.

#[test]
fn who_may_only_read_looks_as_far_as_that_goes() {
    let node = postrider_tests::node::Node::start().unwrap();
    let namespace = namespace();
    let loans = |arguments: &[&str]| {
        let mut command = program("loans");
        command.env("POSTRIDER_BROKER", node.url()).env("POSTRIDER_NAMESPACE", &namespace).args(arguments);
        command
    };
    assert!(run(&mut loans(&["topology", "apply"])).status.success());
    node.ctl(&["add_user", "reader", "hunter2"]).unwrap();
    node.ctl(&["set_permissions", "reader", "^$", "^$", ".*"]).unwrap();
    let address = format!("amqp://reader:hunter2@127.0.0.1:{}", node.port());
    let reader = |arguments: &[&str]| {
        let mut command = program("postrider");
        command.env("POSTRIDER_BROKER", &address).env("POSTRIDER_NAMESPACE", &namespace).args(arguments);
        run(&mut command)
    };
    let dead = reader(&["dead", "list"]);
    assert!(dead.status.success(), "{}", err(&dead));
    let doctor = reader(&["doctor", "--wait", "200ms"]);
    let found = out(&doctor);
    assert!(doctor.status.success() && found.contains("no right to write to amq.default"), "{found} {}", err(&doctor));
    assert!(found.contains("no right to configure what is compared"), "{found}");
    let tap = reader(&["tap", "--messages", "1"]);
    let needs = format!("needs configure, write and read on {namespace}.tap.*, and read on {namespace}.tap");
    assert!(tap.status.code() == Some(1) && err(&tap).contains(&needs), "{}", err(&tap));
    assert_eq!(err(&tap).lines().count(), 1, "{}", err(&tap));
}

// What is shown, and settings in tests.

mod shop {
    use postrider::{Failure, Setup, distributed};

    #[derive(serde::Serialize, serde::Deserialize)]
    pub struct Terms {
        pub days: u32,
    }

    pub struct Loans(u32);

    impl Loans {
        pub async fn from(setup: &Setup) -> Result<Self, Failure> {
            Ok(Self(setup.config::<Terms>()?.days))
        }
    }

    #[distributed(service = "loans")]
    impl Loans {
        #[distributed(query = "loans.days")]
        async fn days(&self, _: ()) -> Result<u32, Failure> {
            Ok(self.0)
        }
    }

    #[derive(Default)]
    pub struct Fines;

    #[distributed(service = "fines")]
    impl Fines {
        #[distributed(command = "fines.pay")]
        async fn pay(&self, _: ()) {}
    }
}

#[test]
fn what_is_shown_of_a_service_is_its_own_and_true() {
    postrider_tests::world::run(async {
        let world = World::rabbitmq();
        let app = App::new("shop").settings("loans", &shop::Terms { days: 3 });
        let app = app.actor_with(shop::Loans::from).actor(shop::Fines::default);
        let shop = world.start(app).await;
        let (fine, list, problems) = operator(&world, &["actor", "list", "loans", "--wait", "300ms"]).await;
        assert!(fine && list.contains(".loans.query") && !list.contains(".fines"), "{list} {problems}");
        let (_, found, _) = operator(&world, &["doctor", "--wait", "300ms"]).await;
        let about = |queue: &str| {
            let queue = format!("{}.{queue} ", world.names.namespace());
            found
                .lines()
                .find(|line| line.contains("durability") && line.contains(&queue))
                .unwrap_or_default()
                .to_owned()
        };
        assert!(about("loans.query").contains("queries are answered at most once"), "{found}");
        assert!(about("fines").contains("at_least_once"), "{found}");
        shop.stop().await;
    });
}

#[test]
fn a_test_says_in_code_what_settings_a_service_has() {
    postrider::testing::run(async {
        let app = App::new("shop").settings("loans", &shop::Terms { days: 3 }).actor_with(shop::Loans::from);
        let test = TestApp::start(app).await;
        assert_eq!(test.bus().request_key::<u32>("loans.days", Payload::json(&())).await.unwrap(), 3);
        test.stop().await;
    });
}
