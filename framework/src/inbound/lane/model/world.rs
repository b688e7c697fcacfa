//! What there is: the queue, the dead letters, the notes of suspects, and two processes with one lane each.

use std::hash::{Hash, Hasher};

use foldhash::fast::FixedState;

pub(super) const PROCESSES: usize = 2;
pub(super) const MESSAGES: usize = 2;

/// What one search is about. All numbers are small, so that everything that can happen is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    /// How many messages there are in the beginning.
    pub(super) messages: u8,
    /// Which messages end the process that handles them.
    pub(super) kills: [bool; MESSAGES],
    /// Which handlers may fail.
    pub(super) fails: [bool; MESSAGES],
    /// Which handlers send a message.
    pub(super) sends: [bool; MESSAGES],
    /// The attempts before a message is given up; each but the first is written for later.
    pub(super) attempts: u8,
    pub(super) prefetch: usize,
    pub(super) suspected_after: u8,
    pub(super) condemned_after: u8,
    pub(super) faults: Faults,
    /// A fault of the code that the search is to find.
    pub(super) broken: Option<Wrong>,
}

/// How often what may happen from outside still happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Faults {
    /// Channels that close alone.
    pub(super) losses: u8,
    pub(super) stops: u8,
    pub(super) kills: u8,
    /// Messages that are not taken, or whose confirm is missing.
    pub(super) unconfirmed: u8,
    /// Messages that are sent a second time with the same id.
    pub(super) duplicates: u8,
    /// Dead letters that somebody sends back.
    pub(super) replays: u8,
    /// Handlers that fail.
    pub(super) failures: u8,
    /// Outcomes that are remembered for too long.
    pub(super) forgets: u8,
}

/// Code that would be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// The right to handle ends when the handler does, and not when the delivery is settled.
    TurnEndsAtFinished,
    /// The original is acknowledged although nobody knows whether its dead letter arrived.
    AcknowledgesUnconfirmed,
    /// A stop keeps the note of the suspect that it found.
    StopKeepsNote,
    /// What is given back by a stop is put off for another attempt.
    StopCountsAsAttempt,
    /// A suspect that waits is never cleared.
    NeverClears,
    /// What was replayed takes the outcome of the life before.
    ReplayIsTheSame,
    /// The broker's count of deliveries condemns.
    CountCondemns,
}

/// A message as it lies in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Copy_ {
    pub(super) message: u8,
    pub(super) attempt: u8,
    /// How often somebody replayed it.
    pub(super) life: u8,
    pub(super) redelivered: bool,
    pub(super) count: u8,
}

impl Copy_ {
    /// A first delivery.
    pub(super) fn of(message: u8, attempt: u8, life: u8) -> Self {
        Self { message, attempt, life, redelivered: false, count: 0 }
    }

    pub(super) fn index(self) -> usize {
        self.message.into()
    }

