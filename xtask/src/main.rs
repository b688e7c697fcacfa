//! The project's own commands: `cargo xtask test` runs every check of the repository.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

mod apt;
mod bench;
mod broker;
mod container;
mod debian;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/src/node.rs"]
mod node;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/src/postgres.rs"]
mod postgres;
mod program;
mod report;
mod suites;

/// Exit code for an invalid command line; clap uses the same.
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
        /// Run them on this RabbitMQ, for which a Debian of its own is put below target/: 4.0
        #[arg(long, value_name = "VERSION")]
        broker: Option<String>,
        /// Run the long ones too: a cluster that loses nodes, faults at random, and the suites on RabbitMQ 4.0
        #[arg(long)]
        all: bool,
    },
    /// All faults at random under load on a RabbitMQ of its own; the last line is the balance
    Chaos {
        /// For how long
        #[arg(long, value_name = "N", default_value_t = 1.0)]
        minutes: f64,
        /// What decides about the order of the faults
        #[arg(long, value_name = "N", default_value_t = 7)]
        seed: u64,
        /// The delivery company under faults instead, with its books in this database
        #[arg(long, value_name = "DATABASE", value_parser = ["sqlite", "postgres"])]
        store: Option<String>,
    },
    /// Postrider and the bare client at the same work, side by side, on a RabbitMQ of its own
    Bench {
        /// Measure only this; may be repeated
        #[arg(long, value_name = "NAME", value_parser = bench::GROUPS)]
        only: Vec<String>,
        /// For how long each side works in each of the five rounds, roughly
        #[arg(long, value_name = "N", default_value_t = 5.0)]
        seconds: f64,
        /// Write what was measured to this file too
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Count the instructions of a message instead, and compare them with those that are committed
        #[arg(long, conflicts_with_all = ["only", "seconds", "json"])]
        instructions: bool,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Task::Bench { instructions: true, .. } => ended(bench::instructions::run()),
        Task::Bench { only, seconds, json, .. } => ended(bench::run(&only, seconds, json.as_deref())),
        Task::Test { only, list, broker, all } => test(&only, list, broker.as_deref(), all),
        Task::Chaos { minutes, seed, store } => chaos(minutes, seed, store.as_deref()),
    }
}

fn ended(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the chaos program. Release code, so that it makes enough load.
fn chaos(minutes: f64, seed: u64, store: Option<&str>) -> ExitCode {
    let installed = broker::installed()
        .and_then(|()| if store == Some("postgres") { report::postgres_installed() } else { Ok(()) });
    if let Err(reason) = installed {
        eprintln!("{reason}");
        return ExitCode::FAILURE;
    }
    if store.is_some() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--release", "-p", "orders", "-p", "invoice", "-p", "payment"]);
        if !build.status().is_ok_and(|status| status.success()) {
            eprintln!("the services cannot be built");
            return ExitCode::FAILURE;
        }
    }
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--release", "-p", "postrider-tests", "--bin", "chaos", "--"]);
    cargo.args(["--minutes", &minutes.to_string(), "--seed", &seed.to_string()]);
    cargo.args(store.map(|store| ["--store", store]).into_iter().flatten());
    match cargo.status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo cannot run: {error}");
            ExitCode::FAILURE
        }
    }
}

fn test(only: &[String], list: bool, broker: Option<&str>, all: bool) -> ExitCode {
    // On another RabbitMQ version run only the suites that need a broker.
    let with_broker: Vec<String> = suites::with_broker();
    let only = if broker.is_some() && only.is_empty() { &with_broker } else { only };
    // The list has them all.
    let chosen = match suites::choose(only, all || list) {
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
    let environment = match broker.map(debian::with_rabbitmq).transpose() {
        Ok(root) => root.map(|root| (node::ROOT_VARIABLE, root)),
        Err(reason) => {
            eprintln!("{reason}");
            return ExitCode::FAILURE;
        }
    };
    if let Some((variable, root)) = environment {
        return again(&[], &[(variable, root.as_os_str())], only);
    }
    let mut fine = report::run_all(&chosen);
    if all {
        fine &= again(&["test", "--broker", "4.0"], &[], &[]) == ExitCode::SUCCESS;
        fine &= chaos(1.0, 7, None) == ExitCode::SUCCESS;
        fine &= chaos(1.0, 7, Some("sqlite")) == ExitCode::SUCCESS;
        fine &= chaos(1.0, 7, Some("postgres")) == ExitCode::SUCCESS;
    }
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs this program again: with `words`, or the tests named in `only` with further variables.
fn again(words: &[&str], environment: &[(&str, &OsStr)], only: &[String]) -> ExitCode {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => {
            eprintln!("this program does not know its own path: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut command = Command::new(program);
    if words.is_empty() {
        command.arg("test").args(only.iter().flat_map(|name| ["--only", name]));
    }
    match command.args(words).envs(environment.iter().copied()).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
