//! Programs of the workspace as processes. `cargo xtask test` builds them beforehand.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use postrider::MessageId;

use crate::world::{World, amqp_url};

/// The samples that write a file beside themselves.
const KEEP_BOOKS: [&str; 4] = ["orders", "invoice", "payment", "delivery"];
/// How long a program may run that ends by itself.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A program of the workspace, without this process's settings.
///
/// # Panics
/// When it is not built; the text says how.
#[must_use]
pub fn program(name: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().expect("this program has a path");
    path.pop();
    path.pop();
    let program = path.join(name);
    assert!(program.exists(), "{} is not built: run `cargo build --workspace --bins`", program.display());
    let mut command = Command::new(program);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("POSTRIDER_")) {
        command.env_remove(name);
    }
    if KEEP_BOOKS.contains(&name) {
        command.current_dir(folder());
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A new folder for what a program writes.
fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("postrider-program-{}", MessageId::new()));
    std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
    folder
}

/// Runs the program to its end, within a time limit.
///
/// # Panics
/// As [`finish`].
pub fn run(command: &mut Command) -> Output {
    finish(command.spawn().expect("it starts"))
}

/// Waits for the end, within a time limit.
///
/// # Panics
/// When it does not end in time; the text has what it printed.
#[must_use]
pub fn finish(mut child: Child) -> Output {
    let start = Instant::now();
    while child.try_wait().expect("it is ours").is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().expect("it is ours");
            let output = child.wait_with_output().expect("it is ours");
            panic!("still running after {PATIENCE:?}:\n{}\n{}", out(&output), err(&output));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().expect("it is ours")
}

/// Its standard output.
#[must_use]
pub fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Its standard error.
#[must_use]
pub fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The operator's program in a world on the shared RabbitMQ.
#[must_use]
pub fn operator_command(world: &World, arguments: &[&str]) -> Command {
    let mut command = program("postrider");
    command.env("POSTRIDER_BROKER", world.url().map_or_else(amqp_url, str::to_owned));
    command.env("POSTRIDER_NAMESPACE", world.names.namespace()).args(arguments);
    command
}

/// Runs the operator's program: whether it succeeded, and what it printed.
///
/// # Panics
/// When it does not end in time.
pub async fn operator(world: &World, arguments: &[&str]) -> (bool, String, String) {
    let mut command = operator_command(world, arguments);
    let output = tokio::task::spawn_blocking(move || run(&mut command)).await.expect("it ends");
    (output.status.success(), out(&output), err(&output))
}
