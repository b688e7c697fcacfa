//! The examples do what their first lines say, and the commands that the documentation shows work.

#![allow(clippy::panic, clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// How long one program may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long Cargo may take to build one package.
const BUILD_PATIENCE: Duration = Duration::from_secs(1_200);

/// Every example: its file, and its name for `cargo run --example`.
const EXAMPLES: [(&str, &str); 10] = [
    ("01-hello.rs", "hello"),
    ("02-commands-and-events.rs", "commands-and-events"),
    ("03-request-and-reply.rs", "request-and-reply"),
    ("04-wildcards-and-tap.rs", "wildcards-and-tap"),
    ("05-several-instances.rs", "several-instances"),
    ("06-web-handler.rs", "web-handler"),
    ("07-testing-a-service.rs", "testing-a-service"),
    ("08-foreign-client.rs", "foreign-client"),
    ("09-errors-and-state.rs", "errors-and-state"),
    ("10-effects-once.rs", "effects-once"),
];

#[test]
fn hello_prints_what_its_first_lines_say() {
    prints_what_it_says("01-hello.rs");
}

#[test]
fn commands_and_events_prints_what_its_first_lines_say() {
    prints_what_it_says("02-commands-and-events.rs");
}

#[test]
fn request_and_reply_prints_what_its_first_lines_say() {
    prints_what_it_says("03-request-and-reply.rs");
}

#[test]
fn wildcards_and_tap_prints_what_its_first_lines_say() {
    prints_what_it_says("04-wildcards-and-tap.rs");
}

#[test]
fn several_instances_prints_what_its_first_lines_say() {
    prints_what_it_says("05-several-instances.rs");
}

#[test]
fn effects_once_prints_what_its_first_lines_say() {
    prints_what_it_says("10-effects-once.rs");
}

#[test]
fn web_handler_prints_what_its_first_lines_say() {
    prints_what_it_says("06-web-handler.rs");
}

#[test]
fn testing_a_service_prints_what_its_first_lines_say() {
    prints_what_it_says("07-testing-a-service.rs");
}

#[test]
fn errors_and_state_prints_what_its_first_lines_say() {
    prints_what_it_says("09-errors-and-state.rs");
}

#[test]
fn the_tests_of_the_tested_service_pass() {
    let _alone = cargo_alone();
    let finished = cargo(&["test", "-p", "examples"]).finish(BUILD_PATIENCE);
    finished.assert_succeeded();
    let passed = finished.stdout.iter().find(|line| line.starts_with("test result: ok."));
    assert!(passed.is_some_and(|line| !line.contains(" 0 passed")), "no test ran:\n{finished}");
}

#[test]
fn foreign_client_and_its_service_print_what_their_first_lines_say() {
    let (address, python) = (rabbitmq(), python_with_pika());
    let first_lines = FirstLines::of("08-foreign-client.rs");
    let mut service = Started::new(example("foreign-client").env("POSTRIDER_BROKER", &address));
    service.wait_for_line(&first_lines.expected[0]);

    let mut client = Command::new(python);
    client.arg(folder("examples").join("foreign_client.py")).arg(&address);
    let client = Started::new(&mut client).finish(PATIENCE);
    client.assert_succeeded();
    assert_lines(&FirstLines::of_python("foreign_client.py"), &client);

    let service = service.finish(PATIENCE);
    service.assert_succeeded();
    assert_lines(&first_lines, &service);
}

#[test]
fn the_whole_delivery_company_runs_in_one_process() {
    let _alone = cargo_alone();
    cargo(&["build", "-p", "delivery"]).finish(BUILD_PATIENCE).assert_succeeded();
    let finished = cargo(&["run", "-p", "delivery"]).finish(PATIENCE);
    finished.assert_succeeded();
    let done: Vec<_> = finished.stdout.iter().filter(|line| line.ends_with(" is on its way")).collect();
    assert_eq!(done.len(), 3, "three orders are done in the end:\n{finished}");
    assert!(done.iter().all(|line| line.contains("done; invoice INV-")), "each has an invoice:\n{finished}");
}

#[test]
fn every_example_is_tested_and_says_how_to_run_it() {
    let entries = std::fs::read_dir(folder("examples")).expect("the folder of the examples");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    let mut files: Vec<_> = names.filter(|name| name.ends_with(".rs")).collect();
    files.sort();
    assert_eq!(files, EXAMPLES.map(|(file, _)| file));
    for (file, name) in EXAMPLES {
        let command = format!("cargo run -p examples --example {name}");
        assert_eq!(FirstLines::of(file).command, command, "{file}");
    }
}

