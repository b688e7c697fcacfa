//! How many instructions a message costs on its way through one process: a guard that does not depend on the machine's
//! mood. Counted by valgrind for two numbers of messages; what starting and stopping cost falls out of the difference.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, io::Write};

use crate::bench::build;
use crate::{apt, node, program};

/// The two numbers of messages.
const MESSAGES: [u64; 2] = [2_000, 12_000];
/// What the message's payload has, in bytes.
const BYTES: &str = "256";
/// By how much the figure may rise before it is a mistake.
const TOLERANCE: f64 = 0.03;
/// How long one count may take.
const COUNT_LIMIT: Duration = Duration::from_secs(600);

/// What it cost when it was last looked at, by compiler and C library.
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
    build()?;
    let [few, many] = MESSAGES.map(count);
    let each = (many?.saturating_sub(few?)) / (MESSAGES[1] - MESSAGES[0]);
    let version = version()?;
    let text = fs::read_to_string(known_path()).map_err(|error| format!("{}: {error}", known_path().display()))?;
    let known: BTreeMap<String, u64> = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let Some(before) = known.get(&version) else {
        println!(
            "{each} instructions for a message; no figure is known for {version:?}: write it into benches/instructions.json"
        );
        return Ok(());
    };
    let change = each as f64 / *before as f64 - 1.0;
    println!("{each} instructions for a message; {before} before, {:+.1} %", change * 100.0);
    if change > TOLERANCE {
        return Err(format!(
            "that is more than {:.0} % above what is committed; if it is worth it, write the new figure into benches/instructions.json",
            TOLERANCE * 100.0
        ));
    }
    if change < -TOLERANCE {
        println!("that is less than what is committed; write the new figure into benches/instructions.json");
    }
    Ok(())
}

/// The instructions of one run, all threads together.
fn count(messages: u64) -> Result<u64, String> {
    let ours = program::root().join("target/release").join(super::role::OURS);
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(ours);
    command.args(["chain", &messages.to_string(), BYTES]);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("valgrind: cannot run: {error}"))?;
    if let Some(mut input) = child.stdin.take() {
        writeln!(input, "go").map_err(|error| format!("valgrind: {error}"))?;
    }
    // It prints less than a pipe holds.
    if node::wait_within(&mut child, COUNT_LIMIT).is_none() {
        let _ = child.kill();
        return Err(format!("valgrind: no end within {COUNT_LIMIT:?}"));
    }
    let output = child.wait_with_output().map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let collected = text.lines().find_map(|line| line.split_once("Collected :")).map(|(_, number)| number.trim());
    collected.and_then(|number| number.parse().ok()).ok_or_else(|| format!("valgrind said no number: {text}"))
}

/// What the figure depends on beside our code.
fn version() -> Result<String, String> {
    let rustc = program::output(&["rustc", "--version"])?;
    let rustc: Vec<&str> = rustc.split(' ').take(2).collect();
    let libc = program::output(&["getconf", "GNU_LIBC_VERSION"])?;
    Ok(format!("{}, {libc}", rustc.join(" ")))
}
