//! What the lanes of an actor hold. A request to the own actor can only be answered in time if its lane still takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::handler::Lane;

/// What the lanes of one actor hold right now. The lanes write it, and the actor's own requests read it.
#[derive(Debug, Clone, Default)]
pub struct LaneLoads(Arc<[LaneLoad; Lane::ALL.len()]>);

#[derive(Debug, Default)]
struct LaneLoad {
    held: AtomicUsize,
    most: AtomicUsize,
}

impl LaneLoads {
    /// Notes what a lane holds, and the most that it holds at once; 0 without a consumer.
    pub fn set(&self, lane: Lane, held: usize, most: usize) {
        let load = &self.0[lane.index()];
        load.held.store(held, Ordering::Relaxed);
        load.most.store(most, Ordering::Relaxed);
    }

    /// How many deliveries a lane holds.
    pub(super) fn held(&self, lane: Lane) -> usize {
        self.0[lane.index()].held.load(Ordering::Relaxed)
    }

    /// The most deliveries that a lane holds at once; 0 if it has no consumer.
    pub(super) fn most(&self, lane: Lane) -> usize {
        self.0[lane.index()].most.load(Ordering::Relaxed)
    }
}
