//! Checks whether a running system and the broker keep the promises of the actors.

mod actor;
mod command;
mod examine;
mod finding;

pub(super) use command::{DoctorArgs, obey};
pub use examine::Doctor;
pub use finding::{Finding, Verdict};
