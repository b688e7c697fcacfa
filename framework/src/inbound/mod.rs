//! Inbound flow: the bridge actor joins an actor's queues to its mailbox, takes permits, and settles.

mod bridge;
mod decide;
mod forward;
mod lane;
mod open;
mod settle;
mod topology;

pub use bridge::{AwaitStopped, Bridge, BridgeSettings};
pub use decide::{End, Settlement, SkewPolicy, decide, in_place};
pub use lane::{LaneState, LaneStates};
pub use topology::{ActorPlan, LanePlan, plan, shared_exchanges};
