//! The unit of handling with a store: the handler's writes, what it sends, and that its message was handled are committed
//! together, or not at all.

use tokio::time::Instant;

use crate::broker::REPLAYED;
use crate::bus::Counters;
use crate::handler::{Failed, FailureClass, Guarantee, Lane, Lending, Outcome, Reply, Row};
use crate::host::actor_store::ActorStore;
use crate::host::attempt::{Attempted, Job};
use crate::host::core::Core;
use crate::host::state::Guard;
use crate::host::store_trouble::StoreTrouble;
use crate::host::verdict::{End, Verdict};
use crate::message::Problem;
use crate::store::{
    Access, Begun, FaultPoint, InboxEntry, OutboxRow, Session, StoreError, StoredAnswer, TransactionLimits, reach,
};

/// What a message needs of the store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    /// Whether the inbox notes it.
    pub(super) inbox: bool,
    /// Whether the handler takes the transaction.
    pub(super) lent: bool,
    access: Access,
}

/// Whether a message's transaction is open.
enum Opened {
    New(Box<dyn Session>),
    /// The message was handled before.
    Handled(Outcome),
}

/// What became of a handler's work.
enum Written {
    New,
    /// The message turned out to be known; nothing was written.
    Known(Begun),
    /// The store did not do its work for too long.
    GivenUp(Outcome),
}

impl Core {
    /// What handling a message needs of the store; `None` if it needs none.
    pub(super) fn unit(&self, row: &Row, lane: Lane) -> Option<Unit> {
        let store = self.settings.store.as_ref()?;
        // Queries have no effect, and each instance gets a copy of an instance's events.
        let inbox = store.guarantee == Guarantee::EffectivelyOnce && lane == Lane::Durable;
        let lent = row.spec.transaction.is_some();
        let access = if lane == Lane::Query { Access::Read } else { Access::Write };
        (inbox || lent).then_some(Unit { inbox, lent, access })
    }

    /// One attempt, from the begin of its transaction to the commit.
    ///
    /// # Errors
    /// When the store did not do its work. Nothing of the attempt is left then.
    pub(super) async fn attempt_once(
        &self,
        row: &Row,
        guard: &mut Guard,
        job: &Job,
        unit: Unit,
        trouble: &mut StoreTrouble,
    ) -> Result<Outcome, StoreError> {
        let Some(store) = &self.settings.store else { return Ok(no_store()) };
        let entry = match unit.inbox.then(|| store.entry(&job.envelope)).transpose() {
            Ok(entry) => entry,
            Err(outcome) => return Ok(outcome),
        };
        let lending = match unit.lent {
            false => None,
            true => match self.open(store, unit, entry.as_ref(), job).await? {
                Opened::New(session) => Some(self.lending(store, session, unit)),
                Opened::Handled(outcome) => return Ok(outcome),
            },
        };
        let began = Instant::now();
        let attempted = self.attempt(row, guard, job, lending).await;
        reach(FaultPoint::Handled);
        let Attempted { outcome, sends, session, hindered, asked, runs: _runs } = attempted;
        let ran =
            !matches!(outcome, Outcome::Expired | Outcome::Failed(Failed { class: FailureClass::Undecodable, .. }));
        if ran {
            store.sharing.learn(row.index, began.elapsed(), asked);
        }
        if !outcome.is_done() {
            self.undo(&outcome, guard, session, store).await?;
            return hindered.map_or(Ok(outcome), |hindered| Err(store.hindered(hindered)));
        }
        let rows: Vec<OutboxRow> = sends.iter().map(|envelope| OutboxRow::of(envelope)).collect();
        let written = match unit.lent {
            true => self.commit(store, &answer_of(&outcome), &rows, session).await,
            false => self.write(store, &outcome, &rows, entry.as_ref(), job, trouble).await,
        };
        if !matches!(written, Ok(Written::New)) {
            // What the handler did to the state has no counterpart in the store.
            self.mark_broken_if_changed(guard);
        }
        let written = match written {
            Ok(written) => written,
            Err(error) => {
                if let StoreError::Ended { .. } = error {
                    store.sharing.never(row.index);
                }
                return self.failed_to_commit(error, store, entry.as_ref(), job).await;
            }
        };
        reach(FaultPoint::Committed);
        match written {
            Written::New => {
                Counters::add(&self.counters.commits);
                if !rows.is_empty() {
                    store.handle.wake_relay();
                }
                Ok(outcome)
            }
            Written::Known(begun) => Ok(self.outcome_of(begun, job).unwrap_or(outcome)),
            Written::GivenUp(outcome) => Ok(outcome),
        }
    }

    fn lending(&self, store: &ActorStore, session: Box<dyn Session>, unit: Unit) -> Lending {
        let holds_up_others = store.handle.store().has_one_writer() && unit.access == Access::Write;
        Lending { session, holds_up_others, shared: false }
    }

    /// Opens the transaction, unless the message was handled before.
    async fn open(
        &self,
        store: &ActorStore,
        unit: Unit,
        entry: Option<&InboxEntry>,
        job: &Job,
    ) -> Result<Opened, StoreError> {
        let mut session = store.session().await?;
        let mut begun = session.begin(unit.access, entry, self.limits(store)).await?;
        if let Some(entry) = entry.filter(|_| is_undone(&begun, job)) {
            session.forget(entry).await?;
            begun = session.begin(unit.access, Some(entry), self.limits(store)).await?;
        }
        self.store_works();
        let Some(outcome) = self.outcome_of(begun, job) else {
            reach(FaultPoint::Begun);
            return Ok(Opened::New(session));
        };
        store.keep(session);
        Ok(Opened::Handled(outcome))
    }