    /// By what a process knows it again.
    pub(super) fn same(self) -> (u8, u8, u8) {
        (self.message, self.attempt, self.life)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum End {
    Ack,
    DeadLetter { crash: bool },
    Retry,
    GiveBack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Receive {
    Ack,
    GiveBack,
}

/// How far a delivery is on its way through its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Stage {
    /// A suspect whose note is not written yet.
    Clearing,
    /// The note is written, and the lane does not know yet.
    Noted {
        condemned: bool,
    },
    /// In the mailbox.
    Arrived {
        condemned: bool,
    },
    /// What it waited for did not take place, or is settled.
    Again,
    Joined,
    After,
    /// The handler runs.
    Attempt,
    /// The handler has succeeded, and what it sent is on its way.
    Sending,
    /// The outcome is on its way to the lane.
    Finished(End),
    /// Its dead letter, or its next attempt, is being written.
    Settling(End),
    /// That it was handled alone is being forgotten.
    EndingAlone(Receive),
    /// What is left to do is on its way to the lane.
    Settled(Receive),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Held {
    pub(super) copy: Copy_,
    pub(super) stage: Stage,
    /// Whether its channel is the present one, as far as the lane knows.
    pub(super) current: bool,
    /// Whether it has the right to handle its message.
    pub(super) turn: bool,
    /// How it was handled, if it was.
    pub(super) handled: Option<End>,
    /// Whether it is handled alone.
    pub(super) suspect: bool,
    /// Whether there is a note of it.
    pub(super) note: bool,
}

impl Held {
    /// Whether a run of it has begun and is not settled.
    pub(super) fn runs(&self) -> bool {
        match self.stage {
            Stage::Attempt | Stage::Sending | Stage::Settling(_) => true,
            Stage::Finished(end) => end != End::GiveBack,
            _ => self.handled.is_some(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub(super) struct Process {
    pub(super) up: bool,
    pub(super) stopping: bool,
    /// Its channel has closed, and the lane does not know yet.
    pub(super) closed: bool,
    pub(super) buffer: Vec<Copy_>,
    pub(super) held: Vec<Held>,
    /// What is acknowledged, and the broker does not know yet.
    pub(super) unflushed: Vec<Copy_>,
    /// What was acknowledged last on this channel.
    pub(super) acknowledged: Vec<(u8, u8, u8)>,
    /// What ended and could not be settled.
    pub(super) unsettled: Vec<((u8, u8, u8), End)>,
    pub(super) outlived: [u8; MESSAGES],
}

impl Process {
    pub(super) fn begun() -> Self {
        Self { up: true, ..Self::default() }
    }

    pub(super) fn is_live(&self, held: &Held) -> bool {
        held.current && !self.closed
    }

    pub(super) fn alone(&self) -> bool {
        self.held.iter().any(|held| held.suspect)
    }

    /// Whether a message is being handled.
    pub(super) fn has(&self, message: u8) -> bool {
        self.held.iter().any(|held| held.turn && held.copy.message == message)
    }

    /// What the broker takes back if the channel closes now, in the order in which it came.
    pub(super) fn unacknowledged(&self) -> Vec<Copy_> {
        if self.closed || !self.up {
            return Vec::new();
        }
        let held = self.held.iter().filter(|held| held.current).map(|held| held.copy);
        self.unflushed.iter().copied().chain(held).chain(self.buffer.iter().copied()).collect()
    }
}

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) rules: &'static Rules,
    pub(super) queue: Vec<Copy_>,
    /// How many dead letters there are of each message.
    pub(super) dead: [u8; MESSAGES],
    /// Whether one of them says that it ended its process.
    pub(super) condemned: [bool; MESSAGES],
    /// Notes of suspects whose processes died.
    pub(super) notes: [u8; MESSAGES],
    /// Notes of suspects whose processes stopped in order: there should be none.
    pub(super) left_by_stops: [u8; MESSAGES],
    pub(super) processes: [Process; PROCESSES],
    pub(super) left: Faults,
    /// Whether a handler has succeeded, and what it sent was taken.
    pub(super) done: [bool; MESSAGES],
    /// Whether what its handler sends has arrived.
    pub(super) sent: [bool; MESSAGES],
    /// The processes that died while they handled it alone, or seemed to: their channel was lost and they live.
    pub(super) deaths: [u8; MESSAGES],
}

impl World {
    pub(super) fn begin(rules: &'static Rules) -> Self {
        Self {
            rules,
            queue: (0..rules.messages).map(|message| Copy_::of(message, 1, 0)).collect(),
            dead: [0; MESSAGES],
            condemned: [false; MESSAGES],
            notes: [0; MESSAGES],
            left_by_stops: [0; MESSAGES],
            processes: std::array::from_fn(|_| Process::begun()),
            left: rules.faults,
            done: [false; MESSAGES],
            sent: [false; MESSAGES],
            deaths: [0; MESSAGES],
        }
    }

    /// The same for worlds that differ only in which process is which.
    pub(super) fn fingerprint(&self) -> u64 {
        let [first, second] = &self.processes;
        let processes = if first <= second { [first, second] } else { [second, first] };
        let mut hasher = std::hash::BuildHasher::build_hasher(&FixedState::with_seed(7));
        let ghosts = (self.done, self.sent, self.deaths, self.condemned);
        (&self.queue, self.dead, self.notes, self.left_by_stops, self.left, ghosts, processes).hash(&mut hasher);
        hasher.finish()
    }

    /// Whether the broker or a process still has a message.
    pub(super) fn is_somewhere(&self, message: usize) -> bool {
        let of = |copy: &Copy_| copy.index() == message;
        self.queue.iter().any(of) || self.processes.iter().any(|process| process.unacknowledged().iter().any(of))
    }

    /// Whether everything has come to its end.
    pub(super) fn is_over(&self) -> bool {
        let idle =
            |process: &Process| process.buffer.is_empty() && process.held.is_empty() && process.unflushed.is_empty();
        self.queue.is_empty() && self.processes.iter().all(idle)
    }
}
