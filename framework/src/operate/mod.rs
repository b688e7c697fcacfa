//! Tools to operate a running system: the command-line programs, dead letters, the doctor, orders to actors, the
//! topology.

mod actors;
mod cli;
mod dead_letters;
mod doctor;
mod log;
mod migrate;
mod output;
mod printable;
mod service;
mod store;
mod topology;

pub mod operator;

pub use actors::{Actors, ControlError};
pub use dead_letters::{DeadError, DeadFilter, DeadLetter, DeadLetters, DeadProgress, Replay, Replayed};
pub use doctor::{Doctor, Finding, Verdict};
pub use log::without_secrets;
pub use migrate::{Migration, MigrationError};
pub use output::print_line;
pub use service::main;
