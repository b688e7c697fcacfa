//! `postrider topology migrate`.

use clap::{Subcommand, ValueEnum};

use crate::app::migrate::Migration;
use crate::broker::{Names, Queue, due_queue};
use crate::bus::Bus;
use crate::handler::Guarantee;
use crate::inbound::durable_queue;

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

/// Carries out a command.
///
/// # Errors
/// One sentence.
pub(super) async fn obey(command: TopologyCommand, bus: &Bus, names: &Names) -> Result<(), String> {
    let TopologyCommand::Migrate { queue, guarantee, ordered } = command;
    let target = match guarantee {
        _ if queue == names.due() => due_queue(names),
        _ if queue.ends_with(".query") => Queue::classic(&queue),
        _ if queue.ends_with(".dead") => Queue::quorum(&queue),
        Guaranteed::AtLeastOnce => durable_queue(names, &queue, Guarantee::AtLeastOnce, ordered),
        Guaranteed::AtMostOnce => durable_queue(names, &queue, Guarantee::AtMostOnce, false),
    };
    let moved = Migration::new(bus).run(&target, &[]).await.map_err(|error| error.to_string())?;
    println!("{queue} has the arguments asked for; {moved} messages were moved");
    Ok(())
}
