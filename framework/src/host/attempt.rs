//! One attempt: check, extract, run, catch. The only place that runs handlers.

use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use futures::future::LocalBoxFuture;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::broker::unreadable_because;
use crate::bus::Counters;
use crate::codec;
use crate::handler::{
    Asked, Envelopes, Failed, FailureClass, Hindered, HoldsUp, Invocation, Lane, Lending, Next, Outcome, OwnRequest,
    Reply, Row, Run, Runs, Work,
};
use crate::host::core::Core;
use crate::host::deliver::{Arrival, Ticket};
use crate::host::handled::{AttemptRecord, Handled};
use crate::host::running::Turn;
use crate::host::state::Guard;
use crate::host::verdict::{End, Settlement};
use crate::message::{Envelope, Kind, MediaType, Problem, is_logged};
use crate::store::Session;

/// The key of the liveness query that every service answers.
pub(super) const PING: &str = "ping";

/// A delivery on its way through its attempts.
pub(super) struct Job {
    pub(super) lane: Lane,
    pub(super) envelope: Arc<Envelope>,
    pub(super) redelivered: bool,
    pub(super) waited_for_until: Option<Instant>,
    pub(super) skewed_for: Duration,
    pub(super) condemned: bool,
    /// Whether a handler of this actor waits for its answer. It runs beside that handler, shares its state and takes no slot.
    pub(super) nested: bool,
    pub(super) ticket: Ticket,
    /// The right to handle it.
    pub(super) turn: Option<Turn>,
    pub(super) made: AttemptRecord,
}

impl Job {
    pub(super) fn new(lane: Lane, arrival: Arrival) -> Self {
        let Arrival { envelope, redelivered, waited_for_until, skewed_for, condemned, ticket } = arrival;
        let made = AttemptRecord { attempt: envelope.attempt, ..AttemptRecord::default() };
        Self {
            lane,
            made,
            envelope,
            redelivered,
            waited_for_until,
            skewed_for,
            condemned,
            nested: false,
            ticket,
            turn: None,
        }
    }

    /// Ends the handling and reports the settlement.
    pub(super) fn finish(self, outcome: Outcome, settlement: Settlement) {
        let Self { made, turn, ticket, .. } = self;
        // A message that is given back was not handled to its end, so its turn ends here.
        let turn = turn.filter(|_| settlement.end != End::GiveBack);
        ticket.finish(Handled { outcome, made, settlement }, turn);
    }

    /// Gives the delivery back: it was not handled to its end.
    pub(super) fn give_back(self, outcome: Outcome) {
        drop(self.turn);
        self.ticket.finish(Handled::given_back(outcome, self.made), None);
    }

    /// Takes the outcome of another delivery of the same message, to settle this delivery with it.
    pub(super) fn take(self, turn: Turn, handled: Handled) {
        self.ticket.finish(handled, Some(turn));
    }

    /// How long the caller still waits, if it said.
    fn patience_left(&self) -> Option<Duration> {
        self.waited_for_until.map(|until| until.saturating_duration_since(Instant::now()))
    }
}

/// What an attempt leaves behind.
pub(super) struct Attempted {
    pub(super) outcome: Outcome,
    /// The messages of a handler that succeeded.
    pub(super) sends: Envelopes,
    /// Its transaction, still open.
    pub(super) session: Option<Box<dyn Session>>,
    /// What its error said, if the database is why it failed.
    pub(super) hindered: Option<Hindered>,
    /// Whether the handler has asked another one, or tried to.
    pub(super) asked: bool,
    /// Keep it until its messages are sent or its transaction is committed: so long the message is about to end.
    pub(super) runs: Option<Runs>,
}

/// The outcome of a message that does not begin, or is dropped, because the app stops.
pub(super) fn stopping() -> Outcome {
    Outcome::failed(FailureClass::Shutdown, "shutdown", "the app stops")
}

impl Core {
    /// The outcome of deliveries that need neither state nor handler.
    pub(super) fn answer_without_handler(&self, job: &Job) -> Option<Outcome> {
        if self.stopping.is_cancelled() && !job.ticket.is_acked() {
            return Some(stopping());
        }
        let envelope = &job.envelope;
        if !job.nested && self.own_request(job.lane, envelope) == Some(OwnRequest::Behind) {
            return Some(self.would_wait(envelope));
        }
        if let Some(reason) = unreadable_because(&envelope.headers) {
            return Some(Outcome::failed(FailureClass::Undecodable, Problem::UNDECODABLE, reason));
        }
        let is_ping = envelope.kind == Kind::Query && envelope.target.is_some() && envelope.key.as_str() == PING;
        is_ping.then(|| self.pong(&envelope.media_type))
    }

