//! The actix side: the actor that owns a service's state, its lanes and locks, and the one function that runs a handler.

mod actor;
mod attempt;
mod blocked;
mod core;
mod deliver;
mod lane;
mod limit;
mod nameless;
mod running;
mod state;
mod waiting;

pub use actor::Host;
pub use blocked::{ArbiterWatch, Watchdog};
pub use core::{Again, Core, InPlace, Settings, Stops};
pub use deliver::{Arrival, Deliver, Epoch, Finished, Made, Ticket};
pub use running::{Nameless, Running};
pub use state::Factory;
