//! The project's own commands: `cargo xtask test` runs every check of the repository.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod apt;
mod broker;
mod container;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/src/node.rs"]
mod node;
mod program;
mod report;
mod suites;

/// Exit code for a command line that cannot be understood; clap uses the same.
const USAGE: u8 = 2;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Commands for working on this repository")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Runs the test suites, with a RabbitMQ that it finds or starts itself (AMQP_URL names one to use)
    Test {
        /// Run only this suite; may be repeated
        #[arg(long, value_name = "NAME")]
        only: Vec<String>,
        /// Print the suites instead of running them
        #[arg(long)]
        list: bool,
    },
}

fn main() -> ExitCode {
    let Task::Test { only, list } = Arguments::parse().command;
    let chosen = match suites::choose(&only) {
        Ok(chosen) => chosen,
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::from(USAGE);
        }
    };
    if list {
        report::print_list(&chosen);
        return ExitCode::SUCCESS;
    }
    if report::run_all(&chosen) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
