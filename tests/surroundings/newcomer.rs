//! What somebody meets who starts with the README.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use postrider::testing::TestApp;
use postrider::{App, Context, Failure, Payload, WaitError, distributed};
use postrider_tests::on_both_brokers;
use postrider_tests::program::{PATIENCE, err, out, program, run};
use postrider_tests::world::{Seen, World, amqp_url, eventually};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

/// The first block of shell commands below a heading, without comments.
fn shell_block(page: &str, heading: &str) -> Vec<String> {
    let below = page.split_once(heading).unwrap_or_else(|| panic!("no heading {heading:?}")).1;
    let block =
        below.split_once("```sh\n").and_then(|(_, rest)| rest.split_once("```")).expect("a block of commands").0;
    let without_comment = |line: &str| line.split_once("  #").map_or(line, |(command, _)| command).trim().to_owned();
    block.lines().map(without_comment).filter(|line| !line.is_empty()).collect()
}

/// The README's commands, with what Cargo has built in the place of Cargo, and the broker that there is.
fn company_over_rabbitmq() -> Vec<String> {
    let block = shell_block(&page("README.md"), "## The same binaries over RabbitMQ");
    assert!(block[0].starts_with("export POSTRIDER_BROKER="), "{block:?}");
    let commands = block[1..].iter().map(|line| as_built(line));
    [format!("export POSTRIDER_BROKER={}", amqp_url())].into_iter().chain(commands).collect()
}

/// A command line with what Cargo has built in the place of Cargo.
fn as_built(line: &str) -> String {
    line.replace(" -- ", " ").replace("cargo run -p ", &format!("{}/", built().display()))
}

/// Pastes commands into a shell, and ends what they leave behind. They write to files: a pipe would be full some day, and
/// stay open as long as anything runs.
fn paste(namespace: &str, commands: &[String]) -> Output {
    let files = ["out", "err"].map(|ending| std::env::temp_dir().join(format!("{namespace}.{ending}")));
    let mut shell = Command::new("bash");
    shell.arg("-c").arg(commands.join("\n")).env("POSTRIDER_NAMESPACE", namespace);
    shell.env("POSTRIDER_LOG", "warn,lapin=off").stdin(Stdio::null()).process_group(0);
    shell.stdout(File::create(&files[0]).unwrap()).stderr(File::create(&files[1]).unwrap());
    let mut shell = shell.spawn().unwrap();
    let (start, group) = (Instant::now(), format!("-{}", shell.id()));
    let mut ended = None;
    while ended.is_none() && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
        ended = shell.try_wait().unwrap();
    }
    let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
    let _ = shell.wait();
    let [stdout, stderr] = files.map(|file| {
        let text = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        text
    });
    let printed = [&stdout, &stderr].map(|text| String::from_utf8_lossy(text)).join("\n");
    Output { status: ended.unwrap_or_else(|| panic!("still running after {PATIENCE:?}:\n{printed}")), stdout, stderr }
}

fn assert_all_orders_are_done(output: &Output) {
    assert!(output.status.success(), "{}\n{}", out(output), err(output));
    let text = out(output);
    assert_eq!(text.matches("done; invoice INV-").count(), 3, "{text}\n{}", err(output));
    let speakers = ["orders: ", "invoice: ", "payment: ", "shipping: ", "notification: ", "client: "];
    let odd: Vec<&str> =
        text.lines().filter(|line| !speakers.iter().any(|speaker| line.starts_with(speaker))).collect();
    assert!(odd.is_empty(), "they do not say which service speaks: {odd:?}");
    let last = text.lines().last().unwrap_or_default();
    assert!(last.contains("3 commands and 18 events") && last.contains("next: "), "{text}");
}

fn fresh_namespace() -> String {
    World::rabbitmq().names.namespace().to_owned()
}

