//! Shared commits: messages that wait for a `&mut self` handler anyway are handled one after the other in one transaction, and
//! settled after its commit. If one of them fails, nothing of the transaction is kept, and each is handled again alone.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use crate::broker::REPLAYED;
use crate::bus::Counters;
use crate::handler::{Lane, Lending, Outcome, Row};
use crate::host::actor_store::ActorStore;
use crate::host::attempt::{Attempted, Job, stopping};
use crate::host::core::Core;
use crate::host::deliver::Arrival;
use crate::host::lane::Tried;
use crate::host::limit::Slots;
use crate::host::once::{answer_of, outcome_then};
use crate::host::sharing::SHARED_FOR;
use crate::host::state::Guard;
use crate::host::waiting::Waiting;
use crate::message::Envelope;
use crate::store::{Begun, FaultPoint, InboxEntry, OutboxRow, Session, StoredAnswer, reach};

/// The most rows of the outbox that a shared commit collects before it is committed.
const MOST_ROWS: usize = 1_000;
/// The most bytes of such rows.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// A message of a shared commit.
struct Member {
    row: Rc<Row>,
    job: Job,
    /// `None` if the actor has no inbox.
    entry: Option<InboxEntry>,
}

/// A message that was handled, and what is committed for it.
struct Done {
    member: Member,
    outcome: Outcome,
    /// Whether the inbox has it already.
    known: bool,
}

/// What the handled messages have in common.
struct Together {
    done: Vec<Done>,
    rows: Vec<OutboxRow>,
    /// The open transaction; `None` if a handler did not give it back.
    session: Option<Box<dyn Session>>,
    /// Whether one of them failed. Then nothing is committed.
    failed: bool,
    /// Whether the next message is to be handled alone.
    then_alone: bool,
}

impl Core {
    /// The actor's store, if messages may be committed together.
    pub(super) fn shares_commits(&self) -> Option<&ActorStore> {
        self.settings.store.as_deref().filter(|store| store.sharing.limit() > 1)
    }

    /// Handles a message of a lane that begins one after the other, and with it those that wait behind it and may share its commit.
    pub(super) async fn handle_waiting(
        self: &Rc<Self>,
        store: &ActorStore,
        row: Rc<Row>,
        job: Job,
        waiting: &mut Waiting,
    ) {
        let mut members = VecDeque::from([Member { entry: None, row, job }]);
        self.gather(store, &mut members, waiting);
        while !members.is_empty() {
            let alone = match members.len() {
                1 => 1,
                // A panic drops those that it was about, which gives them back. The rest is handled alone.
                _ => self.caught(Box::pin(self.commit_together(store, &mut members))).await.unwrap_or(usize::MAX),
            };
            for _ in 0..alone {
                let Some(Member { row, job, .. }) = members.pop_front() else { break };
                self.handle_in_turn(row, job).await;
            }
        }
    }

    /// Adds the messages that wait and may be committed with the first one.
    fn gather(self: &Rc<Self>, store: &ActorStore, members: &mut VecDeque<Member>, waiting: &mut Waiting) {
        let Some(first) = members.front_mut() else { return };
        let Job { lane, redelivered, condemned, ref envelope, .. } = first.job;
        if lane != Lane::Durable || redelivered || condemned || waiting.peek().is_none() {
            return;
        }
        let Some(entry) = self.shares(store, &first.row, envelope) else { return };
        first.entry = entry;
        while members.len() < store.sharing.limit()
            && let Some(arrival) = waiting.peek()
            && let Some(entry) = self.joins(store, members, arrival)
            && let Some(job) = waiting.take()
        {
            let Some((row, job)) = self.admit(job) else { continue };
            match self.try_enter(job) {
                Tried::Runs(job) => members.push_back(Member { row, job, entry }),
                Tried::Done => {}
                // Another copy of this actor has just begun it.
                Tried::Waits(job, entered) => {
                    self.enter_later(&row, job, entered, Slots::new(self.settings.concurrency.clone()));
                }
            }
        }
    }

    /// The inbox's entry for a delivery that may be committed with these.
    fn joins(&self, store: &ActorStore, members: &VecDeque<Member>, arrival: &Arrival) -> Option<Option<InboxEntry>> {
        let Arrival { envelope, redelivered, condemned, .. } = arrival;
        // One that was delivered before may be what ended its process, or be under way elsewhere.
        if *redelivered || *condemned || self.settings.running.has(&envelope.id) {
            return None;
        }
        let row = self.table.find(Lane::Durable, envelope.kind, envelope.key.as_str())?;
        // All of them share one lock of the state.
        if members.front()?.row.is_exclusive() != row.is_exclusive() {
            return None;
        }
        let entry = self.shares(store, row, envelope)?;
        let has_same_id = |member: &Member| match (&member.entry, &entry) {
            (Some(one), Some(other)) => one.id == other.id,
            _ => false,
        };
        (!members.iter().any(has_same_id)).then_some(entry)
    }

