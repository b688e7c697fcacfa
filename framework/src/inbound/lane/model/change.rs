//! What an action of one process changes, including the queue and the dead letters.

use super::steps::{Attempt, Sent};
use super::world::{Copy_, End, Receive, Stage, World, Wrong};

impl World {
    /// Writes a note, unless there are too many already.
    pub(super) fn begin_note(&mut self, p: usize, n: usize) {
        let message = self.processes[p].held[n].copy.index();
        let others = self.processes.iter().flat_map(|process| &process.held);
        let living = others.filter(|held| held.note && held.copy.index() == message).count();
        let deaths = living as u8 + self.notes[message] + self.left_by_stops[message];
        let deaths =
            if self.rules.broken == Some(Wrong::CountCondemns) { self.processes[p].held[n].copy.count } else { deaths };
        let condemned = deaths >= self.rules.condemned_after;
        let held = &mut self.processes[p].held[n];
        held.note = !condemned;
        held.stage = Stage::Noted { condemned };
    }

    pub(super) fn cleared(&mut self, p: usize, n: usize) {
        let process = &mut self.processes[p];
        let stopping = process.stopping;
        let held = &mut process.held[n];
        let gives_back = Stage::EndingAlone(Receive::GiveBack);
        match held.stage {
            Stage::Noted { condemned } if !stopping && held.current => held.stage = Stage::Arrived { condemned },
            _ if stopping && self.rules.broken == Some(Wrong::StopKeepsNote) => {
                if std::mem::take(&mut held.note) {
                    self.left_by_stops[held.copy.index()] += 1;
                }
                held.stage = gives_back;
            }
            _ => held.stage = gives_back,
        }
    }

    pub(super) fn attempt(&mut self, p: usize, n: usize, how: Attempt) {
        let rules = self.rules;
        self.left.failures -= u8::from(how == Attempt::Fails);
        let held = &mut self.processes[p].held[n];
        let Copy_ { attempt, .. } = held.copy;
        let message = held.copy.index();
        held.stage = match how {
            Attempt::Ok if rules.sends[message] => Stage::Sending,
            Attempt::Ok => {
                self.done[message] = true;
                Stage::Finished(End::Ack)
            }
            Attempt::Fails if attempt < rules.attempts => Stage::Finished(End::Retry),
            Attempt::Fails | Attempt::Kills => Stage::Finished(End::DeadLetter { crash: false }),
        };
    }

    pub(super) fn send(&mut self, p: usize, n: usize, sent: Sent) {
        let process = &mut self.processes[p];
        let message = process.held[n].copy.index();
        if sent != Sent::Taken {
            self.left.unconfirmed -= 1;
        }
        self.sent[message] |= sent != Sent::Refused;
        if sent == Sent::Taken {
            self.done[message] = true;
            process.held[n].stage = Stage::Finished(End::Ack);
        } else if process.stopping {
            process.give_back(n);
        }
    }

    pub(super) fn finished(&mut self, p: usize, n: usize) {
        let process = &mut self.processes[p];
        let live = process.is_live(&process.held[n]);
        let held = &mut process.held[n];
        let Stage::Finished(end) = held.stage else { return };
        held.handled = held.turn.then_some(end);
        let ends = |receive| if held.note { Stage::EndingAlone(receive) } else { Stage::Settled(receive) };
        held.stage = match end {
            _ if !live => ends(Receive::GiveBack),
            End::Ack => ends(Receive::Ack),
            End::GiveBack => ends(Receive::GiveBack),
            End::DeadLetter { .. } | End::Retry => Stage::Settling(end),
        };
        // A delivery that needs nothing published is released at once.
        if let Stage::Settled(_) = held.stage {
            self.release(p, n);
        } else if self.rules.broken == Some(Wrong::TurnEndsAtFinished) && std::mem::take(&mut held.turn) {
            let message = held.copy.message;
            process.wake(message);
        }
    }

