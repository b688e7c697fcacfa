//! A message that is being handled is not handled a second time beside it. The broker delivers again what was unsettled
//! when a channel closed, also while its handler runs: such a redelivery takes the outcome of the run under way, or of
//! one that has just ended. A message that was sent twice waits for the other one and is handled then.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use foldhash::quality::RandomState;
use smallvec::SmallVec;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::broker::Delivery;
use crate::handler::{Lane, Outcome};
use crate::host::deliver::{Epoch, Made};
use crate::host::nameless::{Lost, number_of};
use crate::message::{Envelope, MessageId};

/// How long an outcome is remembered that could not be settled, because its channel had closed. The broker delivers
/// such a message again at once, but perhaps to somebody else.
const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// The most outcomes that are remembered per actor.
const MOST_REMEMBERED: usize = 4_096;

type Ended = (Outcome, Made);

#[derive(Default)]
struct Runs {
    /// By the id; more than one only where a sender has used an id for several messages. Senders choose ids, but not so
    /// many at once that a slow hash would be needed: these are the deliveries that are held.
    running: foldhash::HashMap<MessageId, SmallVec<[UnderWay; 1]>>,
    /// What ended and could not be settled.
    ended: HashMap<MessageId, (Same, Ended)>,
    /// The same by age.
    ages: VecDeque<(Instant, MessageId)>,
    /// What came without an id.
    lost: Lost,
}

/// One message. Two deliveries are the same not by the id alone, which senders may use for several.
#[derive(Debug, Clone)]
struct Same(Arc<Envelope>);

impl Same {
    fn id(&self) -> &MessageId {
        &self.0.id
    }
}

impl PartialEq for Same {
    fn eq(&self, other: &Self) -> bool {
        // A later attempt, or a replay, is another life.
        let what = |Self(envelope): &Self| (envelope.kind, envelope.attempt);
        Arc::ptr_eq(&self.0, &other.0)
            || what(self) == what(other)
                && (&self.0.key, &self.0.id, &self.0.payload) == (&other.0.key, &other.0.id, &other.0.payload)
    }
}

/// A run under way, and who waits for it.
struct UnderWay {
    same: Same,
    /// Redeliveries that take its outcome, and those that only wait for its end.
    joined: Vec<Redelivery>,
    after: Vec<oneshot::Sender<Ended>>,
}

/// A redelivery that waits for an outcome, and the channel on which it came.
struct Redelivery {
    tell: oneshot::Sender<Ended>,
    epoch: Option<Arc<Epoch>>,
}

impl Redelivery {
    /// Whether it can settle the message.
    fn settles(&self) -> bool {
        !self.tell.is_closed() && self.epoch.as_ref().is_none_or(|epoch| epoch.is_live())
    }
}

/// What a message without an id is known by when it is delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nameless(u64);

/// The messages that one actor handles in this process, in all its copies.
#[derive(Clone, Default)]
pub struct Running(Arc<Mutex<Runs>>, RandomState);

/// Whether a message is to be handled.
pub(super) enum Entered {
    /// Yes.
    Run(Turn),
    /// It is being handled already. The outcome follows; if none does, that run did not take place.
    Joined(oneshot::Receiver<Ended>),
    /// It was sent twice; its turn comes when the other one has ended.
    After(oneshot::Receiver<Ended>),
    /// It was handled, but the broker does not know.
    Ended(Outcome, Made),
}

impl Running {
    /// Whether a message is being handled.
    #[must_use]
    pub fn has(&self, id: &MessageId) -> bool {
        self.lock().running.contains_key(id)
    }

