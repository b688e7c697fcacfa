//! What the lanes of an actor hold. A request to the own actor can only be answered in time if its lane still takes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::handler::Lane;

/// What the lanes of one actor hold right now. The lanes write it, and the actor's own requests read it.
#[derive(Debug, Clone, Default)]
pub struct LaneLoads(Arc<[Shared; Lane::ALL.len()]>);

/// What a lane holds.
#[derive(Debug, Clone, Copy)]
pub struct LaneLoad {
    /// Deliveries whose handling has not ended, without the buffered ones.
    pub unfinished: usize,
    /// Deliveries that no handler has got yet.
    pub buffered: usize,
    /// The most deliveries that it holds at once; 0 without a channel.
    pub most: usize,
    /// Whether it has a consumer that is not cancelled.
    pub consumes: bool,
}

#[derive(Debug, Default)]
struct Shared {
    unfinished: AtomicUsize,
    buffered: AtomicUsize,
    most: AtomicUsize,
    consumes: AtomicBool,
}

impl LaneLoads {
    /// Notes what a lane holds.
    pub fn set(&self, lane: Lane, load: LaneLoad) {
        let shared = &self.0[lane.index()];
        shared.unfinished.store(load.unfinished, Ordering::Relaxed);
        shared.buffered.store(load.buffered, Ordering::Relaxed);
        shared.most.store(load.most, Ordering::Relaxed);
        shared.consumes.store(load.consumes, Ordering::Relaxed);
    }

    /// How many deliveries a lane has whose handling has not ended.
    pub(super) fn unfinished(&self, lane: Lane) -> usize {
        self.0[lane.index()].unfinished.load(Ordering::Relaxed) + self.buffered(lane)
    }

    /// How many deliveries of a lane no handler has got yet.
    pub(super) fn buffered(&self, lane: Lane) -> usize {
        self.0[lane.index()].buffered.load(Ordering::Relaxed)
    }

    /// The most deliveries that a lane holds at once; 0 if it has no channel.
    pub(super) fn most(&self, lane: Lane) -> usize {
        self.0[lane.index()].most.load(Ordering::Relaxed)
    }

    /// Whether a lane has a consumer that is not cancelled.
    pub(super) fn consumes(&self, lane: Lane) -> bool {
        self.0[lane.index()].consumes.load(Ordering::Relaxed)
    }
}
