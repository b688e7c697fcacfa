//! Writes to the standard output and error for all programs. Nothing here panics: a pipe's reader may close it at any
//! time, and a disk may be full.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use crate::operate::printable;

/// The exit code of a program whose output nobody reads: 128 + SIGPIPE, as for `cat` and `grep`.
const NOBODY_READS: i32 = 141;

/// Prints a line on standard output. If the reader is gone, the program ends silently with exit code 141.
pub(super) fn line(text: impl Display) {
    write(format_args!("{text}\n"));
}

/// Writes raw bytes to standard output; otherwise like [`line`].
pub(super) fn bytes(bytes: &[u8]) {
    let mut output = std::io::stdout().lock();
    written(output.write_all(bytes).and_then(|()| output.flush()));
}

fn write(text: std::fmt::Arguments<'_>) {
    let mut output = std::io::stdout().lock();
    written(output.write_fmt(text).and_then(|()| output.flush()));
}

/// Ends the program when the output cannot be written.
fn written(result: std::io::Result<()>) {
    let Err(error) = result else { return };
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(NOBODY_READS);
    }
    problem(format_args!("the standard output cannot be written: {error}"));
    std::process::exit(1);
}

/// Prints a line to the standard error. Write errors are ignored.
pub(super) fn problem(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints problems to the standard error and returns exit code 1.
pub(super) fn failed(name: &str, problems: &[String]) -> ExitCode {
    problems.iter().for_each(|text| problem(format_args!("{name}: {}", printable::lines(text))));
    ExitCode::FAILURE
}

/// Prints a line from a service. Unlike `println!` it does not panic when the reader is gone: the line is dropped and
/// the service goes on.
pub fn print_line(text: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
