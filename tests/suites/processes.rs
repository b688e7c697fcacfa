//! Service binaries as processes: command line, exit codes, signals, limits. Built beforehand by `cargo xtask test`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postrider_tests::program::{PATIENCE, err, out, program, run};
use postrider_tests::world::{World, amqp_url};

/// A namespace of its own on the shared RabbitMQ.
fn namespace() -> String {
    World::rabbitmq().names.namespace().to_owned()
}

fn on(namespace: &str, name: &str) -> Command {
    let mut command = program(name);
    command.env("POSTRIDER_BROKER", amqp_url()).env("POSTRIDER_NAMESPACE", namespace);
    command
}

/// Ends the process when the test ends, however it ends.
struct Service(Child);

impl Service {
    fn start(namespace: &str, name: &str) -> Self {
        let child = on(namespace, name).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let service = Self(child);
        let start = Instant::now();
        while !run(on(namespace, "postrider").args(["ping", name, "--timeout", "1s"])).status.success() {
            assert!(start.elapsed() < PATIENCE, "{name} does not answer its ping");
        }
        service
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn delivery_ends_by_itself_on_the_in_process_broker() {
    let output = run(&mut program("delivery"));
    assert!(output.status.success(), "{}", err(&output));
    assert_eq!(out(&output).matches(": done; invoice INV-").count(), 3, "{}", out(&output));
    assert_eq!(err(&output).matches("in-process broker: only the services").count(), 1, "{}", err(&output));
}

#[test]
fn the_company_works_as_separate_processes_and_the_operator_reaches_it() {
    let namespace = namespace();
    let services: Vec<Service> = ["orders", "invoice", "payment", "shipping", "notification"]
        .iter()
        .map(|name| Service::start(&namespace, name))
        .collect();
    let client = run(&mut on(&namespace, "client"));
    assert!(client.status.success(), "{}", err(&client));
    assert_eq!(out(&client).matches(": done; invoice INV-").count(), 3, "{}", out(&client));

    let ask = |arguments: &[&str]| run(on(&namespace, "postrider").args(arguments));
    let answer = ask(&["request", "invoice.create", "--json", r#"{"order":42,"amount":100}"#]);
    assert_eq!(out(&answer).trim(), r#"{"amount":100,"invoice":"INV-00042","order":42}"#, "{}", err(&answer));
    let refused = ask(&["request", "invoice.create", "--json", r#"{"order":42,"amount":0}"#]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(err(&refused).contains("an invoice needs an amount above zero (nothing-to-pay)"), "{}", err(&refused));
    let nobody = ask(&["send", "nobody.there", "--text", "x"]);
    assert!(!nobody.status.success() && err(&nobody).contains("reached nobody"), "{}", err(&nobody));
    assert!(ask(&["publish", "weather.changed", "--text", "rain"]).status.success());
    let channel = ask(&["channel", "invoice", "nothing", "--text", "x"]);
    assert!(!channel.status.success() && err(&channel).contains("invoice:nothing"), "{}", err(&channel));
    let domains = ask(&["domain", "list"]);
    assert!(out(&domains).lines().any(|line| line == "invoice  invoice"), "{}", out(&domains));
    let tap = on(&namespace, "postrider").args(["tap", "invoice.create", "--messages", "1"]).spawn().unwrap();
    let start = Instant::now();
    let mut tap = Some(tap);
    while let Some(mut child) = tap.take() {
        assert!(start.elapsed() < PATIENCE, "the tap hears nothing");
        assert!(ask(&["send", "invoice.create", "--json", r#"{"order":43,"amount":5}"#]).status.success());
        if child.try_wait().unwrap().is_none() {
            tap = Some(child);
        } else {
            let output = child.wait_with_output().unwrap();
            assert!(out(&output).contains(r#""key":"invoice.create""#), "{}", out(&output));
        }
    }
    services[0].signal("-TERM");
    services[1].signal("-INT");
    for mut service in services.into_iter().take(2) {
        let start = Instant::now();
        while service.0.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "a signal does not end the service");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(service.0.wait().unwrap().success(), "a service that was asked to end has not failed");
    }
    let released = ask(&["domain", "release", "orders"]);
    assert_eq!(out(&released).trim(), "released orders", "{}", err(&released));
    assert!(!ask(&["domain", "release", "orders"]).status.success());
}

#[test]
fn a_second_signal_ends_the_process_at_once_whatever_its_handlers_do() {
    let namespace = namespace();
    let mut command = on(&namespace, "mortal");
    command.env("POSTRIDER_STOP_TIMEOUT", "10m").stdout(Stdio::piped()).stderr(Stdio::null());
    let mut service = Service(command.spawn().unwrap());
    let mut lines = BufReader::new(service.0.stdout.take().unwrap()).lines();
    let start = Instant::now();
    while !run(on(&namespace, "postrider").args(["send", "mortal.do", "--text", "endless"])).status.success() {
        assert!(start.elapsed() < PATIENCE, "it does not take its message");
    }
    assert_eq!(lines.next().unwrap().unwrap(), "endless 1");
    // The first one asks it to stop, for which it waits for its handler.
    let ended = loop {
        assert!(start.elapsed() < PATIENCE, "it goes on after several signals");
        service.signal("-TERM");
        std::thread::sleep(Duration::from_millis(100));
        if let Some(status) = service.0.try_wait().unwrap() {
            break status;
        }
    };
    assert!(!ended.success(), "what was being handled is not finished");
}

/// As `timeout` does, which tells the process and then its group.
#[test]
fn two_signals_at_once_are_one_wish_and_the_stop_is_orderly() {
    let namespace = namespace();
    let mut service = Service::start(&namespace, "loans");
    for _ in 0..2 {
        service.signal("-TERM");
    }
    let start = Instant::now();
    let ended = loop {
        assert!(start.elapsed() < PATIENCE, "it does not end");
        if let Some(status) = service.0.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(ended.success(), "{ended}");
}

/// T130
#[test]
fn topology_shows_applies_compares_and_cleans() {
    let namespace = namespace();
    let invoice = |arguments: &[&str]| run(on(&namespace, "invoice").args(arguments));
    let show = out(&invoice(&["topology", "show"]));
    for part in [
        "exchange",
        "queue",
        "binding",
        &format!("{namespace}.invoice.dead"),
        "alternate-exchange",
        "x-delivery-limit=1000000",
    ] {
        assert!(show.contains(part), "{part:?} is missing in: {show}");
    }
    assert!(out(&invoice(&["topology", "diff"])).contains("nothing was declared before"));
    assert!(invoice(&["topology", "apply"]).status.success());
    let diff = invoice(&["topology", "diff"]);
    assert!(diff.status.success() && out(&diff).contains("nothing is stale"), "{}", out(&diff));
    // Another build of the service had one handler more.
    postrider_tests::world::run(leave_a_stale_binding(&namespace));
    let diff = invoice(&["topology", "diff"]);
    assert_eq!(diff.status.code(), Some(1));
    assert!(
        out(&diff).contains("stale")
            && out(&diff).contains("invoice.forgotten")
            && !out(&diff).contains("invoice.create"),
        "{}",
        out(&diff)
    );
    assert!(out(&invoice(&["topology", "gc"])).contains("invoice.forgotten"), "without --apply it only tells");
    let cleaned = out(&invoice(&["topology", "gc", "--apply"]));
    assert!(cleaned.contains("removed 4 stale bindings"), "{cleaned}");
    assert!(out(&invoice(&["topology", "diff"])).contains("nothing is stale"));
}

mod forgotten {
    use postrider::distributed;

    pub struct Invoicing;

    #[distributed(service = "invoice")]
    impl Invoicing {
        #[distributed(command = "invoice.forgotten")]
        async fn forgotten(&self, _: ()) {}
    }
}

async fn leave_a_stale_binding(namespace: &str) {
    let names = postrider::broker::Names::new(namespace).unwrap();
    let app = postrider::App::new("invoice").actor(|| forgotten::Invoicing).configure(|config| {
        config.broker = Some(postrider::Secret::new(amqp_url()));
        config.namespace = names;
    });
    app.start_as_configured().await.unwrap().stop().await;
}

/// T137, T138
#[test]
fn list_prints_a_table_and_stable_json() {
    let json = run(program("invoice").args(["list", "--json"]));
    assert!(json.status.success());
    let rows: serde_json::Value = serde_json::from_str(&out(&json)).unwrap();
    let first = &rows[0];
    let expected = serde_json::json!({
        "service": "invoice", "actor": "Invoicing", "key": "invoice.create", "kind": "command", "queue": "postrider.invoice",
        "guarantee": "effectively_once", "scope": "shared", "mode": "exclusive", "permission": null, "retry": "3 then 1s, 10s, 1m", "method": "create",
        "file": "services/invoice/src/lib.rs", "line": first["line"],
    });
    assert_eq!(*first, expected);
    assert_eq!(rows.as_array().unwrap().len(), 3);
    let table = out(&run(program("invoice").arg("list")));
    assert!(table.starts_with("KEY ") && table.contains("services/invoice/src/lib.rs:"), "{table}");
    let all = out(&run(program("delivery").args(["list", "--json"])));
    assert!(serde_json::from_str::<serde_json::Value>(&all).unwrap().as_array().unwrap().len() > 10);
}

/// T138
#[test]
fn exit_codes_and_problems_are_stable() {
    let usage = run(program("invoice").arg("--nonsense"));
    assert_eq!(usage.status.code(), Some(2));
    let configuration = run(program("invoice")
        .env("POSTRIDER_PREFETCH", "zero")
        .env("POSTRIDER_COLOUR", "red")
        .env("POSTRIDER_ACTOR__GHOST__PREFETCH", "1"));
    assert_eq!(configuration.status.code(), Some(1));
    let text = err(&configuration);
    assert!(text.contains("prefetch") && text.contains("colour"), "{text}");
    let nobody = run(program("delivery").args(["run", "nobody"]));
    assert!(nobody.status.code() == Some(1) && err(&nobody).contains("nobody"), "{}", err(&nobody));
    let unreachable =
        run(program("invoice").args(["--broker", "amqp://u:hunter2@127.0.0.1:1"]).env("POSTRIDER_START_TIMEOUT", "1s"));
    assert_eq!(unreachable.status.code(), Some(1));
    assert!(
        err(&unreachable).contains("127.0.0.1:1") && !err(&unreachable).contains("hunter2"),
        "{}",
        err(&unreachable)
    );
    let no_broker = run(program("postrider").args(["ping", "x"]));
    assert!(no_broker.status.code() == Some(1) && err(&no_broker).contains("POSTRIDER_BROKER"), "{}", err(&no_broker));
}

#[test]
fn a_process_ends_at_its_limits() {
    let idle = run(program("invoice").args(["--idle", "100ms"]));
    assert!(idle.status.success() && err(&idle).contains("nothing to do"), "{}", err(&idle));
    let time = run(program("invoice").args(["run", "invoice", "--time", "100ms"]));
    assert!(time.status.success() && err(&time).contains("are over"), "{}", err(&time));
    let memory = run(program("invoice").args(["--memory", "1"]));
    assert!(memory.status.success() && err(&memory).contains("MiB"), "{}", err(&memory));
    let namespace = namespace();
    let (code, log) = sending_until_it_ends(&namespace, &["--messages", "1"], r#"{"order":1,"amount":5}"#);
    assert!(code == Some(0) && log.contains("messages handled"), "{log}");
    let (code, log) = sending_until_it_ends(&namespace, &["--first-failure"], r#"{"order":1,"amount":0}"#);
    assert!(code == Some(1) && log.contains("a message failed"), "{log}");
}

/// Runs `invoice` on RabbitMQ and sends it commands until it has ended; its exit code and log.
fn sending_until_it_ends(namespace: &str, arguments: &[&str], command: &str) -> (Option<i32>, String) {
    let mut invoice = on(namespace, "invoice").args(arguments).spawn().unwrap();
    let start = Instant::now();
    while invoice.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < PATIENCE, "it goes on beyond {arguments:?}");
        run(on(namespace, "postrider").args(["send", "invoice.create", "--json", command]));
    }
    let output = invoice.wait_with_output().unwrap();
    (output.status.code(), err(&output))
}
