//! A consumer in a process of its own, which prints what it handles.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use postrider_tests::ledger::Ledger;
use postrider_tests::node::send;
use postrider_tests::strangers::STRANGER;

use crate::runs::Runs;

/// How long it may take to end after a signal.
const END_LIMIT: Duration = Duration::from_secs(60);

/// A running consumer. Dropping it ends it.
pub struct Consumer {
    child: Child,
    /// Reads its output to the end.
    reader: Option<JoinHandle<()>>,
}

/// The job of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It handles the load.
    Worker,
    /// It works off a backlog in order.
    Keeper,
}

impl Role {
    fn option(self) -> &'static str {
        match self {
            Self::Worker => "--consume",
            Self::Keeper => "--keep",
        }
    }
}

/// The books about consumers. Clones are the same books.
#[derive(Clone, Default)]
pub struct Books {
    /// Published and handled messages.
    pub ledger: Ledger,
    /// Runs, and how often.
    pub runs: Runs,
    /// How many messages of the load were handled.
    pub handled: Arc<AtomicU64>,
    /// How many messages keepers handled.
    pub kept: Arc<AtomicU64>,
}

impl Books {
    /// How many messages keepers have handled.
    pub fn handled_by_keepers(&self) -> u64 {
        self.kept.load(Ordering::SeqCst)
    }

    fn read(&self, process: u32, role: Role, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["began", id, attempt] => self.runs.began(process, id, attempt.parse().expect("an attempt is a number")),
            ["ended", id] => self.runs.ended(process, id),
            _ => {
                assert!(!line.starts_with(STRANGER), "{line} was handled, which nobody can decode");
                self.ledger.handles(line);
                let count = if role == Role::Worker { &self.handled } else { &self.kept };
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
}

impl Consumer {
    /// Starts it at this broker; its handled messages and each run go into the books.
    pub fn start(url: &str, role: Role, books: &Books) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        command.args([role.option(), url, "--tell-runs"]).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a consumer starts");
        let out = child.stdout.take().expect("it is piped");
        let (books, process) = (books.clone(), child.id());
        let reader = std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(Result::ok).for_each(|line| books.read(process, role, &line));
            books.runs.gone(process);
        });
        Self { child, reader: Some(reader) }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it with a signal and waits until it is gone; returns its process id.
    pub fn end(&mut self, signal: &str) -> Result<u32, String> {
        let pid = self.child.id();
        if !send(signal, pid) {
            return Err(format!("no consumer {pid} to send SIG{signal}"));
        }
        let begin = Instant::now();
        while self.child.try_wait().map_err(|error| error.to_string())?.is_none() {
            if begin.elapsed() > END_LIMIT {
                return Err(format!("consumer {pid} is not gone after SIG{signal}"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // Its whole output is in the books.
        let read = self.reader.take().map_or(Ok(()), JoinHandle::join);
        read.map_err(|_| format!("consumer {pid} said what cannot be"))?;
        Ok(pid)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
