//! The `main` of every service binary. It may be called inside a runtime, as with `#[tokio::main]`.

mod limits;
pub(in crate::operate) mod process;
mod signals;

use std::process::ExitCode;

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::app::builder::App;
use crate::operate::output;

/// Runs a service binary: `run` (the default), `list`, `topology`; see `--help`. Blocks until the process is to end.
/// The exit code is 0 when it ended as requested, 1 when something failed, 2 when the command line is wrong, 141 when
/// the reader of its output is gone.
///
/// It brings its own runtime: write `fn main() -> ExitCode`, without `#[tokio::main]`. Inside a runtime with several
/// threads it runs on a thread of its own and blocks the calling thread. Inside a runtime with a single thread, which
/// it would block, it refuses. There, [`App::start`] starts the app without blocking.
#[must_use]
pub fn main(app: App) -> ExitCode {
    beside(app, process::main)
}

/// Runs the program on a thread where it can have its own runtime.
fn beside(app: App, program: fn(App) -> ExitCode) -> ExitCode {
    let Ok(outer) = Handle::try_current() else { return program(app) };
    let name = app.name.clone();
    if outer.runtime_flavor() == RuntimeFlavor::CurrentThread {
        return output::failed(&name, &[INSIDE.to_owned()]);
    }
    let thread = std::thread::Builder::new().name("postrider-main".into()).spawn(move || program(app));
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(code)) => code,
        Ok(Err(panic)) => std::panic::resume_unwind(panic),
        Err(error) => output::failed(&name, &[format!("no thread for the program: {error}")]),
    }
}

const INSIDE: &str = "postrider::main brings a runtime and would stop the one it was called in; \
    write `fn main() -> ExitCode` without `#[tokio::main]`, or `app.start().await` (App::start) to run the app beside other tasks";

#[cfg(test)]
mod tests {
    use super::*;

    fn program(app: App) -> ExitCode {
        let started = process::on_runtime(async { app.start_as_configured().await.unwrap().stop().await });
        if started.unwrap().failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn shown(code: ExitCode) -> String {
        format!("{code:?}")
    }

    #[test]
    fn a_program_runs_without_a_runtime_around_it() {
        assert_eq!(shown(beside(App::new("inner"), program)), shown(ExitCode::SUCCESS));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_program_runs_inside_a_runtime_with_several_threads() {
        assert_eq!(shown(beside(App::new("inner"), program)), shown(ExitCode::SUCCESS));
    }

    #[tokio::test]
    async fn a_program_that_would_stop_the_runtime_around_it_is_refused() {
        assert_eq!(shown(beside(App::new("inner"), program)), shown(ExitCode::FAILURE));
        assert!(INSIDE.contains("App::start") && !INSIDE.contains('\n'));
    }
}
