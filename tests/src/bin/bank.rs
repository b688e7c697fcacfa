//! The bank as a process of its own, for the tests in which it dies.

use std::process::ExitCode;

fn main() -> ExitCode {
    postrider::main(postrider_tests::bank::bank())
}
