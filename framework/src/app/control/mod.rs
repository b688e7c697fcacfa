//! Orders to running processes: report, pause, resume, restart. Orders travel as messages.

mod controls;
mod listen;
mod report;
mod send_order;

pub(super) use controls::Controls;
pub(super) use listen::start_listening;
pub use report::{ActorReport, ProcessReport, QueueReport};
pub(crate) use report::{Order, Wanted};
pub(super) use send_order::answers;
pub(crate) use send_order::question;