    /// How to treat a message whose answer a handler of this same actor waits for, directly or through other services; `None` if
    /// none waits.
    pub(super) fn own_request(&self, lane: Lane, envelope: &Envelope) -> Option<OwnRequest> {
        // Without a caller that waits, a call path means nothing.
        let waited_for = matches!(Asked::of(envelope), Asked::Reply | Asked::Query);
        if !waited_for || !envelope.call_path.contains(&self.settings.waiter) {
            return None;
        }
        let exclusive = self.table.find(lane, envelope.kind, envelope.key.as_str())?.is_exclusive();
        let judged = self.environment.waiters.judge(envelope, lane, exclusive, &self.environment.own);
        match judged {
            // An ordered actor answers the request when its turn comes, because the waiting handler is in another lane. If a
            // handler waits for exclusive state, it waits for that handler too, and the turn would never come.
            Some(OwnRequest::Beside) if self.settings.ordered => {
                (self.environment.own.writers.get() > 0).then_some(OwnRequest::Behind)
            }
            judged => judged,
        }
    }

    /// The outcome of a request that would wait for itself.
    pub(super) fn would_wait(&self, envelope: &Envelope) -> Outcome {
        let path = envelope.call_path.join(" → ");
        let text = format!("{} waits for the answer already: {path}", self.settings.waiter);
        Counters::add(&self.counters.rejected);
        Outcome::failed(FailureClass::Rejected, Problem::WOULD_WAIT, text)
    }

    fn pong(&self, asked: &MediaType) -> Outcome {
        let identity = &self.bus.identity;
        let answer = [("service", identity.service.as_str()), ("instance", identity.instance.as_str())];
        let answer: std::collections::BTreeMap<_, _> = answer.into_iter().collect();
        let media_type = if codec::Codec::for_media_type(asked) == Some(codec::Codec::Json) {
            MediaType::JSON
        } else {
            MediaType::MSGPACK
        };
        match codec::encode(&answer, &media_type, &identity.limits) {
            Ok(payload) => Outcome::Done(Some(Reply { media_type, payload })),
            Err(error) => Outcome::failed(FailureClass::Permanent, Problem::FAILED, error.to_string()),
        }
    }

    /// Runs the handler once, perhaps with an open transaction, which comes back with the outcome. If it succeeds, its held messages
    /// come back too.
    pub(super) async fn attempt(&self, row: &Row, guard: &mut Guard, job: &Job, lending: Option<Lending>) -> Attempted {
        let patience = job.patience_left();
        if patience.is_some_and(|left| left.is_zero()) {
            let session = lending.map(|lending| lending.session);
            let (outcome, sends, hindered) = (Outcome::Expired, Vec::new(), None);
            return Attempted { outcome, sends, session, hindered, asked: false, runs: None };
        }
        let mut envelope = Arc::clone(&job.envelope);
        if envelope.attempt != job.made.attempt {
            Arc::make_mut(&mut envelope).attempt = job.made.attempt;
        }
        let epoch = job.ticket.epoch();
        // After a partition another instance may handle the same message of an ordered actor. The handler can stop when this
        // token fires.
        let ends = epoch.filter(|_| self.settings.ordered).map(|epoch| epoch.ended().clone());
        let message = Arc::clone(&job.envelope);
        if !job.envelope.call_path.is_empty() {
            self.environment.waiters.begins(&job.envelope.id);
        }
        let holds_up = HoldsUp { lane: job.lane, exclusive: row.is_exclusive() };
        let work = Work::new(Rc::clone(&self.environment), message, holds_up, ends);
        // If it fails in a shared commit, it is handled again alone, and its failure is logged then.
        let is_trial = lending.as_ref().is_some_and(|lending| lending.shared);
        if let Some(lending) = lending {
            work.lend(lending);
        }
        let mut invocation = Invocation::new(envelope, row.spec, work);
        let span = self.span(row, job, &invocation);
        let limit = patience.map_or(self.settings.timeout, |left| left.min(self.settings.timeout));
        // A query whose channel has closed is delivered again, so its answer is of no use.
        let drop_when = epoch.filter(|_| job.lane == Lane::Query).map_or(&self.abandon, |epoch| epoch.ended());
        // A nested one is counted from its arrival on.
        let runs = (!job.nested).then(|| self.environment.waiters.run(job.lane));
        let outcome = self.guarded(row, guard, &mut invocation, limit, drop_when).instrument(span.clone()).await;
        span.record("outcome", outcome.as_str());
        if let Outcome::Failed(Failed { class, log, .. }) = &outcome
            && !is_trial
            && is_logged("attempt failed", self.settings.actor)
        {
            let _entered = span.enter();
            tracing::warn!(class = class.as_str(), handler = %row.spec, error = %log, "attempt failed");
        }
        let held = invocation.take_held();
        let sends = if outcome.is_done() { held } else { Vec::new() };
        let work = invocation.work();
        let (session, hindered, asked) = (work.take_back(), work.hindered(), work.has_asked());
        Attempted { outcome, sends, session, hindered, asked, runs }
    }

