//! What ends a program from outside. They are heard from the very start: as process 1 of a container a program that has not
//! asked for SIGTERM never gets it.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Ctrl-C and SIGTERM.
pub(super) struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
}

impl Signals {
    /// Listens from now on. Needs a runtime.
    pub(super) fn listen() -> Self {
        Self { terminate: signal(SignalKind::terminate()).ok(), interrupt: signal(SignalKind::interrupt()).ok() }
    }

    /// The next one: its name and number; for ever where signals cannot be heard.
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
