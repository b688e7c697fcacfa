//! Assembles and runs the process: what it consists of, its configuration, start, stop, and the command line.

mod broker_needs;
mod builder;
mod check;
mod cli;
mod config;
mod connect;
mod control;
mod dead;
mod doctor;
mod due;
mod entry;
mod health;
mod launch;
mod launch_actors;
mod limits;
mod log;
mod manifest;
mod migrate;
mod needs;
mod outer_runtime;
mod output;
mod own_settings;
mod printable;
mod process;
mod read_config;
mod record;
mod running;
mod settings;
mod signals;
#[cfg(feature = "testing")]
mod start_here;
mod stop;
mod threads;
mod topology_command;
mod upkeep;

pub mod operator;

pub use crate::inbound::QueryQueue;
pub use builder::{App, BrokerChoice, Connector};
pub use config::{ActorOverrides, Config, RunLimits};
pub use control::{ActorReport, Actors, ControlError, ProcessReport, QueueReport};
pub use dead::{DeadError, DeadFilter, DeadLetter, DeadLetters, DeadProgress, Replay, Replayed};
pub use doctor::{Doctor, Finding, Verdict};
pub use entry::Setup;
pub use log::without_secrets;
pub use manifest::ManifestRow;
pub use migrate::{Migration, MigrationError};
pub use needs::WaitError;
pub use outer_runtime::main;
pub use output::print_line;
pub use running::{Health, Running, StartError, StopReport};
