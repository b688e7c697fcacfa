//! The unit of handling: what happens to one message, from top to bottom.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::task::Poll;

use futures::FutureExt;
use futures::future::{LocalBoxFuture, join_all};

use crate::broker::BrokerError;
use crate::bus::{Counters, SendError};
use crate::handler::{Asked, Envelopes, Failed, FailureClass, Lane, Outcome, Row};
use crate::host::attempt::{Attempted, Job, stopping};
use crate::host::core::Core;
use crate::host::limit::{Slot, Slots};
use crate::host::once::Unit;
use crate::host::state::Guard;
use crate::host::store_trouble::StoreTrouble;
use crate::host::verdict::{Case, End, Settlement, Verdict, verdict};
use crate::message::{Problem, is_logged};

/// What a handler holds while it runs: the state, and its slot among the handlers that run at once.
pub(super) struct Begun {
    pub(super) guard: Guard,
    pub(super) slot: Option<Slot>,
}

/// Set when a lane that begins messages one after the other may begin the next one.
#[derive(Clone, Default)]
pub(super) struct LaneTurn(Rc<Cell<bool>>);

/// Resolves when all of a handler's messages are taken, or else to the first error.
type Sends = LocalBoxFuture<'static, Result<(), SendError>>;

impl Core {
    /// Handles a message and returns when the next one may begin: when it is done, or when its sends have their place on the
    /// channel and only the confirms are missing. An ordered actor waits for the confirms too.
    pub(super) async fn handle_in_turn(self: &Rc<Self>, row: Rc<Row>, job: Job) {
        let turn = LaneTurn::default();
        let mut handling = Box::pin(Rc::clone(self).handle_caught(row, job, None, None, turn.clone()));
        let is_done = poll_fn(|cx| match handling.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if turn.0.get() => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        });
        if !is_done.await {
            actix_rt::spawn(handling);
        }
    }

    /// [`Core::handle`], which also catches a panic outside the handler: a lane must not end while its mailbox lives.
    pub(super) fn handle_caught(
        self: Rc<Self>,
        row: Rc<Row>,
        job: Job,
        begun: Option<Begun>,
        slots: Option<Slots>,
        turn: LaneTurn,
    ) -> impl Future<Output = ()> {
        let core = Rc::clone(&self);
        // Not an `async fn`, which would store and move the work twice.
        AssertUnwindSafe(self.handle(row, job, begun, slots, turn)).catch_unwind().map(move |caught| {
            core.unless_panicked(caught);
        })
    }

    /// Catches a panic outside the handlers. The deliveries that it drops are given back.
    pub(super) async fn caught<T>(&self, work: impl Future<Output = T> + Unpin) -> Option<T> {
        self.unless_panicked(AssertUnwindSafe(work).catch_unwind().await)
    }

    /// The result, unless there was a panic outside the handlers: then the state is made again.
    pub(super) fn unless_panicked<T>(&self, caught: std::thread::Result<T>) -> Option<T> {
        if caught.is_err() {
            self.state.mark_broken();
            if is_logged("a delivery was dropped by a panic outside its handler", self.settings.actor) {
                tracing::error!(
                    actor = self.settings.actor,
                    "a delivery was dropped by a panic outside its handler; it is given back"
                );
            }
        }
        caught.ok()
    }

    /// Makes all attempts in place: begins, runs the handler, sends its messages, and asks the policy what comes next.
    async fn handle(
        self: Rc<Self>,
        row: Rc<Row>,
        mut job: Job,
        mut begun: Option<Begun>,
        mut slots: Option<Slots>,
        turn: LaneTurn,
    ) {
        let unit = self.unit(&row, job.lane);
        let mut trouble = None;
        // Bounded by the retry policy, and by how long a message waits for its store.
        loop {
            let held = match begun.take() {
                Some(begun) => Some(begun),
                None => self.begin(&row, &job, slots.as_mut()).await,
            };
            // The app may have stopped, or the channel closed, during the wait.
            let Some(mut held) = held.filter(|_| self.may_begin(&job)) else { return job.give_back(stopping()) };
            let (outcome, verdict) = match unit {
                None => {
                    let Attempted { outcome, sends, runs, .. } = self.attempt(&row, &mut held.guard, &job, None).await;
                    held.slot = None;
                    let outcome = self.send(&job, outcome, sends, held, &turn).await;
                    drop(runs);
                    let verdict = self.verdict(&outcome, &job);
                    (outcome, verdict)
                }
                Some(unit) => {
                    let trouble = trouble.get_or_insert_with(StoreTrouble::default);
                    // Boxed, so that handling a message without a store does not move what only a store needs.
                    match Box::pin(self.commit_attempt(&row, held, &job, unit, trouble)).await {
                        Some(judged) => judged,
                        None => continue,
                    }
                }
            };
            self.count(&outcome);
            match verdict {
                Verdict::Settle(settlement) => return self.settle(job, outcome, settlement),
                Verdict::Again(pause) => {
                    Counters::add(&self.counters.retried);
                    if !self.pause(pause, &job).await {
                        // Interrupted: the next consumer makes the remaining attempts.
                        return job.give_back(outcome);
                    }
                    job.made.next(&outcome);
                }
            }
        }
    }

    /// One attempt with a store, up to its commit. `None` if the store did not do its work and the attempt is made again.
    async fn commit_attempt(
        &self,
        row: &Row,
        mut held: Begun,
        job: &Job,
        unit: Unit,
        trouble: &mut StoreTrouble,
    ) -> Option<(Outcome, Verdict)> {
        let committed = self.attempt_once(row, &mut held.guard, job, unit, trouble).await;
        let judged = match committed {
            Ok(outcome) => {
                let verdict = self.verdict(&outcome, job);
                self.note_refusal(unit, job, &outcome, verdict).await.map(|()| (outcome, verdict))
            }
            Err(error) => Err(error),
        };
        drop(held);
        match judged {
            Ok(judged) => Some(judged),
            Err(error) => {
                let outcome = self.wait_for_store(trouble, error, job).await.err()?;
                let verdict = self.verdict(&outcome, job);
                Some((outcome, verdict))
            }
        }
    }

    /// Lock order: the state before a slot, here and everywhere. A task that holds a slot must not wait for the state. `None`
    /// when the message may no longer begin.
    async fn begin(&self, row: &Row, job: &Job, slots: Option<&mut Slots>) -> Option<Begun> {
        let guard = self.lock(row, job).await?;
        let slot = match slots {
            Some(slots) => Some(slots.take().await),
            None => None,
        };
        Some(Begun { guard, slot })
    }

    /// Locks the state for a row. `None` when the app stops, or, for an acknowledged delivery, when running handlers are dropped.
    pub(super) async fn lock(&self, row: &Row, job: &Job) -> Option<Guard> {
        // The waiting handler shares the state already. The request takes the same guard, so that no waiting writer comes in
        // between.
        if let Some(guard) = self.state.shared().filter(|_| job.nested && !row.is_exclusive()) {
            return Some(guard);
        }
        // The lock is mostly free. Taking it then wakes no task.
        if let Some(guard) = self.state.try_lock(row.is_exclusive()) {
            return Some(guard);
        }
        // An acknowledged message is not delivered again, so it must be handled here.
        let stops = if job.ticket.is_acked() { &self.abandon } else { &self.stopping };
        tokio::select! {
            biased;
            () = stops.cancelled() => None,
            guard = self.state.lock(row.is_exclusive()) => Some(guard),
        }
    }

    /// Whether an attempt may begin: not when the delivery can no longer be settled, and not while the app stops, unless the
    /// delivery is acknowledged already.
    pub(super) fn may_begin(&self, job: &Job) -> bool {
        if !job.ticket.is_live() {
            Counters::add(&self.counters.stale);
            return false;
        }
        job.ticket.is_acked() || !self.stopping.is_cancelled()
    }

    /// Sends the messages of a handler that succeeded. If one is not taken in the end, the attempt has failed.
    async fn send(&self, job: &Job, outcome: Outcome, sends: Envelopes, held: Begun, turn: &LaneTurn) -> Outcome {
        if sends.is_empty() {
            return outcome;
        }
        let mut sends = self.publish(job, sends);
        // The first poll puts the messages into the channel's order. It ignores the task's budget.
        let sent = match tokio::task::unconstrained(async { futures::poll!(&mut sends) }).await {
            Poll::Ready(sent) => sent,
            Poll::Pending if self.settings.ordered => sends.await,
            Poll::Pending => {
                drop(held);
                turn.0.set(true);
                sends.await
            }
        };
        judge(outcome, sent)
    }

    fn publish(&self, job: &Job, mut held: Envelopes) -> Sends {
        // The caller of a query waits, so nothing is sent again.
        let repeats = Asked::of(&job.envelope) != Asked::Query;
        let mut again = repeats.then(|| self.settings.resend.clone());
        if let Some(again) = again.as_mut().filter(|_| job.ticket.is_acked()) {
            // An acknowledged message is not delivered again, so its sends must be finished here.
            again.stopping = self.abandon.clone();
        }
        let (outlet, timeout) = (&self.bus.outlet, self.settings.confirm_timeout);
        match held.pop() {
            Some(only) if held.is_empty() => Box::pin(outlet.publish_held(only, timeout, again)),
            last => {
                let sends = held.into_iter().chain(last);
                let sends = join_all(sends.map(|envelope| outlet.publish_held(envelope, timeout, again.clone())));
                Box::pin(async move { sends.await.into_iter().collect() })
            }
        }
    }

    /// What comes after an attempt with this outcome.
    pub(super) fn verdict(&self, outcome: &Outcome, job: &Job) -> Verdict {
        let settings = &self.settings;
        let policy = job.made.handler.and_then(|index| settings.policies.get(index)).unwrap_or(&settings.policy);
        verdict(&Case {
            outcome,
            asked: Asked::of(&job.envelope),
            attempt: job.made.attempt,
            policy,
            skewed_for: job.skewed_for,
            skew: &settings.skew,
            stops: settings.stops_at_poison && job.lane == Lane::Durable,
            chance: fastrand::f64(),
        })
    }

    /// Settles a delivery that no handler ran for.
    pub(super) fn settle_unhandled(&self, job: Job, outcome: Outcome) {
        match self.verdict(&outcome, &job) {
            Verdict::Settle(settlement) => self.settle(job, outcome, settlement),
            Verdict::Again(_) => job.give_back(outcome),
        }
    }

    fn settle(&self, mut job: Job, outcome: Outcome, settlement: Settlement) {
        if settlement.end == End::Stop {
            job.turn = None;
        }
        // Messages behind it must not begin before it is delivered again.
        if settlement.end == End::Stop || settlement.end == End::GiveBack && self.settings.ordered {
            job.ticket.stop_lane();
        }
        job.finish(outcome, settlement);
    }

    /// Waits out the pause. Returns whether another attempt follows.
    pub(super) async fn pause(&self, pause: std::time::Duration, job: &Job) -> bool {
        // An acknowledged message is not delivered again, so it must be tried again here.
        let stops = if job.ticket.is_acked() { &self.abandon } else { &self.stopping };
        if !job.ticket.is_live() {
            return false;
        }
        tokio::select! {
            biased;
            () = stops.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    pub(super) fn count(&self, outcome: &Outcome) {
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
            FailureClass::NoId | FailureClass::IdReused => &counters.undecodable,
            // Not the outcome of an attempt.
            FailureClass::Shutdown | FailureClass::CrashSuspected => return,
        });
    }
}

/// The outcome of an attempt after its messages were published: unchanged if all were taken.
fn judge(outcome: Outcome, sent: Result<(), SendError>) -> Outcome {
    let Err(error) = sent else { return outcome };
    let class = match &error {
        // The owner may not have started yet.
        SendError::Unroutable { .. } => FailureClass::Transient,
        SendError::Rejected { .. } | SendError::Unknown { .. } => FailureClass::Infrastructure,
        SendError::Broker(BrokerError::Stopped) => FailureClass::Shutdown,
        SendError::Broker(error) if !error.is_permanent() => FailureClass::Infrastructure,
        _ => FailureClass::Permanent,
    };
    let problem = Problem::new(Problem::FAILED, "what the service sent could not be delivered; its log says why");
    Outcome::Failed(Failed { class, problem, log: format!("what the handler sent failed: {error}") })
}
