//! Orders to running processes: who is there, pause, resume, restart. They travel as messages.

mod actors;
mod command;
mod controls;
mod listen;
mod report;

pub(super) use actors::answers;
pub use actors::{Actors, ControlError};
pub(super) use command::{ActorCommand, obey};
pub(super) use controls::Controls;
pub(super) use listen::start_listening;
pub use report::{ActorReport, ProcessReport, QueueReport};
