//! Signals that end a program. It listens from the very start, because as process 1 of a container a program without a
//! handler never gets SIGTERM.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

/// Signals that follow within this time are one wish. `timeout` and a terminal tell a process and its whole group.
const ONE_WISH: Duration = Duration::from_millis(500);

/// Ctrl-C and SIGTERM.
pub(super) struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
    last: Option<Instant>,
}

impl Signals {
    /// Starts to listen. Needs a runtime.
    pub(super) fn listen() -> Self {
        let [terminate, interrupt] = [SignalKind::terminate(), SignalKind::interrupt()].map(|kind| signal(kind).ok());
        Self { terminate, interrupt, last: None }
    }

    /// The name and number of the next signal, or of the first of several that follow closely. Waits for ever where signals are not available.
    pub(super) async fn next(&mut self) -> (&'static str, u8) {
        async fn one(signal: &mut Option<Signal>) {
            let heard = match signal {
                Some(signal) => signal.recv().await.is_some(),
                None => false,
            };
            if !heard {
                std::future::pending().await
            }
        }
        loop {
            let heard = tokio::select! {
                () = one(&mut self.terminate) => ("SIGTERM", 15),
                () = one(&mut self.interrupt) => ("SIGINT", 2),
            };
            if self.last.is_none_or(|last| last.elapsed() >= ONE_WISH) {
                self.last = Some(Instant::now());
                return heard;
            }
        }
    }
}
