//! The life of a service binary: command line, configuration, log, signals, exit code.

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::app::builder::App;
use crate::app::check::check;
use crate::app::cli::{Cli, Command, Common, LimitArgs};
use crate::app::limits::{Reached, reached};
use crate::app::manifest::{ManifestRow, manifest_in};
use crate::app::{printable, read_config, topology_command};
use crate::message::Secret;

/// Runs a service binary on the calling thread, as [`crate::app::main`] says.
pub(super) fn main(mut app: App) -> ExitCode {
    let name = app.name.clone();
    let cli = Cli::parse();
    start_log(&cli.common, "warn,postrider=info,lapin=off");
    if let Err(problems) = configure(&mut app, &cli.common) {
        return failed(&name, &problems);
    }
    match cli.command {
        None => run(app, None, cli.limits),
        Some(Command::Run { service, limits }) => run(app, service.as_deref(), limits),
        Some(Command::List { json }) => list(&app, json),
        Some(Command::Topology(command)) => match on_runtime(topology_command::run(&app, &command)) {
            Ok(Ok(code)) => ExitCode::from(code),
            Ok(Err(problem)) | Err(problem) => failed(&name, &[problem]),
        },
    }
}

/// Prints problems to the standard error and gives exit code 1.
pub(super) fn failed(name: &str, problems: &[String]) -> ExitCode {
    for problem in problems {
        eprintln!("{name}: {}", printable::lines(problem));
    }
    ExitCode::FAILURE
}

pub(super) fn on_runtime<F: Future>(future: F) -> Result<F::Output, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map(|runtime| runtime.block_on(future)).map_err(|error| format!("no runtime: {error}"))
}

/// Starts the log on the standard error. What the broker's client logs by itself is in our own errors already.
pub(super) fn start_log(common: &Common, quiet: &str) {
    let level = match common.verbose {
        0 => quiet,
        1 => "info,postrider=debug,lapin=off",
        2 => "info,postrider=trace,lapin=off",
        // The client logs whole messages, payloads and tokens included.
        _ => "trace,lapin=off",
    };
    let filter = EnvFilter::try_from_env("POSTRIDER_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // A program that has a log already keeps it.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let _ = log.fmt_fields(printable::SafeFields).try_init();
}

fn configure(app: &mut App, common: &Common) -> Result<(), Vec<String>> {
    let environment = read_config::environment();
    let file = common.config.clone().or_else(|| app.config_file.clone());
    read_config::read(&mut app.config, file.as_deref(), &environment)?;
    if let Some(broker) = &common.broker {
        app.config.broker = Some(Secret::new(broker.clone()));
    }
    Ok(())
}

fn run(mut app: App, service: Option<&str>, limits: LimitArgs) -> ExitCode {
    let name = app.name.clone();
    limits.apply(&mut app.config.run);
    if let Some(service) = service {
        let services = app.services();
        if !services.contains(&service) {
            return failed(&name, &[format!("there is no service {service:?} here; this binary has {services:?}")]);
        }
        app.entries.retain(|entry| entry.attributes.service == service);
        let names: Vec<String> = app.entries.iter().map(crate::app::entry::Entry::name).collect();
        app.config.actors.retain(|actor, _| names.contains(actor));
    }
    match on_runtime(until_stopped(app)) {
        Ok(Ok(code)) => code,
        Ok(Err(problems)) => failed(&name, &problems),
        Err(problem) => failed(&name, &[problem]),
    }
}

async fn until_stopped(app: App) -> Result<ExitCode, Vec<String>> {
    let (name, limits) = (app.name.clone(), app.config.run);
    let running = app.start_as_configured().await.map_err(|error| error.problems)?;
    let mut code = ExitCode::SUCCESS;
    tokio::select! {
        signal = signal() => tracing::info!(signal, "stopping; a second signal ends the process at once"),
        reached = reached(&running, limits) => match reached {
            Reached::Limit(limit) => tracing::info!(limit, "stopping"),
            Reached::Failure => {
                tracing::error!("a message failed; stopping");
                code = ExitCode::FAILURE;
            }
        },
        report = running.ended() => if let Some(failure) = report.failure {
            return Err(vec![failure]);
        },
    }
    tokio::select! {
        _ = running.stop() => {}
        signal = signal() => return Err(vec![format!("{name} was ended by a second {signal}; what was being handled is delivered again")]),
    }
    Ok(code)
}

/// Waits for Ctrl-C or SIGTERM; for ever where signals cannot be heard.
async fn signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

fn list(app: &App, json: bool) -> ExitCode {
    let rows = manifest_in(app, &app.config);
    if json {
        return match serde_json::to_string_pretty(&rows) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => failed(&app.name, &[error.to_string()]),
        };
    }
    print_table(&rows);
    let problems = check(app, &app.config);
    if problems.is_empty() { ExitCode::SUCCESS } else { failed(&app.name, &problems) }
}

fn print_table(rows: &[ManifestRow]) {
    let head = ["KEY", "KIND", "QUEUE", "GUARANTEE", "MODE", "METHOD", "PLACE"].map(str::to_owned);
    let lines = rows.iter().map(|row| {
        let place = format!("{}:{}", row.file, row.line);
        let method = format!("{}::{}", row.actor, row.method);
        [
            row.key.clone(),
            row.kind.clone(),
            row.queue.clone(),
            row.guarantee.to_string(),
            row.mode.clone(),
            method,
            place,
        ]
    });
    let lines: Vec<[String; 7]> = std::iter::once(head).chain(lines).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    for line in &lines {
        let cells: Vec<String> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        println!("{}", cells.join("  ").trim_end());
    }
}
