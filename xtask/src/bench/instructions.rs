//! How many instructions a message costs: a guard that does not depend on the machine's load. Valgrind counts them for two
//! numbers of messages; the difference removes the cost of starting and stopping.

mod profile;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, io::Write};

use crate::bench::build;
use crate::bench::instructions::profile::Profile;
use crate::bench::role::{OURS, Role, done, run as run_role};
use crate::node::Node;
use crate::{apt, broker, node, program};

/// The size of the message's payload, in bytes.
const BYTES: &str = "256";
/// How long one count may take.
const COUNT_LIMIT: Duration = Duration::from_secs(600);
/// The queue of the service that is measured.
const QUEUE: &str = "postrider.load";

/// What is counted.
struct Row {
    name: &'static str,
    work: Work,
    /// The two numbers of messages.
    messages: [u64; 2],
    /// How far the figure may rise before the check fails: over a broker, batch sizes vary.
    tolerance: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Each handler sends the next message.
    Chain,
    /// A command and its confirm.
    Publish,
    /// A command that is fired, and its confirm.
    Fire,
    /// A command and its acknowledgement.
    Consume,
    /// A query and its reply, on the caller's side.
    Request,
}

const ROWS: [Row; 5] = [
    Row { name: "in process", work: Work::Chain, messages: [2_000, 12_000], tolerance: 0.03 },
    Row { name: "publish", work: Work::Publish, messages: [2_000, 8_000], tolerance: 0.05 },
    Row { name: "publish fired", work: Work::Fire, messages: [2_000, 8_000], tolerance: 0.05 },
    Row { name: "consume", work: Work::Consume, messages: [2_000, 8_000], tolerance: 0.05 },
    Row { name: "request", work: Work::Request, messages: [1_000, 4_000], tolerance: 0.05 },
];

/// The recorded cost of each row, by compiler and C library.
type Known = BTreeMap<String, BTreeMap<String, u64>>;

fn known_path() -> PathBuf {
    program::root().join("benches/instructions.json")
}

/// Counts and compares.
pub fn run() -> Result<(), String> {
    if !program::succeeds(&["valgrind", "--version"]) && apt::usable() {
        apt::install("valgrind")?;
    }
    if !program::succeeds(&["valgrind", "--version"]) {
        return Err("no valgrind: install it, or run this as root on Debian".into());
    }
    // Without the stores, which take minutes to build.
    build(&["--bin", OURS, "--no-default-features"])?;
    broker::installed()?;
    let node = Node::start()?;
    done(OURS, &["--broker", &node.url(), "consume", "--messages", "0"])?;
    let version = version()?;
    let text = fs::read_to_string(known_path()).map_err(|error| format!("{}: {error}", known_path().display()))?;
    let known: Known = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let known = known.get(&version);
    if known.is_none() {
        println!("no figures are known for {version:?}: write them into benches/instructions.json");
    }
    let mut problems = Vec::new();
    for row in &ROWS {
        let each = each(row, &node)?;
        let Profile { total, client, allocations } = each;
        let before = known.and_then(|known| known.get(row.name));
        println!(
            "{:<13} {total:>6} instructions for a message, {client:>6} of them the client library's, {allocations:>3} allocations{}",
            row.name,
            compared(total, before)
        );
        if before.is_some_and(|before| total as f64 > *before as f64 * (1.0 + row.tolerance)) {
            problems.push(format!("{}: more than {:.0} % above what is committed", row.name, row.tolerance * 100.0));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(format!("{}; if it is worth it, write the new figures into benches/instructions.json", problems.join("; ")))
}

fn compared(total: u64, before: Option<&u64>) -> String {
    before.map_or_else(String::new, |before| {
        format!("; {before} before, {:+.1} %", (total as f64 / *before as f64 - 1.0) * 100.0)
    })
}

fn each(row: &Row, node: &Node) -> Result<Profile, String> {
    let [few, many] = row.messages.map(|messages| count(row.work, messages, node));
    Ok(many?.minus(few?).of_each(row.messages[1] - row.messages[0]))
}

fn count(work: Work, messages: u64, node: &Node) -> Result<Profile, String> {
    let (url, messages) = (node.url(), messages.to_string());
    let over = ["--broker", &url];
    node.ctl(&["purge_queue", QUEUE])?;
    match work {
        Work::Chain => profile(&["chain", &messages, BYTES]),
        Work::Publish => profile(&[&over[..], &["publish", "--messages", &messages, "--bytes", BYTES]].concat()),
        Work::Fire => profile(&[&over[..], &["publish", "--fire", "--messages", &messages, "--bytes", BYTES]].concat()),
        Work::Consume => {
            run_role(OURS, &[&over[..], &["publish", "--messages", &messages, "--bytes", BYTES]].concat())?;
            profile(&[&over[..], &["consume", "--messages", &messages]].concat())
        }
        Work::Request => {
            let mut answers = Role::ready(OURS, &[&over[..], &["serve"]].concat())?;
            let asks = ["ask", "--messages", &messages, "--outstanding", "16", "--bytes", BYTES];
            let asked = profile(&[&over[..], &asks].concat());
            answers.go()?;
            answers.ended()?;
            asked
        }
    }
}

/// The instructions of one run, all threads together.
fn profile(words: &[&str]) -> Result<Profile, String> {
    let ours = program::root().join("target/release").join(OURS);
    let file = std::env::temp_dir().join(format!("postrider-callgrind-{}", std::process::id()));
    let mut command = Command::new("valgrind");
    command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", file.display())).arg(ours).args(words);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("valgrind: cannot run: {error}"))?;
    if let Some(input) = child.stdin.as_mut() {
        writeln!(input, "go").map_err(|error| format!("valgrind: {error}"))?;
    }
    // It prints less than a pipe holds.
    let status = node::wait_within(&mut child, COUNT_LIMIT);
    if status.is_none() {
        let _ = child.kill();
        return Err(format!("valgrind: no end within {COUNT_LIMIT:?}"));
    }
    let output = child.wait_with_output().map_err(|error| format!("valgrind: {error}"))?;
    let profile = read(&file);
    let _ = fs::remove_file(&file);
    match profile {
        Some(profile) if output.status.success() => Ok(profile),
        _ => Err(format!("valgrind {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr))),
    }
}

fn read(file: &Path) -> Option<Profile> {
    Profile::of(&fs::read_to_string(file).ok()?)
}

/// What the figures depend on besides our code.
fn version() -> Result<String, String> {
    let rustc = program::output(&["rustc", "--version"])?;
    let rustc: Vec<&str> = rustc.split(' ').take(2).collect();
    let libc = program::output(&["getconf", "GNU_LIBC_VERSION"])?;
    Ok(format!("{}, {libc}", rustc.join(" ")))
}
