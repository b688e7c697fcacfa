//! One lane of an actor: takes the lock in delivery order, and only its head waits for it.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use futures::FutureExt;
use futures::future::{LocalBoxFuture, join_all};
use postrider_grammar::NextAttempt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::broker::BrokerError;
use crate::bus::{Counters, Outlet, SendError};
use crate::handler::{Asked, Envelopes, Failed, FailureClass, Lane, Outcome, Row};
use crate::host::attempt::Job;
use crate::host::core::{Again, Core};
use crate::host::deliver::{Deliver, Made};
use crate::host::limit::{Slot, Slots};
use crate::host::running::Entered;
use crate::host::state::Guard;
use crate::host::waiting::{Batch, Waiting};
use crate::message::{Kind, Problem, is_logged};

/// Everything that a handler sent is on its way; the first error if one is not taken.
type Sends = LocalBoxFuture<'static, Result<(), SendError>>;

/// Runs a lane until its mailbox is gone.
pub(super) async fn run<S: 'static>(core: Rc<Core<S>>, lane: Lane, queue: mpsc::Receiver<Deliver>) {
    let mut waiting = Waiting::new(lane, queue);
    let mut slots = Slots::new(core.settings.concurrency.clone());
    let mut batch = Batch::none();
    while let Some(mut job) = waiting.next().await {
        if let Some(outcome) = core.answer_without_handler(&job) {
            job.finish(outcome);
            batch.pass();
            continue;
        }
        let found = core.table.find(job.lane, job.envelope.kind, job.envelope.key.as_str()).map(Rc::clone);
        let Some(row) = found else {
            Counters::add(&core.counters.no_handler);
            let outcome = no_handler(&job);
            job.finish(outcome);
            batch.pass();
            continue;
        };
        job.made.handler = Some(row.index);
        let Some(job) = core.enter(&row, job, &slots) else {
            batch.pass();
            continue;
        };
        // An ordered actor finishes one message before it begins the next, whatever its handler takes.
        if row.is_exclusive() || core.settings.ordered {
            batch.end();
            Rc::clone(&core).drive_caught(row, job, None, None).await;
            continue;
        }
        if core.state.is_broken() {
            batch.end();
        }
        let guard = match batch.take(Guard::share) {
            Some(guard) => guard,
            None => match core.lock(&row).await {
                Some(guard) => {
                    batch.begin(guard.share(), waiting.count());
                    guard
                }
                None => {
                    job.finish(stopping());
                    continue;
                }
            },
        };
        // Lock first, then the place, here and at every retry: who has a place never waits for the lock.
        let place = Place { slot: slots.take().await, slots: slots.clone() };
        actix_rt::spawn(Rc::clone(&core).drive_caught(row, job, Some(guard), Some(place)));
    }
}

/// The outcome of what this build does not handle.
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

/// A place among the handlers that run at once, and where the next one is had.
struct Place {
    slot: Slot,
    slots: Slots,
}

pub(super) fn stopping() -> Outcome {
    Outcome::failed(FailureClass::Shutdown, "shutdown", "the app stops")
}