#[test]
fn missing_and_extra_lines_are_named() {
    let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(difference(&lines("a b b"), &lines("b a b"), true), None);
    assert_eq!(difference(&lines("a b"), &lines("a b"), false), None);
    assert!(difference(&lines("a b"), &lines("b a"), false).is_some_and(|text| text.contains("order")));
    let text = difference(&lines("a b b"), &lines("b c"), true).expect("a difference");
    assert_eq!(text, "missing: \"a\"\nmissing: \"b\"\nextra: \"c\"");
}

/// Runs a built example as its first lines say, and compares what it prints with what they say.
fn prints_what_it_says(file: &str) {
    let first_lines = FirstLines::of(file);
    let (_, name) = EXAMPLES.into_iter().find(|(example, _)| *example == file).expect("an example of this name");
    let finished = Started::new(example(name).args(&first_lines.arguments)).finish(PATIENCE);
    finished.assert_succeeded();
    assert_lines(&first_lines, &finished);
}

/// What the first lines of an example say.
struct FirstLines {
    /// How it is run, without arguments of its own.
    command: String,
    /// Its own arguments.
    arguments: Vec<String>,
    /// What it prints.
    expected: Vec<String>,
    /// Whether the order is left open.
    any_order: bool,
}

impl FirstLines {
    /// Of a Rust program: a line `Run with: …`, and the block ```` ```text ````.
    fn of(file: &str) -> Self {
        let source = read(&folder("examples").join(file));
        let doc: Vec<&str> = source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
        let run = doc.iter().find_map(|line| line.strip_prefix("Run with: "));
        let run = run.unwrap_or_else(|| panic!("{file} has no line `//! Run with: …`"));
        let (command, arguments) = run.split_once(" -- ").unwrap_or((run, ""));
        let block = doc.iter().position(|line| *line == "```text");
        let block = block.unwrap_or_else(|| panic!("{file} has no block ```text with what it prints"));
        let expected: Vec<String> =
            doc[block + 1..].iter().take_while(|line| **line != "```").map(|line| (*line).to_owned()).collect();
        assert!(!expected.is_empty(), "{file}: the block ```text is empty");
        Self {
            command: command.to_owned(),
            arguments: arguments.split_whitespace().map(str::to_owned).collect(),
            expected,
            any_order: doc[..block].join(" ").contains("in any order"),
        }
    }

    /// Of a Python program: the indented lines of its first text.
    fn of_python(file: &str) -> Self {
        let source = read(&folder("examples").join(file));
        let doc = source.split("\"\"\"").nth(1).unwrap_or_else(|| panic!("{file} does not begin with a text"));
        let expected: Vec<String> =
            doc.lines().filter_map(|line| line.strip_prefix("    ")).map(str::to_owned).collect();
        assert!(!expected.is_empty(), "{file} does not say what it prints");
        Self { command: String::new(), arguments: Vec::new(), expected, any_order: false }
    }
}

fn assert_lines(first_lines: &FirstLines, finished: &Finished) {
    if let Some(difference) = difference(&first_lines.expected, &finished.stdout, first_lines.any_order) {
        panic!("it does not print what its first lines say.\n{difference}\n{finished}");
    }
}

/// What is missing in the actual lines and what is extra; `None` when they are as expected.
fn difference(expected: &[String], actual: &[String], any_order: bool) -> Option<String> {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    expected.iter().for_each(|line| *counts.entry(line).or_default() += 1);
    actual.iter().for_each(|line| *counts.entry(line).or_default() -= 1);
    let named = |word: &str, sign: i64| {
        let times = |count: i64| usize::try_from(count * sign).unwrap_or(0);
        let lines = counts.iter().flat_map(|(line, count)| std::iter::repeat_n(*line, times(*count)));
        lines.map(|line| format!("{word}: {line:?}")).collect::<Vec<_>>()
    };
    let lines = [named("missing", 1), named("extra", -1)].concat();
    if !lines.is_empty() {
        return Some(lines.join("\n"));
    }
    let in_order = any_order || expected == actual;
    (!in_order).then(|| format!("the lines come in another order than these: {expected:#?}"))
}

/// A program that runs; it is killed when it is dropped, and so is what it has started.
struct Started {
    program: String,
    child: Child,
    stdout: mpsc::Receiver<String>,
    stderr: mpsc::Receiver<String>,
    seen: Vec<String>,
}

/// A program that has ended, or was killed because its time was over.
struct Finished {
    program: String,
    code: Result<i32, String>,
    stdout: Vec<String>,
    stderr: String,
}

