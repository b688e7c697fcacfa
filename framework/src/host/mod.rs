//! The actix side: the actor that owns a service's state, its lanes and locks, and the one function that runs a handler.

mod actor;
mod actor_store;
mod attempt;
mod blocked;
mod core;
mod deliver;
mod epoch;
mod handled;
mod handling;
mod lane;
mod limit;
mod nameless;
mod once;
mod running;
mod shared_commit;
mod sharing;
mod state;
mod store_trouble;
mod unsettled;
mod verdict;
mod waiting;

pub use actor::Host;
pub use actor_store::ActorStore;
pub use blocked::{ArbiterWatch, Watchdog};
pub use core::{Core, Settings, Stops};
pub use deliver::{Arrival, Deliver, Finished, Ticket};
pub use epoch::Epoch;
pub use handled::{AttemptRecord, Handled};
pub use running::{Nameless, Running, Turn};
pub use state::Factory;
pub use verdict::{Case, End, Settlement, SkewPolicy, Verdict, verdict};
