//! Inbound flow: the bridge actor connects an actor's queues to its mailbox, takes permits, and settles deliveries.

mod bridge;
mod callers;
mod consumers;
mod control;
mod due;
mod forward;
mod lane;
mod migrating;
mod open;
mod reopen;
mod settle;
mod states;
mod suspects;
mod topology;
mod upkeep;

pub use bridge::{AwaitStopped, Bridge, BridgeSettings};
pub use control::{CONTROL, ControlSettings, Obey, obey_orders};
pub use due::{DueSettings, publish_due};
pub use forward::relocated;
pub(crate) use forward::{fitted, letter_id};
pub use lane::{Breaker, ConsumerTimeout, Control, Pace};
pub(crate) use migrating::{is_migrating, temporary};
pub use states::{LaneState, LaneStates};
pub use suspects::Suspects;
pub use topology::{ActorPlan, LanePlan, QueryQueue, durable_queue, plan, query_queue, shared_sources};
pub use upkeep::{REBIND_AFTER, UpkeepSettings, generation_queue, keep_bound, tell_others, were_deleted};
