use std::sync::{Arc, Mutex, PoisonError};

/// Whether a lane consumes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LaneState {
    /// Its queue.
    pub queue: String,
    /// Whether it consumes in its present epoch, or was paused on purpose.
    pub consuming: bool,
    /// How often its consumer has been opened.
    pub epochs: u64,
    /// Why it does not, or that it is paused.
    pub problem: Option<String>,
}

/// The lanes of an app, for readiness.
#[derive(Debug, Clone, Default)]
pub struct LaneStates(Arc<Mutex<Vec<LaneState>>>);

impl LaneStates {
    /// All lanes.
    #[must_use]
    pub fn snapshot(&self) -> Vec<LaneState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn add(&self, queue: &str) -> usize {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        states.push(LaneState { queue: queue.to_owned(), consuming: false, epochs: 0, problem: None });
        states.len() - 1
    }

    pub(super) fn set(&self, index: usize, consuming: bool, problem: Option<String>) {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        states[index].epochs += u64::from(consuming && !states[index].consuming);
        states[index].consuming = consuming;
        states[index].problem = problem;
    }
}
