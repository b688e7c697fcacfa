//! A consumer of its own process, which prints what it handles.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use postrider_tests::ledger::Ledger;
use postrider_tests::node::send;
use postrider_tests::strangers::STRANGER;

/// How long it may take to be gone after a signal.
const END_LIMIT: Duration = Duration::from_secs(60);

/// A running consumer. Dropping it ends it.
pub struct Consumer {
    child: Child,
}

impl Consumer {
    /// Starts it at this broker; what it handles is counted and written down.
    pub fn start(url: &str, ledger: &Ledger, handled: &Arc<AtomicU64>) -> Self {
        let program = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(program);
        let mut child = command.args(["--consume", url]).stdout(Stdio::piped()).spawn().expect("a consumer starts");
        let out = child.stdout.take().expect("it is piped");
        let (ledger, handled) = (ledger.clone(), Arc::clone(handled));
        std::thread::spawn(move || {
            for id in BufReader::new(out).lines().map_while(Result::ok) {
                assert!(!id.starts_with(STRANGER), "{id} was handled, which nobody can decode");
                ledger.handles(&id);
                handled.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { child }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it with a signal and waits until it is gone; its process id.
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
        Ok(pid)
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // Gone already, or gone now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
