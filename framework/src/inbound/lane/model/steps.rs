//! The actions that may happen, and what they change. Each is named after the function that does it.

use super::world::{Copy_, MESSAGES, PROCESSES, Process, Stage, World, Wrong};

/// How a handler ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    Ok,
    Fails,
    /// The handler ends the process.
    Kills,
}

/// What became of a message that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Taken,
    Refused,
    /// It arrived, but the sender does not know.
    Unknown,
}

/// The first number is a process, the second the place of a delivery that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// `LaneLoop::pulled`, and `hand_over_buffered` after it.
    Pulled(usize),
    /// `Notes::begin` has written the note.
    Begin(usize, usize),
    /// `LaneLoop::cleared`.
    Cleared(usize, usize),
    /// `Core::admit` and `Core::enter`; a delivery that may run begins.
    Enter(usize, usize),
    /// `Core::attempt` and the verdict.
    Attempt(usize, usize, Attempt),
    /// `Core::send`, and `Outlet::until_taken` if the message is not taken.
    Send(usize, usize, Sent),
    /// `LaneLoop::finished`.
    Finished(usize, usize),
    /// `Settler::settle`.
    Settle(usize, usize, Sent),
    /// `AloneRun::end`.
    EndAlone(usize, usize),
    /// `LaneLoop::release`.
    Release(usize, usize),
    /// `LaneLoop::flush`.
    Flush(usize),
    /// `Unsettled::forget_old`.
    ForgetOld(usize),
    /// The broker closes a channel and requeues its unacknowledged messages.
    Closes(usize),
    /// `LaneLoop::end(Lost)`, and `begin` on a new channel.
    Lost(usize),
    /// The app begins to stop.
    Stop(usize),
    /// `LaneLoop::end(Stopped)`, when nothing is held or running handlers are dropped.
    Stopped(usize),
    Kill(usize),
    /// A new process replaces one that ended.
    Start(usize),
    /// A sender sends a message a second time.
    Publish(u8),
    /// An operator sends a dead letter back.
    Replay(u8),
}

impl Action {
    /// Whether the action is a fault, which need not happen.
    pub(super) fn is_fault(self) -> bool {
        use Action::{Closes, ForgetOld, Kill, Publish, Replay, Send, Settle, Stop};
        match self {
            Closes(_) | Kill(_) | Stop(_) | ForgetOld(_) | Publish(_) | Replay(_) => true,
            Send(.., sent) | Settle(.., sent) => sent != Sent::Taken,
            _ => false,
        }
    }
}

impl World {
    pub(super) fn actions(&self) -> Vec<Action> {
        let (mut actions, left) = (Vec::new(), self.left);
        for p in 0..PROCESSES {
            let process = &self.processes[p];
            if !process.up {
                actions.push(Action::Start(p));
                continue;
            }
            self.of_deliveries(p, &mut actions);
            let room = process.buffer.len() + process.held.iter().filter(|held| held.current).count();
            if !process.stopping && !process.closed && !self.queue.is_empty() && room < self.rules.prefetch {
                actions.push(Action::Pulled(p));
            }
            if !process.unflushed.is_empty() {
                actions.push(Action::Flush(p));
            }
            if left.forgets > 0 && !process.unsettled.is_empty() {
                actions.push(Action::ForgetOld(p));
            }
            if process.stopping {
                actions.push(Action::Stopped(p));
            }
            if process.closed && !process.stopping {
                actions.push(Action::Lost(p));
            }
            if left.losses > 0 && !process.closed {
                actions.push(Action::Closes(p));
            }
            if left.stops > 0 && !process.stopping {
                actions.push(Action::Stop(p));
            }
            if left.kills > 0 {
                actions.push(Action::Kill(p));
            }
        }
        for message in 0..MESSAGES {
            if left.duplicates > 0 && !self.done[message] {
                actions.push(Action::Publish(message as u8));
            }
            if left.replays > 0 && self.dead[message] > 0 {
                actions.push(Action::Replay(message as u8));
            }
        }
        actions
    }

