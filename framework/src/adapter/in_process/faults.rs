//! Faults of a broker and of the network to it, by chance; a seed decides, so that what failed once can be made to fail
//! again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A fault that a connection to the in-process broker can suffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// A message arrives at the broker, and its confirm does not arrive at the sender.
    DropConfirm,
    /// A message does not arrive at the broker, and nobody says so.
    DropMessage,
    /// A message arrives twice.
    Duplicate,
    /// A channel ends in the moment in which something was to be acknowledged: it is delivered again.
    Redeliver,
    /// A queue delivers nothing for a while, so that others overtake it.
    Delay,
    /// All channels of the connection end.
    Disconnect,
    /// The process is gone before the step.
    CrashBefore,
    /// The process is gone after the step.
    CrashAfter,
}

/// A step of a connection at which a fault may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// A message is published.
    Publish,
    /// A delivery is handed out.
    Deliver,
    /// A delivery is acknowledged.
    Ack,
}

impl Step {
    /// The faults that are possible at the step.
    const fn possible(self) -> &'static [FaultKind] {
        use FaultKind::{CrashAfter, CrashBefore, Delay, Disconnect, DropConfirm, DropMessage, Duplicate, Redeliver};
        match self {
            Self::Publish => &[DropConfirm, DropMessage, Duplicate, Disconnect, CrashBefore, CrashAfter],
            Self::Deliver => &[Delay, Disconnect, CrashAfter],
            Self::Ack => &[Redeliver, Delay, Disconnect, CrashBefore, CrashAfter],
        }
    }
}

/// Which faults happen, and how often.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Faults {
    /// What decides about place and kind of each fault.
    pub seed: u64,
    /// How likely a fault is at each step, from 0 to 1. Default: 0.05.
    pub rate: f64,
    /// The most faults; afterwards nothing fails any more. Default: 200.
    pub most: usize,
    /// The longest delay of a queue. Default: 200 ms.
    pub longest_delay: Duration,
    /// The kinds that may happen. Default: all.
    pub kinds: Vec<FaultKind>,
}

impl Faults {
    /// All kinds of faults, as a seed decides.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let kinds = [Step::Publish, Step::Deliver, Step::Ack].iter().flat_map(|step| step.possible()).copied();
        let mut kinds: Vec<FaultKind> = kinds.collect();
        kinds.sort_unstable();
        kinds.dedup();
        Self { seed, rate: 0.05, most: 200, longest_delay: Duration::from_millis(200), kinds }
    }
}

/// A fault that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// At which step.
    pub step: Step,
    /// Which step it was, counted from 1 over all steps.
    pub number: u64,
}

/// The faults of some connections. Clones are the same script.
#[derive(Clone)]
pub(super) struct Script(Arc<Mutex<Progress>>);

struct Progress {
    faults: Faults,
    random: fastrand::Rng,
    steps: u64,
    happened: Vec<Fault>,
}

impl Script {
    pub(super) fn new(faults: Faults) -> Self {
        let random = fastrand::Rng::with_seed(faults.seed);
        Self(Arc::new(Mutex::new(Progress { faults, random, steps: 0, happened: Vec::new() })))
    }

    /// The fault that happens at this step, if one does.
    pub(super) fn at(&self, step: Step) -> Option<FaultKind> {
        let mut progress = self.lock();
        progress.steps += 1;
        let possible: Vec<FaultKind> =
            step.possible().iter().copied().filter(|kind| progress.faults.kinds.contains(kind)).collect();
        // Chance is asked at every step, so that what happened before changes nothing of what comes.
        let (chance, choice) = (progress.random.f64(), progress.random.usize(..possible.len().max(1)));
        if chance >= progress.faults.rate || progress.happened.len() >= progress.faults.most {
            return None;
        }
        let kind = *possible.get(choice)?;
        let number = progress.steps;
        progress.happened.push(Fault { kind, step, number });
        Some(kind)
    }

    /// For how long a queue delivers nothing.
    pub(super) fn delay(&self) -> Duration {
        let mut progress = self.lock();
        let chance = progress.random.f64();
        progress.faults.longest_delay.mul_f64(chance)
    }

    pub(super) fn happened(&self) -> Vec<Fault> {
        self.lock().happened.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_faults_and_another_seed_others() {
        let happened = |seed| {
            let script = Script::new(Faults { rate: 0.3, most: 40, ..Faults::seeded(seed) });
            for turn in 0..300 {
                let step = [Step::Publish, Step::Deliver, Step::Ack][turn % 3];
                if script.at(step) == Some(FaultKind::Delay) {
                    assert!(script.delay() <= Duration::from_millis(200));
                }
            }
            script.happened()
        };
        assert_eq!(happened(7), happened(7));
        assert_ne!(happened(7), happened(8));
        assert_eq!(happened(7).len(), 40, "there is a limit");
        assert!(happened(7).iter().all(|fault| fault.step.possible().contains(&fault.kind)));
    }
}
