//! Signals that end a program. It listens from the very start, because as process 1 of a container a program without a
//! handler never gets SIGTERM.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C and SIGTERM.
pub(super) struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
}

impl Signals {
    /// Starts to listen. Needs a runtime.
    pub(super) fn listen() -> Self {
        Self { terminate: signal(SignalKind::terminate()).ok(), interrupt: signal(SignalKind::interrupt()).ok() }
    }

    /// The next signal's name and number. Waits for ever where signals are not available.
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
        tokio::select! {
            () = one(&mut self.terminate) => ("SIGTERM", 15),
            () = one(&mut self.interrupt) => ("SIGINT", 2),
        }
    }
}
