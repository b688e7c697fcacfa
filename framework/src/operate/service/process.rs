//! Runs a service binary: command line, configuration, log, signals, exit code.

use std::process::ExitCode;
use std::time::Duration;

use crate::app::builder::App;
use crate::app::check::check;
use crate::app::manifest::{ManifestRow, manifest_in};
use crate::app::read_config;
use crate::app::running::Running;
use crate::message::Secret;
use crate::operate::cli::{Cli, Command, Common, LimitArgs, parse};
use crate::operate::log::start_log;
use crate::operate::output::{failed, line};
use crate::operate::service::limits::{Reached, reached};
use crate::operate::service::signals::Signals;
use crate::operate::topology;

/// How long a process that has not started yet may take to end.
const END_AT_START: Duration = Duration::from_millis(1_800);

/// Runs a service binary on the calling thread; see [`crate::operate::main`].
pub(super) fn main(mut app: App) -> ExitCode {
    let name = app.name.clone();
    let cli: Cli = parse();
    let runs = matches!(cli.command, None | Some(Command::Run { .. }));
    let log = start_log(&cli.common, if runs { "warn,postrider=info,lapin=off" } else { "warn,lapin=off" });
    let problems =
        [log.err().into_iter().collect(), configure(&mut app, &cli.common).err().unwrap_or_default()].concat();
    if !problems.is_empty() {
        return failed(&name, &problems);
    }
    match cli.command {
        None => run(app, None, cli.limits),
        Some(Command::Run { service, limits }) => run(app, service.as_deref(), limits),
        Some(Command::List { json }) => list(&app, json),
        Some(Command::Topology(command)) => match on_runtime(or_signal(topology::run(&app, &command))) {
            Ok(Ok(Ok(code))) => ExitCode::from(code),
            Ok(Ok(Err(problem))) | Err(problem) => failed(&name, &[problem]),
            Ok(Err(code)) => code,
        },
    }
}

pub(in crate::operate) fn on_runtime<F: Future>(future: F) -> Result<F::Output, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map(|runtime| runtime.block_on(future)).map_err(|error| format!("no runtime: {error}"))
}

/// The command's result, or the exit code of a program that a signal ended, as a shell reports it.
pub(in crate::operate) async fn or_signal<T>(command: impl Future<Output = T>) -> Result<T, ExitCode> {
    let mut signals = Signals::listen();
    tokio::select! {
        result = command => Ok(result),
        (_, number) = signals.next() => Err(ExitCode::from(128 + number)),
    }
}

fn configure(app: &mut App, common: &Common) -> Result<(), Vec<String>> {
    let environment = read_config::environment();
    let file = common.config.clone().or_else(|| app.config_file.clone());
    read_config::read(&mut app.config, file.as_deref(), &environment)?;
    if let Some(broker) = &common.broker {
        app.config.broker = Some(Secret::new(broker.clone()));
        app.config.origins.insert("broker", "--broker".into());
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
        let others: Vec<&str> = services.into_iter().filter(|other| *other != service).collect();
        app.config.services.retain(|name, _| !others.contains(&name.as_str()));
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
    let mut signals = Signals::listen();
    let (name, limits, give_up) = (app.name.clone(), app.config.run, app.give_up.clone());
    let starting = app.start_as_configured();
    tokio::pin!(starting);
    let running = tokio::select! {
        running = &mut starting => running.map_err(|error| error.problems)?,
        (signal, _) = signals.next() => {
            tracing::info!(signal, "stopping before it has started");
            give_up.cancel();
            let ended = tokio::select! {
                ended = tokio::time::timeout(END_AT_START, starting) => ended,
                (signal, _) = signals.next() => return Err(by_second(&name, signal)),
            };
            match ended {
                Ok(Ok(running)) => return stopped(&name, &running, &mut signals, ExitCode::SUCCESS).await,
                Ok(Err(_)) | Err(_) => return Ok(ExitCode::SUCCESS),
            }
        }
    };
    let mut code = ExitCode::SUCCESS;
    tokio::select! {
        (signal, _) = signals.next() => tracing::info!(signal, "stopping; a second signal ends the process at once"),
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
    stopped(&name, &running, &mut signals, code).await
}

async fn stopped(
    name: &str,
    running: &Running,
    signals: &mut Signals,
    code: ExitCode,
) -> Result<ExitCode, Vec<String>> {
    tokio::select! {
        _ = running.stop() => Ok(code),
        (signal, _) = signals.next() => Err(by_second(name, signal)),
    }
}

fn by_second(name: &str, signal: &str) -> Vec<String> {
    vec![format!("{name} was ended by a second {signal}; what was being handled is delivered again")]
}

fn list(app: &App, json: bool) -> ExitCode {
    let rows = manifest_in(app, &app.config);
    if json {
        return match serde_json::to_string_pretty(&rows) {
            Ok(text) => {
                line(text);
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
    for row in &lines {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        line(cells.join("  ").trim_end());
    }
}
