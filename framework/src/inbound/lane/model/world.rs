//! The world of the model: the queue, the dead letters, the notes about suspects, and two processes with one lane each.

use std::hash::{Hash, Hasher};

use foldhash::fast::FixedState;

pub(super) const PROCESSES: usize = 2;
pub(super) const MESSAGES: usize = 2;

/// The setup of one search. All numbers are small, so that everything that can happen is visited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rules {
    /// How many messages there are at the beginning.
    pub(super) messages: u8,
    /// Which messages end the process that handles them.
    pub(super) kills: [bool; MESSAGES],
    /// Which handlers may fail.
    pub(super) fails: [bool; MESSAGES],
    /// Which handlers send a message.
    pub(super) sends: [bool; MESSAGES],
    /// The attempts before a message is given up. Each but the first is a message of its own in the queue.
    pub(super) attempts: u8,
    pub(super) prefetch: usize,
    pub(super) suspected_after: u8,
    pub(super) condemned_after: u8,
    pub(super) faults: Faults,
    /// A fault in the code that the search must find.
    pub(super) broken: Option<Wrong>,
}

/// How often each fault from outside may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Faults {
    /// Channels that close while their process lives.
    pub(super) losses: u8,
    pub(super) stops: u8,
    pub(super) kills: u8,
    /// Messages that are refused, or whose confirm is missing.
    pub(super) unconfirmed: u8,
    /// Messages that are sent a second time with the same id.
    pub(super) duplicates: u8,
    /// Dead letters that an operator sends back.
    pub(super) replays: u8,
    /// Handlers that fail.
    pub(super) failures: u8,
    /// Losses of remembered outcomes, because they became too old.
    pub(super) forgets: u8,
}

/// Kinds of wrong code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// The right to handle ends with the handler, not when the delivery is settled.
    TurnEndsAtFinished,
    /// The original is acknowledged although nobody knows whether its dead letter arrived.
    AcknowledgesUnconfirmed,
    /// A stop keeps the note of a held suspect.
    StopKeepsNote,
    /// A message that a stop gives back counts one more attempt.
    StopCountsAsAttempt,
    /// A waiting suspect is never cleared.
    NeverClears,
    /// A replayed message takes the outcome of the life before.
    ReplayIsTheSame,
    /// The broker's delivery count condemns.
    CountCondemns,
}

/// A message in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Copy_ {
    pub(super) message: u8,
    pub(super) attempt: u8,
    /// How often an operator replayed it.
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

    /// How a process recognises it.
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

/// How far a delivery has come in its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Stage {
    /// A suspect whose note is not written yet.
    Clearing,
    /// The note is written, but the lane does not know yet.
    Noted {
        condemned: bool,
    },
    /// In the mailbox.
    Arrived {
        condemned: bool,
    },
    /// The delivery it waited for was not handled, or is settled.
    Again,
    Joined,
    After,
    /// The handler runs.
    Attempt,
    /// The handler has succeeded, and its message is being sent.
    Sending,
    /// The outcome is on its way to the lane.
    Finished(End),
    /// Its dead letter, or its next attempt, is being written.
    Settling(End),
    /// Its note is being removed, because it was handled alone.
    EndingAlone(Receive),
    /// How to use the receipt is on its way to the lane.
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
    /// The outcome of its handling, if it has one.
    pub(super) handled: Option<End>,
    /// Whether it is handled alone.
    pub(super) suspect: bool,
    /// Whether it has a note.
    pub(super) note: bool,
}

impl Held {
    /// Whether its run has begun and is not settled.
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
    /// Its channel has closed, but the lane does not know yet.
    pub(super) closed: bool,
    pub(super) buffer: Vec<Copy_>,
    pub(super) held: Vec<Held>,
    /// Acknowledgements that the broker does not know yet.
    pub(super) unflushed: Vec<Copy_>,
    /// The messages acknowledged last on this channel.
    pub(super) acknowledged: Vec<(u8, u8, u8)>,
    /// Outcomes of messages that could not be settled.
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

    /// The messages that the broker requeues if the channel closes now, in the order in which they came.
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
    /// Whether a dead letter of it says that it ended its process.
    pub(super) condemned: [bool; MESSAGES],
    /// Notes of suspects whose processes died.
    pub(super) notes: [u8; MESSAGES],
    /// Notes of suspects whose processes stopped in order: there must be none.
    pub(super) left_by_stops: [u8; MESSAGES],
    pub(super) processes: [Process; PROCESSES],
    pub(super) left: Faults,
    /// Whether its handler has succeeded, and the message it sends was taken.
    pub(super) done: [bool; MESSAGES],
    /// Whether the message that its handler sends has arrived.
    pub(super) sent: [bool; MESSAGES],
    /// The number of processes that died while they handled it alone.
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

    /// A hash that is the same for worlds that differ only in which process is which.
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

    /// Whether every message has come to its end.
    pub(super) fn is_over(&self) -> bool {
        let idle =
            |process: &Process| process.buffer.is_empty() && process.held.is_empty() && process.unflushed.is_empty();
        self.queue.is_empty() && self.processes.iter().all(idle)
    }
}
