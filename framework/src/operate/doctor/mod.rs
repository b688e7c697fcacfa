//! Compares a running system, and the broker, with what the actors promise.

mod actor;
mod command;
mod examine;
mod finding;

pub(super) use command::{DoctorArgs, obey};
pub use examine::Doctor;
pub use finding::{Finding, Verdict};