    fn of_deliveries(&self, p: usize, actions: &mut Vec<Action>) {
        let process = &self.processes[p];
        let mut mailbox = true;
        for (n, held) in process.held.iter().enumerate() {
            let message = held.copy.index();
            let unconfirmed = self.left.unconfirmed > 0;
            match held.stage {
                Stage::Clearing => {
                    if process.stopping {
                        actions.push(Action::Cleared(p, n));
                    } else if self.rules.broken != Some(Wrong::NeverClears) {
                        actions.push(Action::Begin(p, n));
                    }
                }
                Stage::Noted { .. } => actions.push(Action::Cleared(p, n)),
                // The mailbox is first in, first out.
                Stage::Arrived { .. } if std::mem::take(&mut mailbox) => actions.push(Action::Enter(p, n)),
                Stage::Again => actions.push(Action::Enter(p, n)),
                Stage::Attempt if self.rules.kills[message] => actions.push(Action::Attempt(p, n, Attempt::Kills)),
                Stage::Attempt => {
                    actions.push(Action::Attempt(p, n, Attempt::Ok));
                    if self.rules.fails[message] && self.left.failures > 0 {
                        actions.push(Action::Attempt(p, n, Attempt::Fails));
                    }
                }
                Stage::Sending => {
                    actions.push(Action::Send(p, n, Sent::Taken));
                    if unconfirmed {
                        actions.extend([Sent::Refused, Sent::Unknown].map(|sent| Action::Send(p, n, sent)));
                    }
                }
                Stage::Settling(_) => {
                    actions.push(Action::Settle(p, n, Sent::Taken));
                    if unconfirmed {
                        actions.extend([Sent::Refused, Sent::Unknown].map(|sent| Action::Settle(p, n, sent)));
                    }
                }
                Stage::Finished(_) => actions.push(Action::Finished(p, n)),
                Stage::EndingAlone(_) => actions.push(Action::EndAlone(p, n)),
                Stage::Settled(_) => actions.push(Action::Release(p, n)),
                Stage::Joined | Stage::After | Stage::Arrived { .. } => {}
            }
        }
    }

    pub(super) fn next(&self, action: &Action) -> Self {
        let mut world = self.clone();
        match *action {
            Action::Pulled(p) => {
                let copy = world.queue.remove(0);
                world.processes[p].buffer.push(copy);
            }
            Action::Begin(p, n) => world.begin_note(p, n),
            Action::Cleared(p, n) => world.cleared(p, n),
            Action::Enter(p, n) => world.processes[p].enter(n),
            Action::Attempt(p, _, Attempt::Kills) => world.kill(p),
            Action::Attempt(p, n, how) => world.attempt(p, n, how),
            Action::Send(p, n, sent) => world.send(p, n, sent),
            Action::Finished(p, n) => world.finished(p, n),
            Action::Settle(p, n, sent) => world.settle(p, n, sent),
            Action::EndAlone(p, n) => world.end_alone(p, n),
            Action::Release(p, n) => world.release(p, n),
            Action::Flush(p) => world.processes[p].unflushed.clear(),
            Action::ForgetOld(p) => {
                world.left.forgets -= 1;
                world.processes[p].unsettled.clear();
            }
            Action::Closes(p) => {
                world.left.losses -= 1;
                world.closes(p);
            }
            Action::Lost(p) => world.processes[p].lost(),
            Action::Stop(p) => {
                world.left.stops -= 1;
                world.processes[p].stopping = true;
            }
            Action::Stopped(p) => world.stopped(p),
            Action::Kill(p) => {
                world.left.kills -= 1;
                world.kill(p);
            }
            Action::Start(p) => world.processes[p] = Process::begun(),
            Action::Publish(message) => {
                world.left.duplicates -= 1;
                world.queue.push(Copy_::of(message, 1, 0));
            }
            Action::Replay(message) => {
                world.left.replays -= 1;
                world.dead[usize::from(message)] -= 1;
                let life = world.rules.faults.replays - world.left.replays;
                let life = if world.rules.broken == Some(Wrong::ReplayIsTheSame) { 0 } else { life };
                world.queue.push(Copy_::of(message, 1, life));
            }
        }
        // As every turn of a lane begins.
        let rules = world.rules;
        world
            .processes
            .iter_mut()
            .for_each(|process| process.hand_over_buffered(rules.prefetch, rules.suspected_after));
        world.forget_what_does_not_matter();
        world
    }

    /// Forgets what cannot come again. Remembering it would only multiply equivalent states.
    fn forget_what_does_not_matter(&mut self) {
        let left = self.left;
        for message in 0..MESSAGES {
            let held = |process: &Process| process.held.iter().any(|held| held.copy.index() == message);
            let comes_again = left.duplicates > 0 && !self.done[message] || left.replays > 0 && self.dead[message] > 0;
            if comes_again || self.is_somewhere(message) || self.processes.iter().any(held) {
                continue;
            }
            for process in &mut self.processes {
                process.acknowledged.retain(|(of, ..)| usize::from(*of) != message);
                process.unsettled.retain(|((of, ..), _)| usize::from(*of) != message);
                process.outlived[message] = 0;
            }
        }
        if left.losses == 0 {
            self.processes
                .iter_mut()
                .filter(|process| !process.closed)
                .for_each(|process| process.acknowledged.clear());
        }
    }
}