impl Started {
    /// Starts it in the workspace, without the settings that the tests themselves may have got.
    fn new(command: &mut Command) -> Self {
        let program = format!("{command:?}");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.current_dir(folder(".")).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{program} does not start: {error}"));
        let stdout = lines_of(child.stdout.take().expect("its output is piped"));
        let stderr = lines_of(child.stderr.take().expect("its log is piped"));
        Self { program, child, stdout, stderr, seen: Vec::new() }
    }

    fn wait_for_line(&mut self, expected: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.seen.last().is_none_or(|line| line != expected) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.stdout.recv_timeout(left) {
                Ok(line) => self.seen.push(line),
                Err(error) => {
                    panic!("it did not print {expected:?}: {error}\n{}", self.end(Duration::ZERO))
                }
            }
        }
    }

    fn finish(mut self, patience: Duration) -> Finished {
        self.end(patience)
    }

    fn end(&mut self, patience: Duration) -> Finished {
        let deadline = Instant::now() + patience;
        let code = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status.code().ok_or_else(|| format!("it was ended: {status}")),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                Ok(None) => break Err(format!("it was still running after {patience:?}")),
                Err(error) => break Err(error.to_string()),
            }
        };
        self.kill();
        self.seen.extend(rest(&self.stdout));
        let stderr = rest(&self.stderr).join("\n");
        Finished { program: self.program.clone(), code, stdout: std::mem::take(&mut self.seen), stderr }
    }

    /// It and its children are a group, whose number is its own while it has not been waited for.
    fn kill(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let group = format!("-{}", self.child.id());
            // It may have ended just now.
            let _ = Command::new("kill").args(["-KILL", "--", &group]).status();
            let _ = self.child.wait();
        }
    }
}

fn lines_of(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (line, lines) = mpsc::channel();
    let mut read = BufReader::new(stream).lines().map_while(Result::ok);
    // It ends with the stream, or with whoever wants the lines.
    std::thread::spawn(move || read.try_for_each(|read| line.send(read)));
    lines
}

/// What an ended program had still written. A child that outlives it may keep the stream open; nobody waits for that.
fn rest(lines: &mpsc::Receiver<String>) -> Vec<String> {
    std::iter::from_fn(|| lines.recv_timeout(Duration::from_secs(2)).ok()).collect()
}

impl Drop for Started {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Finished {
    fn assert_succeeded(&self) {
        assert_eq!(self.code, Ok(0), "exit code\n{self}");
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (stdout, stderr) = (self.stdout.join("\n"), &self.stderr);
        write!(f, "{} ended with {:?}\n--- output\n{stdout}\n--- log\n{stderr}", self.program, self.code)
    }
}

/// The built example of this name; all of them are built the first time.
fn example(name: &str) -> Command {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let _alone = cargo_alone();
        cargo(&["build", "-p", "examples", "--examples"]).finish(BUILD_PATIENCE).assert_succeeded();
    });
    let mut command = Command::new(target_folder().join("debug/examples").join(name));
    without_settings(&mut command);
    command
}

fn cargo(arguments: &[&str]) -> Started {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()));
    without_settings(&mut command);
    Started::new(command.args(arguments).env("CARGO_TARGET_DIR", target_folder()))
}

/// One Cargo waits for the other; the time-out of a program is not for that.
fn cargo_alone() -> MutexGuard<'static, ()> {
    static CARGO: Mutex<()> = Mutex::new(());
    CARGO.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A program under test runs on the broker inside its process, whatever this process was told.
fn without_settings(command: &mut Command) {
    let names = std::env::vars_os().map(|(name, _)| name);
    for name in names.filter(|name| name.to_string_lossy().starts_with("POSTRIDER_")) {
        command.env_remove(name);
    }
}

/// This test is at `<target>/<profile>/deps/<name>`.
fn target_folder() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    test.ancestors().nth(3).expect("the folder for what is built").to_owned()
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rabbitmq() -> String {
    std::env::var("AMQP_URL").unwrap_or_else(|_| {
        panic!(
            "this test needs RabbitMQ: `cargo xtask test --only examples` installs and starts one, or start one \
             yourself and set AMQP_URL=amqp://user:password@host/vhost"
        )
    })
}

/// The Python that `cargo xtask test` has found, or one that is there.
fn python_with_pika() -> String {
    let named = std::env::var("PYTHON_WITH_PIKA").ok();
    let mut pythons = named.into_iter().chain(["python3", "/usr/bin/python3"].map(str::to_owned));
    let has_pika = |python: &String| {
        Command::new(python).args(["-c", "import pika"]).output().is_ok_and(|output| output.status.success())
    };
    pythons.find(has_pika).unwrap_or_else(|| {
        panic!(
            "this test needs python3 with the package pika: `cargo xtask test --only examples` installs both, or run \
             `pip install pika`"
        )
    })
}
