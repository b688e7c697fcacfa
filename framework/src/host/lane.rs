//! One lane of an actor: takes the lock in delivery order, and only its head waits for it.

use std::future::pending;
use std::rc::Rc;

use futures::FutureExt;

use crate::bus::Counters;
use crate::handler::{FailureClass, Lane, Outcome, Row};
use crate::host::attempt::{Job, stopping};
use crate::host::core::Core;
use crate::host::handling::{Begun, LaneTurn};
use crate::host::limit::Slots;
use crate::host::running::Entered;
use crate::host::state::Guard;
use crate::host::waiting::{Batch, Waiting};
use crate::message::{Kind, Problem};
use crate::supervise::{Tasks, supervise};

/// Runs a lane until its mailbox is gone. If it panics it goes on with what waits, and what it held is given back.
pub(super) async fn keep(tasks: Tasks, name: String, mut waiting: Waiting, mut run: impl AsyncFnMut(&mut Waiting)) {
    supervise(tasks, name, pending(), async || run(&mut waiting).await).await;
}

/// Handles what waits, until the mailbox is gone.
pub(super) async fn run(core: &Rc<Core>, waiting: &mut Waiting) {
    let mut slots = Slots::new(core.settings.concurrency.clone());
    let mut batch = Batch::none();
    while let Some(job) = waiting.next().await {
        let admitted = match core.admit(job) {
            Some((row, job)) if core.settings.ordered => core.enter_in_order(job).await.map(|job| (row, job)),
            Some((row, job)) => core.enter(&row, job, &slots).map(|job| (row, job)),
            None => None,
        };
        let Some((row, job)) = admitted else {
            batch.pass();
            continue;
        };
        // An ordered actor finishes one message before it begins the next, also with `&self` handlers.
        if row.is_exclusive() || core.settings.ordered {
            batch.end();
            match core.shares_commits() {
                Some(store) => core.handle_waiting(store, row, job, waiting).await,
                None => core.handle_in_turn(row, job).await,
            }
            continue;
        }
        if core.state.is_broken() {
            batch.end();
        }
        let guard = match batch.take(Guard::share) {
            Some(guard) => guard,
            None => match core.lock(&row, &job).await {
                Some(guard) => {
                    batch.begin(guard.share(), waiting.count());
                    guard
                }
                None => {
                    job.give_back(stopping());
                    continue;
                }
            },
        };
        // Lock order: the state before a slot, here and at every retry. A task that holds a slot must not wait for the state.
        let begun = Begun { guard, slot: Some(slots.take().await) };
        // Checked here, and not only in the spawned task, so that deliveries go back in their order.
        if !core.may_begin(&job) {
            job.give_back(stopping());
            continue;
        }
        let again = Some(slots.clone());
        actix_rt::spawn(Rc::clone(core).handle_caught(row, job, Some(begun), again, LaneTurn::default()));
    }
}

/// The outcome of a message that this build does not handle.
fn no_handler(job: &Job) -> Outcome {
    let (kind, key) = (job.envelope.kind, job.envelope.key.as_str());
    if kind == Kind::Reply {
        // No other build handles it either.
        let text = format!(
            "{key:?} came straight to the queue and does not say in `postrider-kind` that it is a command, an event or a channel message"
        );
        return Outcome::failed(FailureClass::Permanent, Problem::NO_HANDLER, text);
    }
    let text = format!("no handler for {kind} {key:?} in this build of the service");
    Outcome::failed(FailureClass::NoHandler, Problem::NO_HANDLER, text)
}

/// The outcome of a message that has ended its process too often.
fn condemned() -> Outcome {
    let text = "the process that handled it ended each time, also when nothing else of its lane was handled beside it";
    Outcome::failed(FailureClass::CrashSuspected, Problem::FAILED, text)
}

impl Core {
    /// Handles a request that a handler of this actor waits for, beside that handler.
    pub(super) fn handle_nested(self: &Rc<Self>, job: Job) {
        let slots = Slots::new(self.settings.concurrency.clone());
        if let Some((row, job)) = self.admit(job)
            && let Some(job) = self.enter(&row, job, &slots)
        {
            let runs = self.environment.waiters.run(job.lane);
            let handling = Rc::clone(self).handle_caught(row, job, None, None, LaneTurn::default());
            actix_rt::spawn(handling.map(|()| drop(runs)));
        }
    }

    /// The job and its handler, if it is to be handled. Any other job gets its outcome here.
    pub(super) fn admit(self: &Rc<Self>, mut job: Job) -> Option<(Rc<Row>, Job)> {
        if let Some(outcome) = self.answer_without_handler(&job) {
            self.settle_unhandled(job, outcome);
            return None;
        }
        let found = self.table.find(job.lane, job.envelope.kind, job.envelope.key.as_str()).map(Rc::clone);
        let Some(row) = found else {
            Counters::add(&self.counters.no_handler);
            let outcome = no_handler(&job);
            self.settle_unhandled(job, outcome);
            return None;
        };
        job.made.handler = Some(row.index);
        if job.condemned {
            self.settle_unhandled(job, condemned());
            return None;
        }
        Some((row, job))
    }

