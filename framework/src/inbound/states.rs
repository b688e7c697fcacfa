//! Which lanes consume, for readiness.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::broker::BrokerError;
use crate::bus::Unsent;

/// Is told of the first consumer, or of the mistake that makes one impossible.
pub(super) type Started = oneshot::Sender<Result<(), BrokerError>>;

/// Whether a lane consumes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LaneState {
    /// Its queue.
    pub queue: String,
    /// Whether it consumes and is subscribed, or was paused on purpose.
    pub consuming: bool,
    /// How often its consumer has been opened.
    pub epochs: u64,
    /// Why it does not consume, or that it is paused.
    pub problem: Option<String>,
}

/// The lanes of an app, for readiness.
#[derive(Debug, Clone, Default)]
pub struct LaneStates(Arc<Mutex<States>>);

#[derive(Debug, Default)]
struct States {
    /// Each lane, with the messages its handlers sent that the broker has not accepted.
    lanes: Vec<(LaneState, Unsent)>,
    /// Why no lane gets all its messages.
    unbound: Option<String>,
    /// When sources and subscriptions were last declared.
    bound_at: Option<Instant>,
}

impl LaneStates {
    fn states(&self) -> MutexGuard<'_, States> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All lanes.
    #[must_use]
    pub fn snapshot(&self) -> Vec<LaneState> {
        let states = self.states();
        let mut lanes: Vec<LaneState> = states.lanes.iter().map(|(lane, _)| lane.clone()).collect();
        for (lane, (_, unsent)) in lanes.iter_mut().zip(&states.lanes).filter(|(lane, _)| lane.problem.is_none()) {
            lane.problem = unsent.shown();
        }
        if let Some(unbound) = &states.unbound {
            for lane in lanes.iter_mut().filter(|lane| lane.consuming) {
                (lane.consuming, lane.problem) = (false, Some(unbound.clone()));
            }
        }
        lanes
    }

    /// Whether sources and subscriptions stand, as far as is known.
    #[must_use]
    pub fn are_bound(&self) -> bool {
        self.states().unbound.is_none()
    }

    /// When sources and subscriptions were last declared; `None` if no upkeep task runs.
    #[must_use]
    pub fn bound_at(&self) -> Option<Instant> {
        self.states().bound_at
    }

    pub(super) fn add(&self, queue: &str, unsent: Unsent) -> usize {
        let mut states = self.states();
        let lane = LaneState { queue: queue.to_owned(), consuming: false, epochs: 0, problem: None };
        states.lanes.push((lane, unsent));
        states.lanes.len() - 1
    }

    pub(super) fn set(&self, index: usize, consuming: bool, problem: Option<String>) {
        let mut states = self.states();
        let (lane, _) = &mut states.lanes[index];
        lane.epochs += u64::from(consuming && !lane.consuming);
        lane.consuming = consuming;
        lane.problem = problem;
    }

    pub(super) fn bound(&self) {
        let mut states = self.states();
        (states.unbound, states.bound_at) = (None, Some(Instant::now()));
    }

    pub(super) fn unbound(&self, problem: String) {
        self.states().unbound = Some(problem);
    }
}
