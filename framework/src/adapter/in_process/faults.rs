//! Random faults of a broker, of the network to it and of a process. A seed decides about them, so that a failure can be
//! repeated.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A fault that a connection to the in-process broker can suffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// A message arrives at the broker, but its confirm is lost.
    DropConfirm,
    /// A message is lost on its way to the broker, and no error says so.
    DropMessage,
    /// A message arrives twice.
    Duplicate,
    /// A channel ends just before an acknowledgement on it. The message is delivered again.
    Redeliver,
    /// A queue delivers nothing for a while, so that messages of other queues overtake its own.
    Delay,
    /// All channels of the connection end.
    Disconnect,
    /// The process crashes before the step.
    CrashBefore,
    /// The process crashes after the step.
    CrashAfter,
    /// A queue confirms and delivers nothing for a while, like a quorum queue without a majority. If a publication's deadline passes
    /// meanwhile, its outcome is unknown.
    NoConfirm,
    /// A message arrives at once. Its confirm, rejection or return comes later, perhaps after the deadline.
    LateConfirm,
    /// One consuming channel of the connection ends alone. Its unacknowledged messages are delivered again.
    ConsumerChannel,
    /// The publishing channel ends alone. The outcome of its unconfirmed messages is unknown, and its requests get no reply.
    PublisherChannel,
    /// A write fails. The message does not arrive, and the sender gets an error.
    FailedWrite,
    /// The broker reads nothing for a while. The message is sent later, or not at all if its deadline passes. Messages behind it
    /// wait too.
    BlockedWrite,
    /// A queue is full for a while and rejects messages. The message's other queues take it.
    QueueFull,
    /// The process is stopped in an orderly way and started again. Only a `FaultTest` does that; elsewhere nothing happens.
    Stop,
    /// A message that nobody can decode comes in front of a message, with whatever strangers write into their properties. It becomes a
    /// dead letter. Not among the default kinds.
    Stranger,
    /// The source of a message is deleted with all its subscriptions, until the processes find out and declare them again. What is sent
    /// meanwhile is refused; an event is lost to those who have not declared their subscription yet. Not among the default kinds.
    SourceDeleted,
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
    /// A query is answered on the channel that delivered it.
    Answer,
}

impl Step {
    /// The faults that are possible at the step.
    const fn possible(self) -> &'static [FaultKind] {
        use FaultKind::{
            BlockedWrite, ConsumerChannel, CrashAfter, CrashBefore, Delay, Disconnect, DropConfirm, DropMessage,
            Duplicate, FailedWrite, LateConfirm, NoConfirm, PublisherChannel, QueueFull, Redeliver, SourceDeleted,
            Stop, Stranger,
        };
        match self {
            Self::Publish => &[
                DropConfirm,
                DropMessage,
                Duplicate,
                Disconnect,
                CrashBefore,
                CrashAfter,
                NoConfirm,
                LateConfirm,
                ConsumerChannel,
                PublisherChannel,
                FailedWrite,
                BlockedWrite,
                QueueFull,
                Stranger,
                SourceDeleted,
            ],
            Self::Deliver => &[Delay, Disconnect, CrashAfter, ConsumerChannel, Stop],
            Self::Ack => &[Redeliver, Delay, Disconnect, CrashBefore, CrashAfter, ConsumerChannel],
            Self::Answer => {
                &[DropMessage, Disconnect, CrashBefore, CrashAfter, ConsumerChannel, FailedWrite, BlockedWrite]
            }
        }
    }

    const ALL: [Self; 4] = [Self::Publish, Self::Deliver, Self::Ack, Self::Answer];
}

/// Which faults happen, and how often.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Faults {
    /// Decides at which steps faults happen, and of which kind.
    pub seed: u64,
    /// The probability of a fault at each step, from 0 to 1. Default: 0.05.
    pub rate: f64,
    /// The maximum number of faults. After that nothing fails. Default: 200.
    pub most: usize,
    /// The longest delay of a queue. Default: 200 ms.
    pub longest_delay: Duration,
    /// The longest time for which a queue confirms nothing or is full, a confirm is late, or nothing is written. Default: 40 s,
    /// longer than the deadline of a publication.
    pub longest_silence: Duration,
    /// The kinds that may happen. Default: all but [`FaultKind::Stranger`] and [`FaultKind::SourceDeleted`], which a program cannot
    /// survive without a dead letter or a lost event.
    pub kinds: Vec<FaultKind>,
}

impl Faults {
    /// The default kinds of faults at the default rate, with this seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let kinds = Step::ALL.iter().flat_map(|step| step.possible()).copied();
        let mut kinds: Vec<FaultKind> = kinds.collect();
        kinds.retain(|kind| !matches!(kind, FaultKind::Stranger | FaultKind::SourceDeleted));
        kinds.sort_unstable();
        kinds.dedup();
        let (longest_delay, longest_silence) = (Duration::from_millis(200), Duration::from_secs(40));
        Self { seed, rate: 0.05, most: 200, longest_delay, longest_silence, kinds }
    }
}

/// A fault that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// What happened.
    pub kind: FaultKind,
    /// The step at which it happened.
    pub step: Step,
    /// The number of that step, counted from 1 over all steps.
    pub number: u64,
}

/// The fault script of one or more connections. Clones share one script.
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

    /// The fault at this step, if one happens. A process that is stopping gets no second [`FaultKind::Stop`].
    pub(super) fn at(&self, step: Step, is_stopping: bool) -> Option<FaultKind> {
        let mut progress = self.lock();
        progress.steps += 1;
        let possible: Vec<FaultKind> = step
            .possible()
            .iter()
            .copied()
            .filter(|kind| progress.faults.kinds.contains(kind) && !(is_stopping && *kind == FaultKind::Stop))
            .collect();
        // Both numbers are drawn at every step, so that a step without a fault does not shift the sequence. Some faults draw more.
        let (chance, choice) = (progress.random.f64(), progress.random.usize(..possible.len().max(1)));
        if chance >= progress.faults.rate || progress.happened.len() >= progress.faults.most {
            return None;
        }
        let kind = *possible.get(choice)?;
        let number = progress.steps;
        progress.happened.push(Fault { kind, step, number });
        Some(kind)
    }

    /// Whether a fault of this kind may happen.
    pub(super) fn may(&self, kind: FaultKind) -> bool {
        self.lock().faults.kinds.contains(&kind)
    }

    /// For how long a queue delivers nothing.
    pub(super) fn delay(&self) -> Duration {
        let mut progress = self.lock();
        let chance = progress.random.f64();
        progress.faults.longest_delay.mul_f64(chance)
    }

    /// For how long a queue is silent or full, a confirm is late, or nothing is written.
    pub(super) fn silence(&self) -> Duration {
        let mut progress = self.lock();
        let chance = progress.random.f64();
        progress.faults.longest_silence.mul_f64(chance)
    }

    /// A random number below `count`, or 0 if `count` is 0.
    pub(super) fn pick(&self, count: usize) -> usize {
        self.lock().random.usize(..count.max(1))
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
                match script.at(Step::ALL[turn % Step::ALL.len()], false) {
                    Some(FaultKind::Delay) => assert!(script.delay() <= Duration::from_millis(200)),
                    Some(FaultKind::NoConfirm) => assert!(script.silence() <= Duration::from_secs(40)),
                    _ => {}
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
