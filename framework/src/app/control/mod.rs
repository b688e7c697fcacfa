//! Orders to running processes: report, pause, resume, restart. Orders travel as messages.

mod asking;
mod controls;
mod listen;
mod report;

pub(super) use asking::answers;
pub(crate) use asking::question;
pub(super) use controls::Controls;
pub(super) use listen::start_listening;
pub use report::{ActorReport, ProcessReport, QueueReport};
pub(crate) use report::{Order, Wanted};