    pub(super) fn settle(&mut self, p: usize, n: usize, sent: Sent) {
        let Stage::Settling(end) = self.processes[p].held[n].stage else { return };
        let copy = self.processes[p].held[n].copy;
        if sent != Sent::Taken {
            self.left.unconfirmed -= 1;
        }
        if sent != Sent::Refused {
            match end {
                End::DeadLetter { crash } => {
                    self.dead[copy.index()] += 1;
                    self.condemned[copy.index()] |= crash;
                }
                _ => self.queue.push(Copy_::of(copy.message, copy.attempt + 1, copy.life)),
            }
        }
        let confirmed = sent == Sent::Taken || self.rules.broken == Some(Wrong::AcknowledgesUnconfirmed);
        let receive = if confirmed { Receive::Ack } else { Receive::GiveBack };
        let held = &mut self.processes[p].held[n];
        held.stage = if held.suspect { Stage::EndingAlone(receive) } else { Stage::Settled(receive) };
    }

    pub(super) fn end_alone(&mut self, p: usize, n: usize) {
        let held = &mut self.processes[p].held[n];
        let Stage::EndingAlone(receive) = held.stage else { return };
        (held.note, held.stage) = (false, Stage::Settled(receive));
        let message = held.copy.index();
        if receive == Receive::Ack {
            // A message that was handled to its end is no longer a suspect.
            (self.notes[message], self.left_by_stops[message]) = (0, 0);
            self.processes.iter_mut().flat_map(|process| &mut process.held).for_each(|other| {
                other.note &= other.copy.index() != message;
            });
        }
    }

    pub(super) fn release(&mut self, p: usize, n: usize) {
        let prefetch = self.rules.prefetch;
        let process = &mut self.processes[p];
        let held = process.held.remove(n);
        let Stage::Settled(receive) = held.stage else { return };
        let (live, copy) = (process.is_live(&held), held.copy);
        match (held.handled, receive) {
            (Some(_), Receive::Ack) if live => {
                if process.acknowledged.len() >= prefetch {
                    process.acknowledged.remove(0);
                }
                process.acknowledged.push(copy.same());
                if held.turn {
                    process.wake(copy.message);
                }
            }
            (Some(_), Receive::Ack) => process.pass_on(copy, End::Ack),
            (Some(end), Receive::GiveBack) => process.pass_on(copy, end),
            (None, _) if held.turn => process.wake(copy.message),
            (None, _) => {}
        }
        match receive {
            Receive::Ack if live => process.unflushed.push(copy),
            Receive::GiveBack if live => {
                process.outlived[copy.index()] += 1;
                self.take_back(vec![copy]);
            }
            _ => {}
        }
    }

    /// Requeued copies go to the front of the queue, with one more delivery counted.
    fn take_back(&mut self, mut copies: Vec<Copy_>) {
        for copy in &mut copies {
            (copy.redelivered, copy.count) = (true, copy.count + 1);
        }
        self.queue.splice(0..0, copies);
    }

    pub(super) fn closes(&mut self, p: usize) {
        let back = self.processes[p].unacknowledged();
        self.take_back(back);
        let process = &mut self.processes[p];
        process.unflushed.clear();
        process.closed = true;
    }

    pub(super) fn stopped(&mut self, p: usize) {
        // A stop sends its acknowledgements first.
        self.processes[p].unflushed.clear();
        let back = self.processes[p].unacknowledged();
        self.take_back(back.clone());
        if self.rules.broken == Some(Wrong::StopCountsAsAttempt) {
            self.queue.iter_mut().take(back.len()).for_each(|copy| copy.attempt += 1);
        }
        let ended = std::mem::take(&mut self.processes[p]);
        for held in ended.held.iter().filter(|held| held.note) {
            if self.rules.broken == Some(Wrong::StopKeepsNote) {
                self.left_by_stops[held.copy.index()] += 1;
            }
        }
    }

    pub(super) fn kill(&mut self, p: usize) {
        let back = self.processes[p].unacknowledged();
        self.take_back(back);
        let ended = std::mem::take(&mut self.processes[p]);
        for held in ended.held.iter().filter(|held| held.note) {
            self.notes[held.copy.index()] += 1;
            self.deaths[held.copy.index()] += 1;
        }
    }
}
