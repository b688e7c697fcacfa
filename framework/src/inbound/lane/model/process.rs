//! The actions of one process that touch nothing outside it.

use super::world::{Copy_, End, Held, Process, Stage};

impl Process {
    /// Hands over deliveries as far as there are permits. A suspect waits until it is alone.
    pub(super) fn hand_over_buffered(&mut self, prefetch: usize, suspected_after: u8) {
        while self.up && !self.stopping && !self.buffer.is_empty() && !self.alone() {
            let held = self.held.iter().filter(|held| held.current).count();
            if held >= prefetch || self.held.len() >= 2 * prefetch {
                return;
            }
            let suspect = self.is_suspect(self.buffer[0], suspected_after);
            if suspect && !self.held.is_empty() {
                return;
            }
            let copy = self.buffer.remove(0);
            let stage = if suspect { Stage::Clearing } else { Stage::Arrived { condemned: false } };
            let (current, turn, handled, note) = (true, false, None, false);
            self.held.push(Held { copy, stage, current, turn, handled, suspect, note });
        }
    }

    fn is_suspect(&self, copy: Copy_, suspected_after: u8) -> bool {
        copy.count.saturating_sub(self.outlived[copy.index()]) >= suspected_after && !self.has(copy.message)
    }

    /// Runs a delivery, lets it wait for another one of the same message, or gives it the known outcome.
    pub(super) fn enter(&mut self, n: usize) {
        let Held { copy, stage, current, .. } = self.held[n];
        // While the app stops, no new delivery enters. One that waited for another one enters, and decides there.
        let stops = self.stopping && stage != Stage::Again;
        if stops || (!current && stage != (Stage::Arrived { condemned: true })) {
            return self.give_back(n);
        }
        if stage == (Stage::Arrived { condemned: true }) {
            self.held[n].stage = Stage::Finished(End::DeadLetter { crash: true });
            return;
        }
        let under_way = self.held.iter().find(|held| held.turn && held.copy.message == copy.message);
        if let Some(run) = under_way {
            let joins = copy.redelivered && run.copy.same() == copy.same();
            self.held[n].stage = if joins { Stage::Joined } else { Stage::After };
            return;
        }
        self.held[n].turn = true;
        let known = self.unsettled.iter().position(|(same, _)| copy.redelivered && *same == copy.same());
        if let Some(known) = known {
            self.held[n].stage = Stage::Finished(self.unsettled.remove(known).1);
        } else if self.stopping {
            self.give_back(n);
        } else {
            self.held[n].stage = Stage::Attempt;
        }
    }

    /// Gives back a delivery that was not handled to its end.
    pub(super) fn give_back(&mut self, n: usize) {
        self.held[n].stage = Stage::Finished(End::GiveBack);
        if std::mem::take(&mut self.held[n].turn) {
            let message = self.held[n].copy.message;
            self.wake(message);
        }
    }

    /// Deliveries that wait for this message enter again.
    pub(super) fn wake(&mut self, message: u8) {
        for held in self.held.iter_mut().filter(|held| held.copy.message == message) {
            if matches!(held.stage, Stage::Joined | Stage::After) {
                held.stage = Stage::Again;
            }
        }
    }

    /// A message was handled but could not be settled: its redelivery takes the outcome.
    pub(super) fn pass_on(&mut self, copy: Copy_, end: End) {
        let waits = |held: &&mut Held| held.stage == Stage::Joined && held.current && held.copy.message == copy.message;
        if let Some(next) = self.held.iter_mut().find(waits) {
            (next.turn, next.stage) = (true, Stage::Finished(end));
            return;
        }
        self.unsettled.retain(|(same, _)| *same != copy.same());
        self.unsettled.push((copy.same(), end));
        self.wake(copy.message);
    }

    /// The channel is lost, and a new one begins.
    pub(super) fn lost(&mut self) {
        let held = self.held.iter().filter(|held| held.current).map(|held| held.copy.message);
        let others: Vec<_> = held.chain(self.buffer.iter().map(|copy| copy.message)).collect();
        for same in std::mem::take(&mut self.acknowledged) {
            // Then nobody can tell whether this message comes again, or another one that is the same.
            if others.contains(&same.0) {
                continue;
            }
            self.unsettled.retain(|(other, _)| *other != same);
            self.unsettled.push((same, End::Ack));
        }
        for copy in std::mem::take(&mut self.buffer) {
            self.outlived[copy.index()] += 1;
        }
        for held in &mut self.held {
            // Like the real lane, this also counts deliveries of earlier channels.
            self.outlived[held.copy.index()] += 1;
            held.current = false;
        }
        self.closed = false;
    }
}