#[test]
fn the_company_over_rabbitmq_works_as_the_readme_says_it_in_a_fresh_namespace_and_again_in_a_used_one() {
    let (namespace, commands) = (fresh_namespace(), company_over_rabbitmq());
    assert_all_orders_are_done(&paste(&namespace, &commands));
    assert_all_orders_are_done(&paste(&namespace, &commands));
}

#[test]
fn the_two_commands_of_the_readme_run_the_company_and_the_checks() {
    let [company, checks] = <[String; 2]>::try_from(shell_block(&page("README.md"), "## Two commands")).unwrap();
    assert_eq!((company.as_str(), checks.as_str()), ("cargo run -p delivery", "cargo xtask test"));
    let output = paste(&fresh_namespace(), &[as_built(&company)]);
    assert_all_orders_are_done(&output);
    // All of it would run this test once more.
    let listed = run(program("xtask").args(["test", "--list"]));
    assert!(listed.status.success() && out(&listed).contains("surroundings"), "{}\n{}", out(&listed), err(&listed));
}

#[test]
fn the_commands_about_running_services_work_behind_those_that_start_them_as_the_readme_says() {
    let mut commands = company_over_rabbitmq();
    let ends = commands.pop().unwrap();
    assert!(ends.starts_with("kill "), "the last one ends them: {ends}");
    let block = shell_block(&page("README.md"), "Every service binary has a command line");
    assert_eq!(block.len(), 4, "{block:?}");
    commands.push("set -e".into());
    commands.extend(block.iter().map(|line| as_built(line)));
    commands.push(ends);
    let output = paste(&fresh_namespace(), &commands);
    let printed = [out(&output), err(&output)].concat();
    assert!(output.status.success(), "{printed}");
    let behind = printed.split_once("next: ").expect("the company has run").1;
    // The list of handlers, the answer to the request, and the copy of a message on its way.
    assert!(behind.contains("Invoicing") && behind.matches("invoice.create").count() >= 2, "{printed}");
    assert!(behind.contains(r#""order":7"#) && behind.contains("470"), "{printed}");
}

#[test]
fn the_company_over_rabbitmq_works_whichever_process_starts_first() {
    let commands = company_over_rabbitmq();
    let services: Vec<&str> = commands[1].split('&').map(str::trim).filter(|command| !command.is_empty()).collect();
    assert_eq!(services.len(), 5, "{commands:?}");
    let client = &commands[2];
    // The client first, and each service only when the one before it answers.
    let operator = program("postrider").get_program().to_string_lossy().into_owned();
    let mut script = vec![commands[0].clone(), format!("{client} &"), "client=$!".into()];
    for service in services.iter().rev() {
        let name = service.rsplit('/').next().unwrap();
        script.push(format!("{service} & until {operator} ping {name} --timeout 1s >&2; do :; done"));
    }
    script.extend(["wait $client || exit 1".into(), "kill $(jobs -p) || true".into()]);
    assert_all_orders_are_done(&paste(&fresh_namespace(), &script));
}

#[test]
fn the_company_over_rabbitmq_works_where_only_some_services_have_run_before() {
    let (namespace, commands) = (fresh_namespace(), company_over_rabbitmq());
    for stands in ["orders", "client"] {
        let mut command = program(stands);
        command.env("POSTRIDER_BROKER", amqp_url()).env("POSTRIDER_NAMESPACE", &namespace);
        let applied = run(command.args(["topology", "apply"]));
        assert!(applied.status.success(), "{}", err(&applied));
    }
    assert_all_orders_are_done(&paste(&namespace, &commands));
}

#[test]
fn a_client_without_its_services_says_which_are_missing_and_ends() {
    let alone = run(&mut program("client"));
    assert_eq!(alone.status.code(), Some(1));
    assert!(err(&alone).contains("set POSTRIDER_BROKER=amqp://"), "{}", err(&alone));

    let mut client = program("client");
    client.env("POSTRIDER_BROKER", amqp_url()).env("POSTRIDER_NAMESPACE", fresh_namespace());
    // Whoever waits is not idle.
    let client = run(client.env("POSTRIDER_NEEDS_TIMEOUT", "300ms").args(["--idle", "60ms"]));
    assert_eq!(client.status.code(), Some(1), "{}", out(&client));
    let text = err(&client);
    assert!(text.contains(r#"["orders", "invoice", "payment", "shipping", "notification"]"#), "{text}");
    assert!(text.contains("within 300ms") && text.contains("needs_timeout"), "{text}");
}

/// The block below a heading of a page, in one language.
fn block(page: &str, heading: &str, language: &str) -> String {
    let below = page.split_once(&format!("\n## {heading}\n")).unwrap_or_else(|| panic!("no heading {heading:?}")).1;
    let (_, block) = below.split_once(&format!("```{language}\n")).unwrap_or_else(|| panic!("no block {language:?}"));
    block.split_once("```").unwrap().0.to_owned()
}

/// A folder of its own outside the repository, gone at the end.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The files of "Your first service" in a folder of their own, with the way to the framework that leads there from here.
fn first_service(page: &str) -> Folder {
    let folder = Folder(std::env::temp_dir().join(format!("first-service-{}", fresh_namespace())));
    std::fs::create_dir_all(folder.0.join("src")).unwrap();
    for (name, language) in
        [("Cargo.toml", "toml"), ("src/contract.rs", "rust"), ("src/main.rs", "rust"), ("postrider.toml", "toml")]
    {
        let text = block(page, name, language).replace("../postrider/", &format!("{}/", root().display()));
        std::fs::write(folder.0.join(name), text).unwrap();
    }
    std::fs::copy(root().join("Cargo.lock"), folder.0.join("Cargo.lock")).unwrap();
    folder
}

fn built() -> PathBuf {
    std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned()
}

/// Cargo in a folder, with what this repository has built already. It knows the packages by the copied lock file.
fn cargo_in(folder: &Folder, arguments: &[&str]) -> Output {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
    cargo.current_dir(&folder.0).args(arguments).arg("--offline").env("CARGO_TARGET_DIR", built().parent().unwrap());
    // As this repository's, so that what it has built can be used.
    cargo.env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only").stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("POSTRIDER_")) {
        cargo.env_remove(name);
    }
    cargo.output().unwrap()
}

#[test]
fn your_first_service_is_built_tested_and_asked_as_its_page_says() {
    let page = page("docs/first-service.md");
    let folder = first_service(&page);
    // With all targets, the program and its tests share what they are built on.
    for arguments in [&["build", "--all-targets"][..], &["test"]] {
        let output = cargo_in(&folder, arguments);
        let text = [out(&output), err(&output)].concat();
        assert!(output.status.success() && !text.contains("warning"), "{arguments:?}:\n{text}");
        assert!(arguments[0] != "test" || text.contains("2 passed"), "{text}");
    }
    let commands = page.split("```sh\n").find(|block| block.starts_with("export POSTRIDER_BROKER=")).unwrap();
    let commands = commands.split_once("```").unwrap().0.lines().skip(1).map(|line| match line {
        "cargo run &" => format!("{}/tickets &", built().display()),
        line => line.replace("postrider ", &format!("{}/postrider ", built().display())),
    });
    let prepared = [format!("cd {}", folder.0.display()), format!("export POSTRIDER_BROKER={}", amqp_url())];
    let output = paste(&fresh_namespace(), &prepared.into_iter().chain(commands).collect::<Vec<_>>());
    let printed = [out(&output), err(&output)].concat();
    let expected = page.split_once("It prints:\n\n```text\n").unwrap().1.split_once("```").unwrap().0;
    for line in expected.lines() {
        assert!(printed.lines().any(|printed| printed == line), "{line:?} is not printed:\n{printed}");
    }
}

/// Tells of what it hears.
struct Listener(Seen<String>);

#[distributed(service = "listener")]
impl Listener {
    #[distributed(event = "speaker.*")]
    async fn heard(&mut self, text: String) {
        self.0.add(text);
    }
}

/// Announces what it is told to.
#[derive(Default)]
struct Speaker;

#[distributed(service = "speaker")]
impl Speaker {
    #[distributed(command = "speaker.say")]
    async fn say(&mut self, text: String, cx: &Context) -> Result<(), Failure> {
        cx.publish_key("speaker.said", Payload::text(text))?;
        Ok(())
    }
}

/// Says something as soon as its app is ready.
fn hasty() -> App {
    App::new("hasty").needs(["speaker", "listener"]).until(async |bus| {
        bus.send_key("speaker.say", Payload::text("hello")).await?;
        Ok(())
    })
}

#[postrider::test]
async fn a_test_of_apps_that_need_each_other_logs_their_own_messages_alone() {
    let (seen, speaker) = (Seen::default(), App::new("speaker").actor(Speaker::default));
    let state = seen.clone();
    let listener = App::new("listener").actor(move || Listener(state.clone()));
    let test = TestApp::start_all([hasty(), speaker, listener]).await;
    seen.reach(1).await;
    test.settled().await;
    assert_eq!(test.log().keys(), ["speaker.say", "speaker.said"]);
    test.stop().await;
}

on_both_brokers! {
    async fn an_app_waits_for_the_services_it_needs_whenever_they_start(world: World) {
        let hasty = world.start(hasty()).await;
        let health = hasty.health();
        assert!(!health.ready && health.waits_for == ["speaker", "listener"], "{health:?}");
        let speaker = world.start(App::new("speaker").actor(Speaker::default)).await;
        eventually("one of them is there", || hasty.health().waits_for == ["listener"]).await;
        let seen = Seen::default();
        let state = seen.clone();
        let listener = world.start(App::new("listener").actor(move || Listener(state.clone()))).await;
        assert_eq!(hasty.ended().await.failure, None);
        assert_eq!(seen.reach(1).await, ["hello"]);
        speaker.stop().await;
        listener.stop().await;
    }

    async fn a_service_that_does_not_come_is_named_when_the_time_is_over(world: World) {
        let speaker = world.start(App::new("speaker").actor(Speaker::default)).await;
        let app = world.app(hasty()).configure(|config| config.needs_timeout = Duration::from_millis(300));
        let failure = app.start_as_configured().await.unwrap().ended().await.failure.unwrap();
        assert!(failure.contains(r#"["listener"]"#) && failure.contains("within 300ms"), "{failure}");

        let started = Instant::now();
        let missing = speaker.bus().wait_for_services(["speaker", "listener"], Duration::from_millis(300)).await;
        assert!(matches!(missing, Err(WaitError::Missing { ref services, .. }) if *services == ["listener"]), "{missing:?}");
        assert!(started.elapsed() < PATIENCE);
        speaker.bus().wait_for_services(["speaker"], Duration::from_secs(20)).await.unwrap();
        let unnamed = speaker.bus().wait_for_services(["No Name"], Duration::from_secs(20)).await;
        assert!(matches!(unnamed, Err(WaitError::Name(_))), "{unnamed:?}");
        speaker.stop().await;
    }

    async fn two_apps_that_need_each_other_both_start(world: World) {
        let done = Seen::default();
        let apps = [("speaker", "listener"), ("listener", "speaker")].map(|(own, other)| {
            let (done, state) = (done.clone(), Seen::default());
            let app = App::new(own).needs([own, other]).on_ready(async move |_| {
                done.add(own);
                Ok(())
            });
            if own == "speaker" { app.actor(Speaker::default) } else { app.actor(move || Listener(state.clone())) }
        });
        let mut running = Vec::new();
        for app in apps {
            running.push(world.start(app).await);
        }
        done.reach(2).await;
        eventually("both are ready", || running.iter().all(|app| app.health().ready)).await;
        for app in running {
            app.stop().await;
        }
    }
}