    /// The inbox's entry for a message that may be committed with others; `None` if it may not.
    fn shares(&self, store: &ActorStore, row: &Row, envelope: &Arc<Envelope>) -> Option<Option<InboxEntry>> {
        // Without a transaction of its own a handler may write the same file in another way, which would wait for the group's lock.
        let unit = self.unit(row, Lane::Durable).filter(|unit| unit.lent)?;
        // A replay may have to forget an earlier refusal.
        if !store.sharing.shares(row.index) || envelope.headers.get(REPLAYED).is_some() {
            return None;
        }
        unit.inbox.then(|| store.entry(envelope)).transpose().ok()
    }

    /// Handles messages in one transaction and commits it. Returns how many of the first ones are to be handled alone. Behind them
    /// are those that it did not get to.
    async fn commit_together(&self, store: &ActorStore, members: &mut VecDeque<Member>) -> usize {
        let Some(first) = members.front() else { return 0 };
        let Some(mut guard) = self.lock(&first.row, &first.job).await else {
            members.drain(..).for_each(|member| member.job.give_back(stopping()));
            return 0;
        };
        let entries: Vec<InboxEntry> = members.iter().filter_map(|member| member.entry.clone()).collect();
        let Ok(mut session) = store.session().await else { return members.len() };
        let Ok(known) = session.begin_together(&entries, self.limits(store)).await else { return members.len() };
        reach(FaultPoint::Begun);
        let mut together = self.handle_together(store, members, known, session, &mut guard).await;
        let is_committed = !together.failed && self.commit_all(store, &mut together).await;
        if !is_committed {
            self.mark_broken_if_changed(&guard);
            store.sharing.failed();
            if let Some(mut session) = together.session.take()
                && session.roll_back().await.is_ok()
            {
                store.keep(session);
            }
            let alone = together.done.len() + usize::from(together.then_alone);
            together.done.into_iter().rev().for_each(|done| members.push_front(done.member));
            return alone;
        }
        drop(guard);
        for Done { member, outcome, known } in together.done {
            if known {
                self.note_duplicate(&member.job);
            }
            self.count(&outcome);
            self.settle_unhandled(member.job, outcome);
        }
        usize::from(together.then_alone)
    }

    async fn handle_together(
        &self,
        store: &ActorStore,
        members: &mut VecDeque<Member>,
        known: Vec<Begun>,
        session: Box<dyn Session>,
        guard: &mut Guard,
    ) -> Together {
        let mut known = known.into_iter();
        let session = Some(session);
        let mut together = Together { done: Vec::new(), rows: Vec::new(), session, failed: false, then_alone: false };
        let (began, mut bytes) = (Instant::now(), 0);
        let holds_up_others = store.handle.store().has_one_writer();
        while let Some(member) = members.pop_front() {
            let is_full = began.elapsed() >= SHARED_FOR || together.rows.len() >= MOST_ROWS || bytes >= MOST_BYTES;
            if is_full && !together.done.is_empty() {
                members.push_front(member);
                break;
            }
            let known = known.next().unwrap_or(Begun::New);
            if !self.may_begin(&member.job) {
                member.job.give_back(stopping());
                continue;
            }
            match known {
                Begun::New => {}
                Begun::Known(answer @ (StoredAnswer::Nothing | StoredAnswer::Reply { .. })) => {
                    let outcome = outcome_then(answer);
                    together.done.push(Done { member, outcome, known: true });
                    continue;
                }
                // Its outcome is a failure, which has an account of its own.
                Begun::Known(_) | Begun::OtherContent => {
                    members.push_front(member);
                    together.then_alone = true;
                    break;
                }
            }
            let began = Instant::now();
            let lending = together.session.take().map(|session| Lending { session, holds_up_others, shared: true });
            let attempted = self.attempt(&member.row, guard, &member.job, lending).await;
            let Attempted { outcome, sends, session, asked, .. } = attempted;
            store.sharing.learn(member.row.index, began.elapsed(), asked);
            together.failed = asked || !outcome.is_done() || session.is_none();
            together.session = session;
            for envelope in &sends {
                let row = OutboxRow::of(envelope);
                bytes += row.envelope.len();
                together.rows.push(row);
            }
            together.done.push(Done { member, outcome, known: false });
            if together.failed {
                break;
            }
        }
        reach(FaultPoint::Handled);
        together
    }

    /// Commits what was handled. Returns whether it is committed.
    async fn commit_all(&self, store: &ActorStore, together: &mut Together) -> bool {
        let new = together.done.iter().filter(|done| !done.known);
        let noted = |done: &Done| Some((done.member.entry.clone()?, answer_of(&done.outcome)));
        let handled: Vec<_> = new.clone().filter_map(noted).collect();
        let ran = new.count() > 0;
        let Some(mut session) = together.session.take() else { return false };
        let ended = match ran {
            true => session.commit_together(&handled, &together.rows).await,
            false => session.roll_back().await,
        };
        if let Err(error) = ended {
            tracing::debug!(actor = self.settings.actor, %error, "a shared commit did not take place; each message is handled alone");
            return false;
        }
        reach(FaultPoint::Committed);
        store.keep(session);
        if ran {
            Counters::add(&self.counters.commits);
            store.sharing.succeeded();
            self.store_works();
        }
        if !together.rows.is_empty() {
            store.handle.wake_relay();
        }
        true
    }
}