    fn span(&self, row: &Row, job: &Job, invocation: &Invocation) -> tracing::Span {
        let identity = &self.bus.identity;
        tracing::info_span!(
            "handle",
            service = identity.service.as_str(),
            actor = self.settings.actor,
            handler = row.spec.method,
            key = job.envelope.key.as_str(),
            kind = job.envelope.kind.as_str(),
            message_id = job.envelope.id.as_str(),
            attempt = job.made.attempt,
            trace = %invocation.work().origin().trace,
            outcome = tracing::field::Empty,
        )
    }

    /// Runs the handler until it ends, panics, times out, or `drop_when` fires.
    async fn guarded(
        &self,
        row: &Row,
        guard: &mut Guard,
        invocation: &mut Invocation,
        limit: Duration,
        drop_when: &CancellationToken,
    ) -> Outcome {
        let exclusive = row.is_exclusive();
        let handler = self.watch.watched(&row.spec, self.run(row, guard, invocation));
        let mut handler = AssertUnwindSafe(handler).catch_unwind();
        let dropped = || {
            if exclusive || self.abandon.is_cancelled() {
                self.state.mark_broken();
            }
            stopping()
        };
        // Most handlers end at the first poll. They need neither a timer nor a wait for `drop_when`.
        let at_once = if drop_when.is_cancelled() { Err(dropped()) } else { Ok(futures::poll!(&mut handler)) };
        let ended = match at_once {
            Err(outcome) => Err(outcome),
            Ok(Poll::Ready(ended)) => Ok(Some(ended)),
            Ok(Poll::Pending) => tokio::select! {
                biased;
                () = drop_when.cancelled() => Err(dropped()),
                ended = tokio::time::timeout(limit, &mut handler) => Ok(ended.ok()),
            },
        };
        let outcome = match ended {
            Err(outcome) | Ok(Some(Ok(outcome))) => outcome,
            Ok(Some(Err(panic))) => {
                self.state.mark_broken();
                let log = format!("the handler panicked: {}", panic_text(&*panic));
                let problem = Problem::new(Problem::PANICKED, "the handler panicked; the service's log says where");
                Outcome::Failed(Failed { class: FailureClass::Panic, problem, log })
            }
            Ok(None) => {
                // A dropped `&mut self` handler may leave the state half changed.
                if exclusive {
                    self.state.mark_broken();
                }
                let text = format!("the handler did not finish within {limit:?}");
                Outcome::failed(FailureClass::TimedOut, Problem::TIMED_OUT, text)
            }
        };
        // Dropping the handler's values may panic.
        if std::panic::catch_unwind(AssertUnwindSafe(|| drop(handler))).is_err() {
            self.state.mark_broken();
            if is_logged("dropping what the handler held panicked", self.settings.actor) {
                tracing::error!(handler = %row.spec, "dropping what the handler held panicked");
            }
        }
        outcome
    }

    fn run<'a>(
        &'a self,
        row: &'a Row,
        guard: &'a mut Guard,
        invocation: &'a mut Invocation,
    ) -> LocalBoxFuture<'a, Outcome> {
        let middleware = &self.middleware[..];
        match (guard, &row.run) {
            (Guard::Exclusive(state), run) => match (state.as_mut(), run) {
                (Some(state), Run::Exclusive(run)) if middleware.is_empty() => run(state, invocation),
                (Some(state), run) => Box::pin(Next::exclusive(middleware, run, state).run(invocation)),
                (None, _) => no_state(),
            },
            (Guard::Shared(state), run) => match ((***state).as_ref(), run) {
                (Some(state), Run::Shared(run)) if middleware.is_empty() => run(state, invocation),
                (Some(state), run) => Box::pin(Next::shared(middleware, run, state).run(invocation)),
                (None, _) => no_state(),
            },
        }
    }
}

/// Unreachable, since the lock is only handed out with a state. If it happens, the message is given back.
fn no_state<'a>() -> LocalBoxFuture<'a, Outcome> {
    Box::pin(async { Outcome::failed(FailureClass::Infrastructure, Problem::FAILED, "the actor has no state") })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("with a value that is no text")
}