    /// Whether the job is handled now, has its outcome, or waits for another delivery of the same message.
    pub(super) fn try_enter(&self, mut job: Job) -> Tried {
        // Queries have no effect that could happen twice, and an instance's events come once.
        if job.lane != Lane::Durable {
            return Tried::Runs(job);
        }
        // It is delivered again. The turn or outcome it would take here is for a delivery that can be settled.
        if !job.ticket.is_live() {
            Counters::add(&self.counters.stale);
            job.give_back(stopping());
            return Tried::Done;
        }
        match self.settings.running.enter(&job.envelope, job.redelivered, job.ticket.shared_epoch()) {
            Entered::Run(turn) => {
                job.turn = Some(turn);
                Tried::Runs(job)
            }
            Entered::Ended(turn, handled) => {
                Counters::add(&self.counters.joined);
                job.take(turn, handled);
                Tried::Done
            }
            waiting @ Entered::Joined(_) => {
                Counters::add(&self.counters.joined);
                Tried::Waits(job, waiting)
            }
            waiting @ Entered::After(_) => Tried::Waits(job, waiting),
        }
    }

    /// Waits for the run of another delivery. Returns the job if that run did not take place or is settled, `None` if the job has
    /// its outcome. Of several waiting jobs one runs, and the others wait again.
    async fn wait(&self, mut job: Job, mut waiting: Entered) -> Option<Job> {
        loop {
            match waiting {
                Entered::Joined(outcome) => {
                    if let Ok((turn, handled)) = outcome.await {
                        job.take(turn, handled);
                        return None;
                    }
                }
                // Nothing is ever sent: the channel closes when the run ends.
                Entered::After(end) => drop(end.await),
                Entered::Run(_) | Entered::Ended(..) => {}
            }
            match self.try_enter(job) {
                Tried::Runs(job) => return Some(job),
                Tried::Done => return None,
                Tried::Waits(again, for_what) => (job, waiting) = (again, for_what),
            }
        }
    }

    /// The job if it is to be handled. While it waits for another delivery of the same message, no job behind it begins.
    async fn enter_in_order(&self, job: Job) -> Option<Job> {
        match self.try_enter(job) {
            Tried::Runs(job) => Some(job),
            Tried::Done => None,
            Tried::Waits(job, waiting) => self.wait(job, waiting).await,
        }
    }

    /// The job if it is to be handled now. If it must wait for another delivery of the same message, it waits beside the lane.
    fn enter(self: &Rc<Self>, row: &Rc<Row>, job: Job, slots: &Slots) -> Option<Job> {
        match self.try_enter(job) {
            Tried::Runs(job) => return Some(job),
            Tried::Done => {}
            Tried::Waits(job, waiting) => self.enter_later(row, job, waiting, slots.clone()),
        }
        None
    }

    /// Waits beside the lane for another delivery of the same message.
    pub(super) fn enter_later(self: &Rc<Self>, row: &Rc<Row>, job: Job, waiting: Entered, slots: Slots) {
        let (core, row) = (Rc::clone(self), Rc::clone(row));
        actix_rt::spawn(async move {
            let Some(job) = core.wait(job, waiting).await else { return };
            let slots = (!row.is_exclusive()).then_some(slots);
            core.handle_caught(row, job, None, slots, LaneTurn::default()).await;
        });
    }
}

/// What to do with a job that has its handler.
pub(super) enum Tried {
    /// It runs now.
    Runs(Job),
    /// It has its outcome, or was given back.
    Done,
    /// It waits for another delivery of the same message.
    Waits(Job, Entered),
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use tokio::sync::mpsc;
    use tokio::time::sleep;

    use super::*;
    use crate::host::deliver::{Arrival, Deliver, Ticket};
    use crate::message::{Envelope, Key, MediaType};

    fn arrival(number: u64, done: &mpsc::Sender<crate::host::Finished>) -> Arrival {
        let key = Key::new("alpha.do").unwrap_or_else(|error| panic!("{error}"));
        Arrival {
            envelope: Envelope::new(Kind::Command, key, MediaType::JSON, bytes::Bytes::new()).into(),
            redelivered: false,
            waited_for_until: None,
            skewed_for: Duration::ZERO,
            condemned: false,
            ticket: Ticket::new(number, None, done.clone()),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_panics_is_a_problem_gives_back_what_it_held_and_goes_on_with_what_waits() {
        let (mailbox, queue) = mpsc::channel(4);
        let (done, mut finished) = mpsc::channel(4);
        let arrivals = vec![arrival(1, &done), arrival(2, &done)];
        assert!(mailbox.send(Deliver { lane: Lane::Durable, arrivals }).await.is_ok());
        let (tasks, jobs) = (Tasks::default(), Cell::new(0));
        let waiting = Waiting::new(Lane::Durable, queue);
        let lane = keep(tasks.clone(), "lane".into(), waiting, async |waiting| {
            while let Some(job) = waiting.next().await {
                jobs.set(jobs.get() + 1);
                assert!(jobs.get() > 1, "the first one");
                job.give_back(stopping());
            }
        });
        let watch = async {
            while tasks.problems().is_empty() {
                sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(tasks.problems(), ["lane: panicked and is started again: the first one"]);
            assert!(mailbox.send(Deliver { lane: Lane::Durable, arrivals: vec![arrival(3, &done)] }).await.is_ok());
            drop(mailbox);
        };
        tokio::join!(lane, watch);
        assert!(tasks.problems().is_empty());
        drop(done);
        let mut numbers = Vec::new();
        while let Some(finished) = finished.recv().await {
            numbers.push(finished.number);
        }
        assert_eq!(numbers, [1, 2, 3]);
    }
}