    /// Names a delivery that has no id: as it was named when it was here before, if it was. Returns what it is lost by.
    pub fn name(&self, delivery: &mut Delivery, lane: Lane) -> Option<Nameless> {
        let number = number_of(delivery, lane, &self.1)?;
        let mut runs = self.lock();
        let Runs { running, lost, .. } = &mut *runs;
        let runs_still = |id: &MessageId| running.contains_key(id);
        let before = if delivery.redelivered { lost.find(number, REMEMBERED_FOR, runs_still) } else { None };
        drop(runs);
        let id = before.unwrap_or_default();
        Arc::make_mut(&mut delivery.properties).message_id = Some(id.into_shared());
        Some(Nameless(number))
    }

    /// What came without an id goes back: its redelivery is known by this one.
    pub fn lose(&self, nameless: Nameless, id: MessageId) {
        self.lock().lost.add(nameless.0, id);
    }

    pub(super) fn enter(&self, envelope: &Arc<Envelope>, redelivered: bool, epoch: Option<Arc<Epoch>>) -> Entered {
        let (id, same) = (&envelope.id, Same(Arc::clone(envelope)));
        let mut runs = self.lock();
        if redelivered
            && runs.ended.get(id).is_some_and(|(of, _)| *of == same)
            && let Some((_, (outcome, made))) = runs.ended.remove(id)
        {
            return Entered::Ended(outcome, made);
        }
        let under_way = runs.running.entry(id.clone()).or_default();
        let Some(run) = under_way.iter_mut().find(|run| run.same == same) else {
            under_way.push(UnderWay { same: same.clone(), joined: Vec::new(), after: Vec::new() });
            return Entered::Run(Turn { running: self.clone(), of: Some(same) });
        };
        let (tell, waiting) = oneshot::channel();
        if redelivered {
            run.joined.push(Redelivery { tell, epoch });
            return Entered::Joined(waiting);
        }
        run.after.push(tell);
        Entered::After(waiting)
    }

    fn lock(&self) -> MutexGuard<'_, Runs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runs {
    fn take(&mut self, same: &Same) -> Option<UnderWay> {
        let Entry::Occupied(mut under_way) = self.running.entry(same.id().clone()) else { return None };
        let place = under_way.get().iter().position(|run| run.same == *same)?;
        let run = under_way.get_mut().swap_remove(place);
        if under_way.get().is_empty() {
            under_way.remove();
        }
        Some(run)
    }

    fn remember(&mut self, ended: (Same, Ended)) {
        let (now, id) = (Instant::now(), ended.0.id().clone());
        self.ages.push_back((now, id.clone()));
        self.ended.insert(id, ended);
        let old = |(at, _): &(Instant, MessageId)| now.duration_since(*at) > REMEMBERED_FOR;
        while self.ages.len() > MOST_REMEMBERED || self.ages.front().is_some_and(old) {
            if let Some((_, id)) = self.ages.pop_front() {
                self.ended.remove(&id);
            }
        }
    }
}

/// The right to handle a message. Dropped, it says that the run did not take place.
pub(super) struct Turn {
    running: Running,
    of: Option<Same>,
}

