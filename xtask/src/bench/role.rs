//! One measured process: it reports when it is ready, begins on command, and prints its measurements.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde::Deserialize;

use crate::node::{send, wait_within};
use crate::program;

/// How long a role may take for its next line.
const PATIENCE: Duration = Duration::from_secs(300);

/// The programs, as cargo names them.
pub const OURS: &str = "bench-ours";
/// The same with a database.
pub const BOOKS: &str = "bench-books";
pub const PLAIN: &str = "bench-plain";

/// What a role measured.
#[derive(Debug, Clone, Deserialize)]
pub struct Measured {
    pub messages: u64,
    pub seconds: f64,
    pub cpu_seconds: f64,
    /// The process's peak memory.
    pub peak_kib: u64,
    pub latency: Option<Latency>,
}

/// In microseconds.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
}

/// A running role. Dropping it ends it.
pub struct Role {
    what: String,
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Role {
    /// Starts a program of the benchmarks.
    pub fn start(program: &str, words: &[&str]) -> Result<Self, String> {
        let path = program::root().join("target/release").join(program);
        let what = format!("{program} {}", words.join(" "));
        let mut command = std::process::Command::new(&path);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("{}: cannot run: {error}", path.display()))?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(format!("{what}: no pipes"));
        };
        let (said, lines) = channel();
        std::thread::spawn(move || {
            // The receiver may be gone.
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| said.send(line))
        });
        Ok(Self { what, child, input, lines })
    }

    /// Starts it and waits until it is ready.
    pub fn ready(program: &str, words: &[&str]) -> Result<Self, String> {
        let role = Self::start(program, words)?;
        role.is_ready().map(|()| role)
    }

    /// Waits until it is ready.
    pub fn is_ready(&self) -> Result<(), String> {
        let word = self.line()?;
        if word == "ready" { Ok(()) } else { Err(format!("{}: said {word:?} instead of ready", self.what)) }
    }

    /// Tells it to begin, or to end.
    pub fn go(&mut self) -> Result<(), String> {
        writeln!(self.input, "go").map_err(|error| format!("{}: {error}", self.what))
    }

    /// Halts it: messages for it wait.
    pub fn halt(&self) -> Result<(), String> {
        self.signal("STOP")
    }

    /// Resumes it.
    pub fn go_on(&self) -> Result<(), String> {
        self.signal("CONT")
    }

    fn signal(&self, signal: &str) -> Result<(), String> {
        let pid = self.child.id();
        if send(signal, pid) { Ok(()) } else { Err(format!("{}: cannot send SIG{signal} to {pid}", self.what)) }
    }

    /// Waits for its measurements.
    pub fn measured(&self) -> Result<Measured, String> {
        let line = self.line()?;
        serde_json::from_str(&line).map_err(|error| format!("{}: {error}: {line:?}", self.what))
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> Result<(), String> {
        match wait_within(&mut self.child, PATIENCE) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("{}: {status}", self.what)),
            None => Err(format!("{}: no end within {PATIENCE:?}", self.what)),
        }
    }

    fn line(&self) -> Result<String, String> {
        self.lines.recv_timeout(PATIENCE).map_err(|error| format!("{}: no word: {error}", self.what))
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            // It may have ended just now.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Starts a role, tells it to begin and waits for its measurements.
pub fn run(program: &str, words: &[&str]) -> Result<Measured, String> {
    let mut role = Role::ready(program, words)?;
    role.go()?;
    let measured = role.measured()?;
    role.ended()?;
    Ok(measured)
}

/// Runs a program that measures nothing.
pub fn done(program: &str, words: &[&str]) -> Result<(), String> {
    Role::start(program, words)?.ended()
}