    /// The limits of a handler's transaction.
    pub(super) fn limits(&self, store: &ActorStore) -> TransactionLimits {
        TransactionLimits { lock: store.handle.lock_timeout(), handler: self.settings.timeout }
    }

    /// Commits what a handler did in its transaction.
    async fn commit(
        &self,
        store: &ActorStore,
        answer: &StoredAnswer,
        rows: &[OutboxRow],
        session: Option<Box<dyn Session>>,
    ) -> Result<Written, StoreError> {
        let ended = || StoreError::Ended { reason: "the handler has kept it".into() };
        let mut session = session.ok_or_else(ended)?;
        session.commit(answer, rows).await?;
        store.keep(session);
        Ok(Written::New)
    }

    /// Notes what a handler without a transaction did. While the store is away this waits, so that the handler does not run again.
    async fn write(
        &self,
        store: &ActorStore,
        outcome: &Outcome,
        rows: &[OutboxRow],
        entry: Option<&InboxEntry>,
        job: &Job,
        trouble: &mut StoreTrouble,
    ) -> Result<Written, StoreError> {
        let answer = answer_of(outcome);
        // Bounded by how long a message waits for its store.
        loop {
            let error = match self.write_once(store, entry.map(|entry| (entry, &answer)), rows, job).await {
                Ok(Begun::New) => return Ok(Written::New),
                Ok(known) => return Ok(Written::Known(known)),
                Err(error @ (StoreError::Constraint { .. } | StoreError::Ended { .. })) => return Err(error),
                Err(error) => error,
            };
            if let Err(outcome) = self.wait_for_store(trouble, error, job).await {
                return Ok(Written::GivenUp(outcome));
            }
        }
    }

    async fn write_once(
        &self,
        store: &ActorStore,
        noted: Option<(&InboxEntry, &StoredAnswer)>,
        rows: &[OutboxRow],
        job: &Job,
    ) -> Result<Begun, StoreError> {
        let mut session = store.session().await?;
        let mut begun = session.write(noted, rows, self.limits(store)).await?;
        if let Some((entry, _)) = noted.filter(|_| is_undone(&begun, job)) {
            session.forget(entry).await?;
            begun = session.write(noted, rows, self.limits(store)).await?;
        }
        store.keep(session);
        self.store_works();
        Ok(begun)
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
    pub(super) fn outcome_of(&self, begun: Begun, job: &Job) -> Option<Outcome> {
        match begun {
            Begun::New => None,
            Begun::OtherContent => {
                let text = "another message with the same id was handled before; give each message an id of its own";
                Some(Outcome::failed(FailureClass::IdReused, "id-reused", text))
            }
            Begun::Known(answer) => {
                self.note_duplicate(job);
                Some(outcome_then(answer))
            }
        }
    }

    /// Counts a message that was handled before.
    pub(super) fn note_duplicate(&self, job: &Job) {
        Counters::add(&self.counters.duplicates);
        tracing::debug!(message_id = %job.envelope.id, actor = self.settings.actor, "handled before; it is only answered again");
    }

    /// Ends a transaction without its effects.
    async fn undo(
        &self,
        outcome: &Outcome,
        guard: &Guard,
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
    pub(super) fn mark_broken_if_changed(&self, guard: &Guard) {
        if matches!(guard, Guard::Exclusive(_)) {
            self.state.mark_broken();
        }
    }

    /// Notes in the inbox that a message was refused, if the refusal is its end. A dead letter leaves no note, so that it can be
    /// replayed.
    pub(super) async fn note_refusal(
        &self,
        unit: Unit,
        job: &Job,
        outcome: &Outcome,
        verdict: Verdict,
    ) -> Result<(), StoreError> {
        let (Some(store), true) = (&self.settings.store, unit.inbox) else { return Ok(()) };
        let Outcome::Failed(Failed { class: FailureClass::Rejected, problem, .. }) = outcome else { return Ok(()) };
        let Verdict::Settle(settlement) = verdict else { return Ok(()) };
        if !matches!(settlement.end, End::Ack | End::AckIfAnswered | End::Discard) {
            return Ok(());
        }
        let Ok(entry) = store.entry(&job.envelope) else { return Ok(()) };
        let limits = self.limits(store);
        let mut session = store.session().await?;
        // If it is there already, this was the answer that it has.
        session.write(Some((&entry, &StoredAnswer::Refusal(problem.clone()))), &[], limits).await?;
        store.keep(session);
        Ok(())
    }
}

/// Whether the inbox has a refusal that no longer counts: whoever replays a refused message wants it handled.
fn is_undone(begun: &Begun, job: &Job) -> bool {
    matches!(begun, Begun::Known(StoredAnswer::Refusal(_))) && job.envelope.headers.get(REPLAYED).is_some()
}

pub(super) fn answer_of(outcome: &Outcome) -> StoredAnswer {
    match outcome {
        Outcome::Done(Some(Reply { media_type, payload })) => {
            StoredAnswer::Reply { media_type: media_type.clone(), payload: payload.clone() }
        }
        _ => StoredAnswer::Nothing,
    }
}

/// Unreachable, since a message needs a store only where there is one.
fn no_store() -> Outcome {
    Outcome::failed(FailureClass::Infrastructure, Problem::FAILED, "the actor has no store")
}

/// The outcome of a message that was handled before.
pub(super) fn outcome_then(answer: StoredAnswer) -> Outcome {
    match answer {
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
    }
}