impl Turn {
    /// The run has ended. What cannot be settled is remembered for the redelivery.
    pub(super) fn end(mut self, outcome: &Outcome, made: &Made, settles: bool) {
        let Some(same) = self.of.take() else { return };
        let mut runs = self.running.lock();
        let Some(UnderWay { same, joined, after }) = runs.take(&same) else { return };
        // One that waits already is the redelivery, if its own channel has not closed meanwhile.
        if !settles && !joined.iter().any(Redelivery::settles) {
            runs.remember((same, (outcome.clone(), made.clone())));
        }
        drop(runs);
        for waiting in joined.into_iter().map(|redelivery| redelivery.tell).chain(after) {
            // A lane that is gone has given its deliveries back already.
            let _ = waiting.send((outcome.clone(), made.clone()));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(same) = self.of.take() {
            self.running.lock().take(&same);
        }
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::{Key, Kind};

    fn ended() -> Ended {
        (Outcome::Done(None), Made { attempt: 2, ..Made::default() })
    }

    fn envelope(id: &MessageId, key: &str) -> Arc<Envelope> {
        let payload = Bytes::from_static(b"payload");
        let mut envelope = Envelope::new(Kind::Command, Key::from_wire(key), crate::message::MediaType::BYTES, payload);
        envelope.id = id.clone();
        Arc::new(envelope)
    }

    fn enter(running: &Running, id: &MessageId, redelivered: bool) -> Entered {
        running.enter(&envelope(id, "a.b"), redelivered, None)
    }

    fn run(running: &Running, id: &MessageId) -> Turn {
        if let Entered::Run(turn) = enter(running, id, true) { turn } else { panic!("it runs already") }
    }

    #[test]
    fn a_second_delivery_waits_for_the_run_and_takes_its_outcome() {
        let (running, id) = (Running::default(), MessageId::new());
        let first = run(&running, &id);
        let Entered::Joined(mut second) = enter(&running, &id, true) else { panic!("it runs twice") };
        first.end(&ended().0, &ended().1, false);
        assert_eq!(second.try_recv().unwrap().1.attempt, 2);
        drop(run(&running, &id));
    }

    #[test]
    fn an_outcome_is_kept_when_the_channel_of_whoever_waits_for_it_has_closed_too() {
        let (running, id) = (Running::default(), MessageId::new());
        let first = run(&running, &id);
        let epoch = Epoch::begin(&tokio_util::sync::CancellationToken::new());
        let joined = running.enter(&envelope(&id, "a.b"), true, Some(Arc::clone(&epoch)));
        assert!(matches!(joined, Entered::Joined(_)));
        epoch.end();
        first.end(&ended().0, &ended().1, false);
        assert!(matches!(enter(&running, &id, true), Entered::Ended(Outcome::Done(None), _)));
    }

    #[test]
    fn an_outcome_that_could_not_be_settled_is_kept_for_one_redelivery() {
        let (running, id) = (Running::default(), MessageId::new());
        run(&running, &id).end(&ended().0, &ended().1, false);
        assert!(matches!(enter(&running, &id, true), Entered::Ended(Outcome::Done(None), _)));
        drop(run(&running, &id));
        run(&running, &id).end(&ended().0, &ended().1, true);
        drop(run(&running, &id));
    }

    #[test]
    fn a_message_that_was_sent_twice_waits_and_another_one_with_its_id_does_not() {
        let (running, id) = (Running::default(), MessageId::new());
        let _first = run(&running, &id);
        assert!(matches!(enter(&running, &id, false), Entered::After(_)));
        let Entered::Run(_other) = running.enter(&envelope(&id, "a.other"), true, None) else { panic!("it waits") };
        assert!(matches!(running.enter(&envelope(&id, "a.other"), true, None), Entered::Joined(_)));
        let later = Envelope { attempt: 2, ..(*envelope(&id, "a.b")).clone() };
        assert!(matches!(running.enter(&Arc::new(later), true, None), Entered::Run(_)));
    }

    #[test]
    fn a_first_delivery_is_never_taken_for_a_redelivery() {
        let (running, id) = (Running::default(), MessageId::new());
        run(&running, &id).end(&ended().0, &ended().1, false);
        assert!(matches!(enter(&running, &id, false), Entered::Run(_)));
    }

    #[test]
    fn a_run_that_did_not_take_place_lets_the_next_one_run() {
        let (running, id) = (Running::default(), MessageId::new());
        let first = run(&running, &id);
        let Entered::Joined(mut second) = enter(&running, &id, true) else { panic!("it runs twice") };
        drop(first);
        assert!(second.try_recv().is_err());
        drop(run(&running, &id));
    }

    #[test]
    fn only_so_many_outcomes_are_remembered() {
        let running = Running::default();
        for _ in 0..MOST_REMEMBERED + 10 {
            run(&running, &MessageId::new()).end(&ended().0, &ended().1, false);
        }
        assert_eq!(running.lock().ended.len(), MOST_REMEMBERED);
    }
}