impl<S: 'static> Core<S> {
    /// The state for a row; `None` when the app drops what runs.
    async fn lock(&self, row: &Row<S>) -> Option<Guard<S>> {
        // Mostly nobody has it; then nobody is to be woken either.
        if let Some(guard) = self.state.try_lock(row.is_exclusive()) {
            return Some(guard);
        }
        tokio::select! {
            biased;
            () = self.abandon.cancelled() => None,
            guard = self.state.lock(row.is_exclusive()) => Some(guard),
        }
    }

    /// The job, unless another delivery of the same message is being handled: then it takes that one's outcome.
    fn enter(self: &Rc<Self>, row: &Rc<Row<S>>, mut job: Job, slots: &Slots) -> Option<Job> {
        // Queries have no effect that could happen twice, and an instance's events come once.
        if job.lane != Lane::Durable {
            return Some(job);
        }
        // It comes again, and what it would take here is for the one that can be settled.
        if !job.ticket.is_live() {
            Counters::add(&self.counters.stale);
            job.finish(stopping());
            return None;
        }
        match self.settings.running.enter(&job.envelope, job.redelivered, job.ticket.shared_epoch()) {
            Entered::Run(turn) => {
                job.turn = Some(turn);
                return Some(job);
            }
            Entered::Ended(outcome, made) => {
                Counters::add(&self.counters.joined);
                job.made = made;
                job.finish(outcome);
            }
            Entered::Joined(waiting) => {
                Counters::add(&self.counters.joined);
                actix_rt::spawn(Rc::clone(self).join(Rc::clone(row), job, waiting, slots.clone(), true));
            }
            Entered::After(waiting) => {
                actix_rt::spawn(Rc::clone(self).join(Rc::clone(row), job, waiting, slots.clone(), false));
            }
        }
        None
    }

    async fn join(
        self: Rc<Self>,
        row: Rc<Row<S>>,
        mut job: Job,
        waiting: oneshot::Receiver<(Outcome, Made)>,
        slots: Slots,
        takes_outcome: bool,
    ) {
        if let Ok((outcome, made)) = waiting.await
            && takes_outcome
        {
            job.made = made;
            return job.finish(outcome);
        }
        // That run did not take place; of several that waited for it one runs, and the others wait again.
        if let Some(job) = self.enter(&row, job, &slots) {
            self.again(row, job, Some(slots)).await;
        }
    }

    /// [`Core::drive`], with a panic of whatever it drops caught: a lane must not end while its mailbox lives.
    async fn drive_caught(self: Rc<Self>, row: Rc<Row<S>>, job: Job, guard: Option<Guard<S>>, place: Option<Place>) {
        let driven = AssertUnwindSafe(Rc::clone(&self).drive(row, job, guard, place)).catch_unwind().await;
        if driven.is_err() {
            self.state.mark_broken();
            if is_logged("a delivery was dropped by a panic outside its handler", self.settings.actor) {
                tracing::error!(
                    actor = self.settings.actor,
                    "a delivery was dropped by a panic outside its handler; it is given back"
                );
            }
        }
    }

    /// All attempts in place. Returns when the handler has run for the last time and what it sent is on its way in
    /// order, so that the lane can go on; confirms are awaited beside it, unless the actor is ordered.
    async fn drive(
        self: Rc<Self>,
        row: Rc<Row<S>>,
        mut job: Job,
        mut guard: Option<Guard<S>>,
        mut place: Option<Place>,
    ) {
        let mut slots = place.as_ref().map(|place| place.slots.clone());
        // Bounded by the retry policy, and for what does not count by the life of the delivery's channel.
        loop {
            let mut held_guard = match guard.take() {
                Some(guard) => guard,
                None => match self.lock(&row).await {
                    Some(guard) => guard,
                    None => return job.finish(stopping()),
                },
            };
            let slot = match (place.take(), &mut slots) {
                (Some(place), _) => Some(place.slot),
                (None, Some(slots)) => Some(slots.take().await),
                (None, None) => None,
            };
            let (outcome, held) = self.attempt(&row, &mut held_guard, &job).await;
            drop(slot);
            if held.is_empty() {
                drop(held_guard);
                if !self.pause_before_another(&outcome, &mut job).await {
                    return self.end(job, outcome);
                }
                continue;
            }
            let mut sends = self.publish(held);
            // The first poll puts them into the channel's order, whatever the task's budget is.
            let sent = tokio::task::unconstrained(async { futures::poll!(&mut sends) }).await;
            let sent = match sent {
                Poll::Ready(sent) => sent,
                Poll::Pending if self.settings.ordered => sends.await,
                Poll::Pending => {
                    drop(held_guard);
                    actix_rt::spawn(Rc::clone(&self).confirm(row, job, outcome, sends, slots));
                    return;
                }
            };
            drop(held_guard);
            let outcome = judge(outcome, sent);
            if !self.pause_before_another(&outcome, &mut job).await {
                return self.end(job, outcome);
            }
        }
    }

    /// The last attempt has ended. Where the actor stops at what it would give up, nothing after it begins.
    fn end(&self, mut job: Job, outcome: Outcome) {
        let policy = job.made.handler.and_then(|index| self.settings.policies.get(index));
        if let (Outcome::Failed(failed), Some(policy)) = (&outcome, policy) {
            let next = policy.after(failed.class, job.made.attempt, 0.0);
            if matches!(next, NextAttempt::InPlace(_)) {
                // Cut short: the redelivery has the rest of the attempts.
                job.turn = None;
            }
            let answered = failed.class == FailureClass::Rejected && Asked::of(&job.envelope) == Asked::Reply;
            let of_the_moment = matches!(failed.class, FailureClass::Shutdown | FailureClass::Infrastructure);
            let given_up = next == NextAttempt::None && !policy.discard.contains(&failed.class);
            if self.settings.stops_at_poison && job.lane == Lane::Durable && given_up && !answered && !of_the_moment {
                // It is tried again when somebody has mended the cause.
                job.turn = None;
                job.ticket.stop_lane();
            }
        }
        job.finish(outcome);
    }

    fn publish(&self, mut held: Envelopes) -> Sends {
        let deadline = Instant::now() + self.settings.confirm_timeout;
        let outlet = Arc::clone(&self.bus.outlet);
        match held.pop() {
            Some(only) if held.is_empty() => {
                let sent = outlet.publish(only, deadline);
                Box::pin(async move { explained(sent.await, &outlet).await })
            }
            last => {
                let sends = held.into_iter().chain(last).map(|envelope| outlet.publish(envelope, deadline));
                let sends = join_all(sends);
                Box::pin(async move { explained(sends.await.into_iter().collect(), &outlet).await })
            }
        }
    }

    /// Awaits the confirms of what a handler sent. If one fails, so has the attempt.
    async fn confirm(
        self: Rc<Self>,
        row: Rc<Row<S>>,
        mut job: Job,
        outcome: Outcome,
        sends: Sends,
        slots: Option<Slots>,
    ) {
        let outcome = judge(outcome, sends.await);
        if !self.pause_before_another(&outcome, &mut job).await {
            return self.end(job, outcome);
        }
        self.again(row, job, slots).await;
    }

    /// Lock first, then the place, then the handler.
    async fn again(self: Rc<Self>, row: Rc<Row<S>>, job: Job, slots: Option<Slots>) {
        let Some(guard) = self.lock(&row).await else { return job.finish(stopping()) };
        let place = match slots.filter(|_| !row.is_exclusive()) {
            Some(mut slots) => Some(Place { slot: slots.take().await, slots }),
            None => None,
        };
        let again: LocalBoxFuture<'static, ()> = Box::pin(self.drive_caught(row, job, Some(guard), place));
        again.await;
    }

    /// Whether there is another attempt, after its pause.
    async fn pause_before_another(&self, outcome: &Outcome, job: &mut Job) -> bool {
        self.count(outcome);
        if !matches!(outcome, Outcome::Failed(_)) {
            return false;
        }
        let stopping = self.stopping.is_cancelled() && !job.ticket.is_acked();
        if stopping || !job.ticket.is_live() {
            return false;
        }
        let asked = Asked::of(&job.envelope);
        let (Some(policy), in_place) =
            (job.made.handler.and_then(|index| self.settings.policies.get(index)), self.settings.in_place)
        else {
            return false;
        };
        let pause = match in_place(outcome, asked, job.made.attempt, job.uncounted, policy) {
            Again::No => return false,
            Again::After(pause) => {
                job.made.attempt += 1;
                if let Outcome::Failed(failed) = outcome
                    && job.made.first_error.is_none()
                {
                    job.made.first_error = Some(failed.in_short().into());
                }
                pause
            }
            Again::Uncounted(pause) => {
                job.uncounted += 1;
                pause
            }
        };
        Counters::add(&self.counters.retried);
        tokio::select! {
            // What is acknowledged already has no other place to be tried again.
            () = self.stopping.cancelled(), if !job.ticket.is_acked() => false,
            () = self.abandon.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    fn count(&self, outcome: &Outcome) {
        let counters = &self.counters;
        let Outcome::Failed(failed) = outcome else {
            Counters::add(if outcome.is_done() { &counters.handled } else { &counters.expired });
            return;
        };
        Counters::add(match failed.class {
            FailureClass::Rejected => &counters.rejected,
            FailureClass::Permanent => &counters.failed_permanent,
            FailureClass::Transient => &counters.failed_transient,
            FailureClass::Panic => &counters.panicked,
            FailureClass::TimedOut => &counters.timed_out,
            FailureClass::Infrastructure => &counters.infrastructure,
            FailureClass::Undecodable => &counters.undecodable,
            FailureClass::NoHandler => &counters.no_handler,
            // Not the outcome of an attempt.
            FailureClass::Shutdown | FailureClass::CrashSuspected => return,
        });
    }
}

async fn explained(sent: Result<(), SendError>, outlet: &Outlet) -> Result<(), SendError> {
    match sent {
        Ok(()) => Ok(()),
        Err(error) => Err(outlet.explained(error).await),
    }
}

/// The outcome of an attempt whose messages were published: its own if all are accepted.
fn judge(outcome: Outcome, sent: Result<(), SendError>) -> Outcome {
    let Err(error) = sent else { return outcome };
    let class = match &error {
        // The owner may only not have started yet.
        SendError::Unroutable { .. } => FailureClass::Transient,
        SendError::Rejected { .. } | SendError::Unknown { .. } => FailureClass::Infrastructure,
        SendError::Broker(BrokerError::Stopped) => FailureClass::Shutdown,
        SendError::Broker(error) if !error.is_permanent() => FailureClass::Infrastructure,
        _ => FailureClass::Permanent,
    };
    let problem = Problem::new(Problem::FAILED, "what the service sent could not be delivered; its log says why");
    Outcome::Failed(Failed { class, problem, log: format!("what the handler sent failed: {error}") })
}
