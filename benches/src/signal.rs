//! Lines between a role and the measuring program, over standard input and output: `ready`, `go`, and the result.

use std::io::{BufRead, Write};

use crate::Failed;
use crate::measured::Measured;

/// Reports that everything is open.
///
/// # Errors
/// When standard output is closed.
pub fn ready() -> Result<(), Failed> {
    say("ready")
}

/// Reports that everything is open, and waits for the word to begin.
///
/// # Errors
/// When standard output is closed, or standard input ends.
pub async fn ready_and_wait() -> Result<(), Failed> {
    ready()?;
    wait().await
}

/// Waits for the next line.
///
/// # Errors
/// When standard input ends.
pub async fn wait() -> Result<(), Failed> {
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|bytes| bytes > 0)
    });
    if read.await?? { Ok(()) } else { Err("whoever measures has gone".into()) }
}

/// Prints the measurements.
///
/// # Errors
/// When standard output is closed.
pub fn done(measured: &Measured) -> Result<(), Failed> {
    say(&serde_json::to_string(measured)?)
}

fn say(line: &str) -> Result<(), Failed> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
