//! The unit of handling with a store: the handler's writes, what it sends, and that its message was handled are committed
//! together, or not at all.

use std::time::Duration;

use tokio::time::Instant;

use crate::bus::Counters;
use crate::handler::{Envelopes, Failed, FailureClass, Guarantee, Lane, Outcome, Reply, Row};
use crate::host::actor_store::ActorStore;
use crate::host::attempt::{Attempted, Job, stopping};
use crate::host::core::Core;
use crate::host::state::Guard;
use crate::host::verdict::{End, Verdict};
use crate::message::{Problem, is_logged};
use crate::store::{
    Access, Begun, FaultPoint, InboxEntry, OutboxRow, Session, StoreError, StoredAnswer, TransactionLimits, reach,
};
use crate::supervise::Backoff;

/// How often a message is handled again at once because another transaction was in the way. After that the attempt has failed.
const MOST_CONFLICTS: u32 = 5;
/// The first pause while a store does not do its work. Each pause doubles, up to `LAST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause while a store does not do its work.
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How long a delivery waits for its store. After that it goes back to its queue, before the broker takes it back.
const WAIT_FOR: Duration = Duration::from_secs(300);

/// What a message needs of the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    /// Whether the inbox notes it.
    inbox: bool,
    /// Whether the handler takes the transaction.
    lent: bool,
    access: Access,
}

/// What has gone wrong so far with the store while one message is handled.
pub(super) struct StoreTrouble {
    conflicts: u32,
    since: Instant,
    backoff: Backoff,
}

impl Default for StoreTrouble {
    fn default() -> Self {
        Self { conflicts: 0, since: Instant::now(), backoff: Backoff::new(FIRST_PAUSE, LAST_PAUSE) }
    }
}

