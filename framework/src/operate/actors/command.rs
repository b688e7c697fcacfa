//! `postrider actor list|pause|resume|restart`.

use std::time::Duration;

use clap::{Args, Subcommand};

use crate::app::ProcessReport;
use crate::bus::Bus;
use crate::operate::actors::Actors;
use crate::operate::cli::duration;
use crate::operate::output;
use crate::operate::printable::{json_line, one_line};

#[derive(Subcommand)]
pub(in crate::operate) enum ActorCommand {
    /// Print the running processes of a service and how their lanes stand
    List {
        /// The service
        service: String,
        #[command(flatten)]
        whom: Whom,
        /// As JSON, one process a line
        #[arg(long)]
        json: bool,
    },
    /// Let an actor take nothing more from its queues; what runs finishes
    Pause {
        /// The actor: a service, or service.queue
        actor: String,
        #[command(flatten)]
        whom: Whom,
    },
    /// Let an actor go on that was paused or that has stopped at a message
    Resume {
        /// The actor: a service, or service.queue
        actor: String,
        #[command(flatten)]
        whom: Whom,
    },
    /// Open the consumers of an actor again
    Restart {
        /// The actor: a service, or service.queue
        actor: String,
        #[command(flatten)]
        whom: Whom,
    },
}

#[derive(Args)]
pub(in crate::operate) struct Whom {
    /// This instance alone
    #[arg(long)]
    instance: Option<String>,
    /// How long to wait for answers
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2s")]
    wait: Duration,
}

impl Whom {
    fn actors(self, bus: &Bus) -> Actors {
        let actors = Actors::new(bus).waiting(self.wait);
        match self.instance {
            Some(instance) => actors.of_instance(instance),
            None => actors,
        }
    }
}

/// Runs a command.
///
/// # Errors
/// One sentence, when no process answers or one could not carry out the order.
pub(in crate::operate) async fn obey(command: ActorCommand, bus: &Bus) -> Result<(), String> {
    let (answers, done) = match command {
        ActorCommand::List { service, whom, json } => {
            let mut reports = whom.actors(bus).about(&service).await.map_err(|error| error.to_string())?;
            let queue = bus.identity.names.queue(&service, None);
            for report in &mut reports {
                let others = of_service(report, &queue);
                if json { print_json(report) } else { print(report, &others) }
            }
            return Ok(());
        }
        ActorCommand::Pause { actor, whom } => (whom.actors(bus).pause(&actor).await, "paused"),
        ActorCommand::Resume { actor, whom } => (whom.actors(bus).resume(&actor).await, "resumed"),
        ActorCommand::Restart { actor, whom } => (whom.actors(bus).restart(&actor).await, "restarted"),
    };
    let mut problems = Vec::new();
    for report in answers.map_err(|error| error.to_string())? {
        let process = format!("{}@{}", report.service, report.instance);
        match report.problem {
            Some(problem) => problems.push(format!("{process}: {problem}")),
            None => output::line(format_args!("{}  {done}", one_line(&process))),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

/// Keeps only the lanes of one service, because a process may run several. Returns the queues of the other lanes that
/// do not consume.
fn of_service(report: &mut ProcessReport, queue: &str) -> Vec<String> {
    let is_own = |name: &str| name.strip_prefix(queue).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let (own, others): (Vec<_>, Vec<_>) =
        std::mem::take(&mut report.lanes).into_iter().partition(|lane| is_own(&lane.queue));
    report.lanes = own;
    others.into_iter().filter(|lane| !lane.consuming).map(|lane| lane.queue).collect()
}

fn print_json(report: &ProcessReport) {
    output::line(json_line(&serde_json::json!(report)));
}

fn print(report: &ProcessReport, others: &[String]) {
    let ready = if report.ready { "ready" } else { "not ready" };
    let process = format!("{}@{}  {ready}  version {}", report.service, report.instance, report.version);
    output::line(one_line(&process));
    for lane in &report.lanes {
        let state = if lane.consuming { "consuming" } else { "not consuming" };
        let problem = lane.problem.as_deref().unwrap_or(state);
        output::line(format_args!("    {:<40} {}", one_line(&lane.queue), one_line(problem)));
    }
    for queue in others {
        let queue = one_line(queue);
        output::line(format_args!("    {queue:<40} not consuming; it is another service's, in the same process"));
    }
}
