//! The one place through which programs write to the standard output and error. Nothing here panics: the reader of a pipe
//! may be gone at any time, and a disk may be full.

use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use crate::operate::printable;

/// What a shell shows for a program that ended because nobody read its output: 128 + SIGPIPE. `cat` and `grep` end so too.
const NOBODY_READS: i32 = 141;

/// Prints a line on standard output. If nobody reads it any more, the program ends without a word, with exit code 141.
pub(super) fn line(text: impl Display) {
    write(format_args!("{text}\n"));
}

/// Writes bytes as they are on standard output; otherwise like [`line`].
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

/// Prints a line to the standard error; what cannot be written is left out.
pub(super) fn problem(text: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints problems to the standard error and gives exit code 1.
pub(super) fn failed(name: &str, problems: &[String]) -> ExitCode {
    problems.iter().for_each(|text| problem(format_args!("{name}: {}", printable::lines(text))));
    ExitCode::FAILURE
}

/// Prints a line from a service. Unlike `println!` it does not panic when nobody reads the output any more: the line is
/// left out, and the service goes on.
pub fn print_line(text: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
