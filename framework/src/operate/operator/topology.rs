//! `postrider topology migrate`.

use clap::{Subcommand, ValueEnum};
use postrider_grammar::{check_queue, check_service};

use crate::app::config::Config;
use crate::broker::{Names, Queue, due_queue};
use crate::bus::Bus;
use crate::handler::Guarantee;
use crate::inbound::{durable_queue, query_queue};
use crate::operate::migrate::Migration;
use crate::operate::output;

#[derive(Subcommand)]
pub(super) enum TopologyCommand {
    /// Give a queue other arguments; its messages are kept. Its service must be stopped
    Migrate {
        /// The queue, such as postrider.invoice
        queue: String,
        /// What its actor promises now: at_least_once, or at_most_once
        #[arg(long, value_enum, default_value = "at_least_once")]
        guarantee: Guaranteed,
        /// Whether its actor is ordered now
        #[arg(long)]
        ordered: bool,
    },
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum Guaranteed {
    #[value(name = "at_least_once")]
    AtLeastOnce,
    #[value(name = "at_most_once")]
    AtMostOnce,
}

/// Runs a command.
///
/// # Errors
/// One sentence.
pub(super) async fn obey(command: TopologyCommand, bus: &Bus, config: &Config) -> Result<(), String> {
    let TopologyCommand::Migrate { queue, guarantee, ordered } = command;
    let names = &config.namespace;
    let of_actor = of_actor(names, &queue)?;
    let target = match guarantee {
        _ if queue == names.due() => due_queue(names),
        _ if of_actor == Some("dead") => Queue::replicated(&queue),
        _ if of_actor == Some("query") => query_queue(&queue, config.query_queue),
        Guaranteed::AtLeastOnce => durable_queue(names, &queue, Guarantee::AtLeastOnce, ordered),
        Guaranteed::AtMostOnce => durable_queue(names, &queue, Guarantee::AtMostOnce, false),
    };
    let moved = Migration::new(bus).run(&target, &[]).await.map_err(|error| error.to_string())?;
    output::line(format_args!("{queue} has the arguments asked for; {moved} messages were moved"));
    Ok(())
}

/// Checks that the queue is an actor's and returns the word after the actor, if it is not its main queue. Other queues
/// have arguments that never change.
fn of_actor<'a>(names: &Names, queue: &'a str) -> Result<Option<&'a str>, String> {
    let refused = || {
        format!(
            "{queue:?} is no queue of an actor: those are named {0}.service, {0}.service.queue, and these with .query or .dead",
            names.namespace()
        )
    };
    let rest = queue.strip_prefix(names.namespace()).and_then(|rest| rest.strip_prefix('.')).ok_or_else(refused)?;
    let (actor, last) = match rest.rsplit_once('.') {
        Some((actor, last @ ("query" | "dead"))) => (actor, Some(last)),
        _ => (rest, None),
    };
    if actor == "due" {
        return Ok(last);
    }
    let (service, own) = actor.split_once('.').map_or((actor, None), |(service, own)| (service, Some(own)));
    let fits = check_service(service).is_ok() && own.is_none_or(|own| check_queue(own).is_ok());
    if fits { Ok(last) } else { Err(refused()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_queues_of_actors_are_migrated() {
        let of = |queue| of_actor(&Names::default(), queue);
        assert_eq!(of("postrider.invoice"), Ok(None));
        assert_eq!(of("postrider.invoice.audit"), Ok(None));
        assert_eq!(of("postrider.invoice.audit.dead"), Ok(Some("dead")));
        assert_eq!(of("postrider.invoice.query"), Ok(Some("query")));
        assert_eq!((of("postrider.due"), of("postrider.due.dead")), (Ok(None), Ok(Some("dead"))));
        for queue in [
            "invoice",
            "postrider.delay.3",
            "postrider.topology.invoice",
            "postrider.domain.claims",
            "postrider.tap.x",
            "other.invoice",
        ] {
            assert!(of(queue).is_err(), "{queue}");
        }
    }
}