impl<S: 'static> Core<S> {
    /// What handling a message needs of the store; `None` if it needs none.
    pub(super) fn unit(&self, row: &Row<S>, job: &Job) -> Option<Unit> {
        let store = self.settings.store.as_ref()?;
        // Queries have no effect, and each instance gets a copy of an instance's events.
        let inbox = store.guarantee == Guarantee::EffectivelyOnce && job.lane == Lane::Durable;
        let lent = row.spec.transaction.is_some();
        let access = if job.lane == Lane::Query { Access::Read } else { Access::Write };
        (inbox || lent).then_some(Unit { inbox, lent, access })
    }

    /// One attempt, from the begin of its transaction to the commit.
    ///
    /// # Errors
    /// When the store did not do its work. Nothing of the attempt is left then.
    pub(super) async fn attempt_once(
        &self,
        row: &Row<S>,
        guard: &mut Guard<S>,
        job: &Job,
        unit: Unit,
    ) -> Result<Outcome, StoreError> {
        let Some(store) = &self.settings.store else { return Ok(no_store()) };
        let entry = match unit.inbox.then(|| store.entry(&job.envelope)).transpose() {
            Ok(entry) => entry,
            Err(outcome) => return Ok(outcome),
        };
        let limits = TransactionLimits { lock: store.handle.lock_timeout(), handler: self.settings.timeout };
        let attempted = if unit.lent {
            let mut session = store.session().await?;
            let begun = session.begin(unit.access, entry.as_ref(), limits).await?;
            if let Some(known) = self.known(begun, &mut *session, entry.as_ref(), job).await? {
                store.keep(session);
                return Ok(known);
            }
            if !session_is_open(&mut *session) {
                // The refusal of an earlier run was forgotten, since the message was replayed.
                session.begin(unit.access, entry.as_ref(), limits).await?;
            }
            reach(FaultPoint::Begun);
            let alone = store.handle.store().has_one_writer() && unit.access == Access::Write;
            self.attempt_with(row, guard, job, Some((session, alone))).await
        } else {
            self.attempt_with(row, guard, job, None).await
        };
        reach(FaultPoint::Handled);
        let Attempted { outcome, sends: rows, session: lent, conflict } = attempted;
        if !outcome.is_done() {
            self.undo(&outcome, guard, lent, store).await?;
            return match conflict {
                Some(reason) => Err(StoreError::Conflict { store: store.handle.store().describe().to_owned(), reason }),
                None => Ok(outcome),
            };
        }
        let finished = self.commit(store, &outcome, &rows, lent, entry.as_ref(), limits).await;
        if !matches!(finished, Ok(None)) {
            // What the handler did to the state has no counterpart in the store.
            self.mark_broken_if_changed(guard);
        }
        let finished = match finished {
            Ok(None) => None,
            Ok(Some(begun)) => Some(begun),
            Err(error) => return self.failed_to_commit(error, store, entry.as_ref(), job).await,
        };
        reach(FaultPoint::Committed);
        if !rows.is_empty() {
            store.handle.wake_relay();
        }
        match (finished, entry) {
            (None, _) | (Some(_), None) => Ok(outcome),
            (Some(begun), Some(_)) => Ok(self.outcome_of(begun, job).unwrap_or(outcome)),
        }
    }

    /// Commits what the handler did. `Some` if the message turned out to be known; nothing was written then.
    async fn commit(
        &self,
        store: &ActorStore,
        outcome: &Outcome,
        sends: &Envelopes,
        lent: Option<Box<dyn Session>>,
        entry: Option<&InboxEntry>,
        limits: TransactionLimits,
    ) -> Result<Option<Begun>, StoreError> {
        let answer = answer_of(outcome);
        let rows: Vec<OutboxRow> = sends.iter().map(|envelope| OutboxRow::of(envelope)).collect();
        if let Some(mut session) = lent {
            session.commit(&answer, &rows).await?;
            store.keep(session);
            return Ok(None);
        }
        let mut session = store.session().await?;
        let begun = session.write(entry.map(|entry| (entry, &answer)), &rows, limits).await?;
        store.keep(session);
        Ok((begun != Begun::New).then_some(begun))
    }

    /// What a failed commit means.
    async fn failed_to_commit(
        &self,
        error: StoreError,
        store: &ActorStore,
        entry: Option<&InboxEntry>,
        job: &Job,
    ) -> Result<Outcome, StoreError> {
        match error {
            StoreError::Constraint { .. } | StoreError::Ended { .. } => {
                let problem = Problem::new(Problem::FAILED, "what the service wrote was not kept; its log says why");
                Ok(Outcome::Failed(Failed { class: FailureClass::Transient, problem, log: error.to_string() }))
            }
            StoreError::Unknown { .. } => {
                // The inbox has the message if the commit took place.
                let Some(entry) = entry else { return Err(error) };
                let known = store.session().await?.known(entry).await?;
                known.and_then(|begun| self.outcome_of(begun, job)).ok_or(error)
            }
            other => Err(other),
        }
    }

    /// The outcome of a message that was handled before; `None` if it is to be handled.
    async fn known(
        &self,
        begun: Begun,
        session: &mut dyn Session,
        entry: Option<&InboxEntry>,
        job: &Job,
    ) -> Result<Option<Outcome>, StoreError> {
        if let (Begun::Known(StoredAnswer::Refusal(_)), Some(entry)) = (&begun, entry)
            && job.envelope.headers.get(crate::broker::REPLAYED).is_some()
        {
            // Whoever replays a refused message wants it handled.
            session.forget(entry).await?;
            return Ok(None);
        }
        Ok(self.outcome_of(begun, job))
    }

    fn outcome_of(&self, begun: Begun, job: &Job) -> Option<Outcome> {
        let answer = match begun {
            Begun::New => return None,
            Begun::OtherContent => {
                let text = "another message with the same id was handled before; give each message an id of its own";
                return Some(Outcome::failed(FailureClass::IdReused, "id-reused", text));
            }
            Begun::Known(answer) => answer,
        };
        Counters::add(&self.counters.duplicates);
        tracing::debug!(message_id = %job.envelope.id, actor = self.settings.actor, "handled before; it is only answered again");
        Some(match answer {
            StoredAnswer::Nothing => Outcome::Done(None),
            StoredAnswer::Reply { media_type, payload } => Outcome::Done(Some(Reply { media_type, payload })),
            StoredAnswer::Refusal(problem) => {
                let log = problem.text.clone();
                Outcome::Failed(Failed { class: FailureClass::Rejected, problem, log })
            }
            StoredAnswer::TooLarge => {
                let text = "it was handled before; its answer was too large to be kept";
                Outcome::failed(FailureClass::Rejected, "answer-not-kept", text)
            }
        })
    }

    /// Ends a transaction without its effects.
    async fn undo(
        &self,
        outcome: &Outcome,
        guard: &Guard<S>,
        lent: Option<Box<dyn Session>>,
        store: &ActorStore,
    ) -> Result<(), StoreError> {
        let ran = !matches!(outcome, Outcome::Failed(Failed { class: FailureClass::Undecodable, .. }));
        if ran {
            self.mark_broken_if_changed(guard);
        }
        if let Some(mut session) = lent {
            session.roll_back().await?;
            store.keep(session);
        }
        Ok(())
    }

    /// A `&mut self` handler may have changed the state for an effect that was not kept.
    fn mark_broken_if_changed(&self, guard: &Guard<S>) {
        if matches!(guard, Guard::Exclusive(_)) {
            self.state.mark_broken();
        }
    }

    /// Notes in the inbox that a message was refused, if the refusal is its end. A dead letter leaves no note, so that it can be
    /// replayed.
    pub(super) async fn note_refusal(&self, unit: Unit, job: &Job, outcome: &Outcome) -> Result<(), StoreError> {
        let (Some(store), true) = (&self.settings.store, unit.inbox) else { return Ok(()) };
        let Outcome::Failed(Failed { class: FailureClass::Rejected, problem, .. }) = outcome else { return Ok(()) };
        let Verdict::Settle(settlement) = self.verdict(outcome, job) else { return Ok(()) };
        if !matches!(settlement.end, End::Ack | End::AckIfAnswered | End::Discard) {
            return Ok(());
        }
        let Ok(entry) = store.entry(&job.envelope) else { return Ok(()) };
        let limits = TransactionLimits { lock: store.handle.lock_timeout(), handler: self.settings.timeout };
        let mut session = store.session().await?;
        // If it is there already, this was the answer that it has.
        session.write(Some((&entry, &StoredAnswer::Refusal(problem.clone()))), &[], limits).await?;
        store.keep(session);
        Ok(())
    }

    /// Waits before a message is handled again because of its store. `Err` has the outcome if it is not.
    pub(super) async fn wait_for_store(
        &self,
        trouble: &mut StoreTrouble,
        error: StoreError,
        job: &Job,
    ) -> Result<(), Outcome> {
        let handle = self.settings.store.as_ref().map(|store| &store.handle);
        if let StoreError::Conflict { .. } = error {
            trouble.conflicts += 1;
            if trouble.conflicts > MOST_CONFLICTS {
                return Err(store_failed(FailureClass::Transient, &error));
            }
            let pause = trouble.backoff.random();
            trouble.backoff.grow();
            return if self.pause(pause, job).await { Ok(()) } else { Err(stopping()) };
        }
        if let (Some(handle), false) = (handle, matches!(error, StoreError::Locked { .. })) {
            handle.note(Some(&error));
        }
        if is_logged("the store does not do its work", self.settings.actor) {
            tracing::warn!(actor = self.settings.actor, %error, pause = ?trouble.backoff.pause(), "the store does not do its work; its messages wait and no attempt is counted");
        }
        // The caller of a query waits, and asks again itself.
        let is_query = job.lane == Lane::Query;
        let waits = !is_query && trouble.since.elapsed() + trouble.backoff.pause() < WAIT_FOR;
        let pause = trouble.backoff.random();
        trouble.backoff.grow();
        if waits && self.pause(pause, job).await {
            Ok(())
        } else {
            Err(store_failed(FailureClass::Infrastructure, &error))
        }
    }

    /// The store works again.
    pub(super) fn store_works(&self) {
        if let Some(store) = &self.settings.store {
            store.handle.note(None);
        }
    }
}

fn session_is_open(session: &mut dyn Session) -> bool {
    session.connection().is_some()
}

fn answer_of(outcome: &Outcome) -> StoredAnswer {
    match outcome {
        Outcome::Done(Some(Reply { media_type, payload })) => {
            StoredAnswer::Reply { media_type: media_type.clone(), payload: payload.clone() }
        }
        _ => StoredAnswer::Nothing,
    }
}

fn store_failed(class: FailureClass, error: &StoreError) -> Outcome {
    let problem = Problem::new(Problem::FAILED, "the service's store does not do its work; its log says why");
    Outcome::Failed(Failed { class, problem, log: error.to_string() })
}

/// Unreachable, since a message needs a store only where there is one.
fn no_store() -> Outcome {
    Outcome::failed(FailureClass::Infrastructure, Problem::FAILED, "the actor has no store")
}
