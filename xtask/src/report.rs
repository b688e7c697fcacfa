//! Runs the chosen suites and reports the results.

use std::{
    env,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    apt,
    broker::{self, Broker, URL_VARIABLE},
    postgres::{self, Postgres},
    program::{command, run, succeeds},
    suites::{Needs, Suite},
};

/// How long one command line of a suite may take; a test that hangs must not stop all others.
const LINE_LIMIT: Duration = Duration::from_secs(3600);
/// How long the installation of `cargo-deny` may take: it is built from source.
const INSTALL_LIMIT: Duration = Duration::from_secs(3600);
/// Names the Python that runs the tests' scripts.
const PYTHON_VARIABLE: &str = "PYTHON_WITH_PIKA";

/// What the suites share.
#[derive(Default)]
struct Session {
    /// Found when the first suite needs it. A failure is not tried again.
    broker: Option<Result<Broker, String>>,
    /// The same for PostgreSQL.
    postgres: Option<Result<Postgres, String>>,
}

/// Prints every suite with its command lines.
pub fn print_list(suites: &[&Suite]) {
    for suite in suites {
        let when = if suite.only_with_all { " (only with --all, or named)" } else { "" };
        println!("{:<13}{}{when}", suite.name, suite.about);
        for line in suite.lines() {
            println!("{:<13}  {line}", "");
        }
    }
}

/// Runs the suites, all of them even if one fails, and prints a table. Says whether all passed.
pub fn run_all(suites: &[&Suite]) -> bool {
    let mut session = Session::default();
    let mut results = Vec::new();
    for suite in suites {
        println!("\n=== {}: {}", suite.name, suite.about);
        let begin = Instant::now();
        let result = session.run(suite);
        if let Err(reason) = &result {
            println!("{}: {reason}", suite.name);
        }
        results.push((suite.name, result.is_ok(), begin.elapsed()));
    }
    // Ends RabbitMQ before the summary, so that nothing is printed after that.
    drop(session);
    println!();
    for (name, passed, duration) in &results {
        println!("{name:<13}{:<8}{:>8.1} s", if *passed { "ok" } else { "FAILED" }, duration.as_secs_f64());
    }
    let failed = results.iter().filter(|(_, passed, _)| !passed).count();
    println!("{} passed, {failed} failed", results.len() - failed);
    failed == 0
}

impl Session {
    fn run(&mut self, suite: &Suite) -> Result<(), String> {
        let mut before: Vec<&str> = Vec::new();
        let mut variables: Vec<(&str, String)> = Vec::new();
        match suite.needs {
            Needs::Nothing => {}
            Needs::CargoDeny => install_cargo_deny()?,
            Needs::OwnNodes => broker::installed()?,
            Needs::Broker => variables.push((URL_VARIABLE, self.broker_url()?)),
            Needs::BrokerAndDatabase => {
                variables.push((URL_VARIABLE, self.broker_url()?));
                // Without a PostgreSQL its tests fail and say how to get one; those of SQLite run.
                variables.extend(self.postgres_address().map(|address| (postgres::ADDRESS_VARIABLE, address)));
                // The same for those behind a pooler.
                if !succeeds(&["sh", "-c", "command -v pgbouncer || test -x /usr/sbin/pgbouncer"]) && apt::usable() {
                    let installed = apt::install("pgbouncer");
                    installed.unwrap_or_else(|reason| println!("{reason}"));
                }
            }
            Needs::BrokerAndPython => {
                variables.push((URL_VARIABLE, self.broker_url()?));
                variables.extend(python_with_pika().map(|python| (PYTHON_VARIABLE, python)));
            }
            Needs::Compose => before = compose()?,
        }
        for line in suite.runs {
            let words: Vec<&str> = before.iter().copied().chain(line.split(' ')).collect();
            let mut command: Command = command(&words);
            command.envs(suite.environment.iter().copied()).envs(variables.iter().map(|(name, value)| (name, value)));
            run(&mut command, LINE_LIMIT)?;
        }
        Ok(())
    }

    /// The address of a PostgreSQL: the one that the environment names, or one of our own.
    fn postgres_address(&mut self) -> Option<String> {
        if let Some(address) = env::var(postgres::ADDRESS_VARIABLE).ok().filter(|address| !address.is_empty()) {
            return Some(address);
        }
        match self.postgres.get_or_insert_with(start_postgres) {
            Ok(postgres) => Some(postgres.address("postgres")),
            Err(reason) => {
                println!("{reason}");
                None
            }
        }
    }

    fn broker_url(&mut self) -> Result<String, String> {
        match self.broker.get_or_insert_with(Broker::find) {
            Ok(broker) => Ok(broker.url()),
            Err(reason) => Err(reason.clone()),
        }
    }
}

/// Starts the PostgreSQL of the tests, installing it where that is possible.
pub fn start_postgres() -> Result<Postgres, String> {
    postgres_installed()?;
    Postgres::start()
}

/// Makes sure that a PostgreSQL is installed, to start servers of it.
pub fn postgres_installed() -> Result<(), String> {
    if postgres::programs().is_none() && apt::usable() {
        apt::install("postgresql")?;
    }
    match postgres::programs() {
        Some(_) => Ok(()),
        None => Err("no PostgreSQL: install it, or run this as root on Debian".into()),
    }
}

fn install_cargo_deny() -> Result<(), String> {
    if succeeds(&["cargo", "deny", "--version"]) {
        return Ok(());
    }
    println!("installing cargo-deny");
    run(&mut command(&["cargo", "install", "cargo-deny", "--locked"]), INSTALL_LIMIT)
}

/// A Python that has pika. `None` if there is none and none can be installed; the test then says what is missing.
fn python_with_pika() -> Option<String> {
    let search = || {
        // Debian's packages are for Debian's own Python, which need not be the first in PATH.
        let candidates = [env::var(PYTHON_VARIABLE).unwrap_or_default(), "python3".into(), "/usr/bin/python3".into()];
        candidates.into_iter().find(|python| !python.is_empty() && succeeds(&[python, "-c", "import pika"]))
    };
    search().or_else(|| {
        if !apt::usable() {
            return None;
        }
        if let Err(error) = apt::install("python3-pika") {
            println!("{error}");
        }
        search()
    })
}

/// The words that run compose.
fn compose() -> Result<Vec<&'static str>, String> {
    let search = || {
        [vec!["docker-compose"], vec!["docker", "compose"]]
            .into_iter()
            .find(|words| succeeds(&[words.as_slice(), &["version"]].concat()))
    };
    if let Some(words) = search() {
        return Ok(words);
    }
    let advice = "no docker-compose: install it, or docker with its compose plugin, or run this as root on Debian";
    if !apt::usable() {
        return Err(advice.into());
    }
    apt::install("docker-compose")?;
    search().ok_or_else(|| advice.into())
}
