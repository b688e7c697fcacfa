//! Keeps a message from being handled twice at once. When a channel closes, the broker redelivers the unacknowledged messages,
//! even while their handlers run. Such a redelivery takes the outcome of the run under way, or of one that has just ended. A
//! message that was sent twice waits until the first copy is settled, and is handled then.

use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::quality::RandomState;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::broker::{Delivery, REPLAYED};
use crate::handler::{Lane, Outcome};
use crate::host::epoch::Epoch;
use crate::host::handled::{AttemptRecord, Handled};
use crate::host::nameless::{NamelessIds, number_of};

pub use crate::host::nameless::Nameless;
use crate::host::unsettled::{Fingerprint, Unsettled};
use crate::host::verdict::{End, Settlement};
use crate::message::{Envelope, MessageId};

#[derive(Default)]
struct Runs {
    /// By id. An id has more than one run only if a sender used it for several messages. Senders choose ids, but only held
    /// deliveries are in this map, too few to need a slower hash.
    running: foldhash::HashMap<MessageId, SmallVec<[UnderWay; 1]>>,
    /// Outcomes that could not be settled.
    unsettled: Unsettled,
    /// Messages without an id.
    nameless: NamelessIds,
}

/// One message. The id alone does not identify it, because senders may use an id for several messages.
#[derive(Debug, Clone)]
struct Same(Arc<Envelope>);

impl Same {
    fn id(&self) -> &MessageId {
        &self.0.id
    }

    /// The attempt and the replay. A later attempt or a replay is another life of the message: it takes no outcome of this one.
    fn life(&self) -> (u32, Option<&str>) {
        (self.0.attempt, self.0.headers.text(REPLAYED))
    }

    fn fingerprint(&self, hasher: &RandomState) -> Fingerprint {
        let Envelope { id, key, kind, payload, .. } = &*self.0;
        Fingerprint(hasher.hash_one((id.as_str(), key.as_str(), kind.as_str(), self.life(), payload)))
    }
}

impl PartialEq for Same {
    /// The attempt does not count: a delayed attempt must not run beside the delivery that published it.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || self.0.kind == other.0.kind
                && (&self.0.key, &self.0.id, &self.0.payload) == (&other.0.key, &other.0.id, &other.0.payload)
    }
}

/// A run, from its begin until its delivery is settled, and the deliveries that wait for it.
struct UnderWay {
    same: Same,
    /// Redeliveries that take its outcome.
    joined: Vec<Redelivery>,
    /// Deliveries that only wait for its end.
    after: Vec<oneshot::Sender<()>>,
}

/// A redelivery that waits for an outcome, and the channel on which it came.
struct Redelivery {
    tell: oneshot::Sender<(Turn, Handled)>,
    epoch: Option<Arc<Epoch>>,
}

impl Redelivery {
    /// Whether it can settle the message.
    fn settles(&self) -> bool {
        !self.tell.is_closed() && self.epoch.as_ref().is_none_or(|epoch| epoch.is_live())
    }
}

/// The messages that one actor handles in this process, in all its copies.
#[derive(Clone, Default)]
pub struct Running(Arc<Shared>);

#[derive(Default)]
struct Shared {
    runs: Mutex<Runs>,
    hasher: RandomState,
    /// Whether the queue has delivered something to its present consumer.
    active: Arc<AtomicBool>,
}

/// Whether a message is to be handled.
pub(super) enum Entered {
    /// Yes.
    Run(Turn),
    /// It is being handled already. The outcome follows; the channel closes if that run did not take place, or is settled.
    Joined(oneshot::Receiver<(Turn, Handled)>),
    /// It was sent twice. The channel closes when the other copy is settled; then it may run.
    After(oneshot::Receiver<()>),
    /// It was handled, but the outcome could not be settled.
    Ended(Turn, Handled),
}

impl Running {
    /// Whether a message is being handled.
    #[must_use]
    pub fn has(&self, id: &MessageId) -> bool {
        self.lock().running.contains_key(id)
    }

    /// Gives a delivery without an id one: the same as before if it is a redelivery and was here. Returns its hash; `None` if the
    /// delivery has its own id.
    pub fn name(&self, delivery: &mut Delivery, lane: Lane) -> Option<Nameless> {
        let number = number_of(delivery, lane, &self.0.hasher)?;
        let mut runs = self.lock();
        let Runs { running, nameless, .. } = &mut *runs;
        let runs_still = |id: &MessageId| running.contains_key(id);
        let before = if delivery.redelivered { nameless.find(number, runs_still) } else { None };
        let id = before.unwrap_or_default();
        nameless.hold(number, id.clone(), delivery.receipt.channel());
        drop(runs);
        let envelope = Arc::make_mut(&mut delivery.envelope);
        if envelope.conversation_id.as_ref() == Some(&envelope.id) {
            envelope.conversation_id = Some(id.clone());
        }
        envelope.id = id;
        Some(number)
    }

    /// A message without an id goes back. Its redelivery gets this id again.
    pub fn lose(&self, nameless: Nameless, id: MessageId) {
        self.lock().nameless.lose(nameless, id);
    }

    /// A message without an id is settled.
    pub fn settled(&self, nameless: Nameless, id: &MessageId) {
        self.lock().nameless.settled(nameless, id);
    }

    /// These messages were handled and acknowledged, but the channel was lost. If they are delivered again, they are only
    /// acknowledged.
    pub fn acknowledged(&self, envelopes: impl IntoIterator<Item = Arc<Envelope>>) {
        let mut runs = self.lock();
        for envelope in envelopes {
            let made = AttemptRecord { attempt: envelope.attempt, ..AttemptRecord::default() };
            let settlement = Settlement { answer: false, end: End::Ack };
            let handled = Handled { outcome: Outcome::Done(None), made, settlement };
            runs.unsettled.add(Same(envelope).fingerprint(&self.0.hasher), handled);
        }
    }

    /// Whether the queue has delivered something to its present consumer. Of several instances of an ordered actor only one gets
    /// messages.
    pub(super) fn active(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0.active)
    }

    /// Sets whether the queue has delivered something to its present consumer.
    pub fn set_active(&self, active: bool) {
        self.0.active.store(active, Ordering::Relaxed);
    }

    /// Forgets outcomes that are too old to be asked for.
    pub fn forget_old(&self) {
        self.lock().unsettled.forget_old();
    }

    pub(super) fn enter(&self, envelope: &Arc<Envelope>, redelivered: bool, epoch: Option<Arc<Epoch>>) -> Entered {
        let (id, same) = (&envelope.id, Same(Arc::clone(envelope)));
        let mut runs = self.lock();
        let Runs { running, unsettled, .. } = &mut *runs;
        if !unsettled.is_empty() {
            unsettled.forget_old();
        }
        let under_way = running.entry(id.clone()).or_default();
        let Some(run) = under_way.iter_mut().find(|run| run.same == same) else {
            let before =
                (redelivered && !unsettled.is_empty()).then(|| unsettled.take(same.fingerprint(&self.0.hasher)));
            under_way.push(UnderWay { same: same.clone(), joined: Vec::new(), after: Vec::new() });
            let turn = Turn { running: self.clone(), of: Some(same) };
            return match before.flatten() {
                Some(handled) => Entered::Ended(turn, handled),
                None => Entered::Run(turn),
            };
        };
        // A redelivery of another life waits too.
        if redelivered && run.same.life() == same.life() {
            let (tell, waiting) = oneshot::channel();
            run.joined.push(Redelivery { tell, epoch });
            return Entered::Joined(waiting);
        }
        let (tell, waiting) = oneshot::channel();
        run.after.push(tell);
        Entered::After(waiting)
    }

    fn lock(&self) -> MutexGuard<'_, Runs> {
        self.0.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Runs {
    fn position(&mut self, same: &Same) -> Option<(&mut SmallVec<[UnderWay; 1]>, usize)> {
        let under_way = self.running.get_mut(same.id())?;
        let place = under_way.iter().position(|run| run.same == *same)?;
        Some((under_way, place))
    }

    fn take(&mut self, same: &Same) -> Option<UnderWay> {
        let Entry::Occupied(mut under_way) = self.running.entry(same.id().clone()) else { return None };
        let place = under_way.get().iter().position(|run| run.same == *same)?;
        let run = under_way.get_mut().swap_remove(place);
        if under_way.get().is_empty() {
            under_way.remove();
        }
        Some(run)
    }
}

/// The right to handle a message, from its begin until its delivery is settled. Other deliveries of the message wait meanwhile.
/// Dropping it says that the message is settled or was not handled; then the next delivery runs.
pub struct Turn {
    running: Running,
    of: Option<Same>,
}

impl Turn {
    /// The message was handled, but its delivery can no longer be settled. A redelivery takes the outcome and settles it.
    pub fn pass_on(mut self, handled: Handled) {
        let Some(same) = self.of.take() else { return };
        let mut runs = self.running.lock();
        let Some((under_way, place)) = runs.position(&same) else { return };
        let joined = &mut under_way[place].joined;
        let mut turn = Self { running: self.running.clone(), of: Some(same.clone()) };
        let mut handled = handled;
        while let Some(next) = joined.iter().position(Redelivery::settles) {
            match joined.swap_remove(next).tell.send((turn, handled)) {
                Ok(()) => return,
                Err(back) => (turn, handled) = back,
            }
        }
        // No redelivery waits yet, so the outcome is kept.
        turn.of = None;
        let fingerprint = same.fingerprint(&self.running.0.hasher);
        runs.unsettled.add(fingerprint, handled);
        let left = runs.take(&same);
        drop(runs);
        drop(left);
    }
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("of", &self.of.as_ref().map(Same::id)).finish()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(same) = self.of.take() {
            // This closes the channels of the waiting deliveries, which then ask again.
            let left = self.running.lock().take(&same);
            drop(left);
        }
    }
}

#[cfg(test)]
mod property_tests;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::message::{Key, Kind};

    fn handled() -> Handled {
        Handled::given_back(Outcome::Done(None), AttemptRecord { attempt: 2, ..AttemptRecord::default() })
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
    fn a_second_delivery_waits_for_the_run_and_takes_its_outcome_and_its_turn() {
        let (running, id) = (Running::default(), MessageId::new());
        let first = run(&running, &id);
        let Entered::Joined(mut second) = enter(&running, &id, true) else { panic!("it runs twice") };
        first.pass_on(handled());
        let (turn, handled) = second.try_recv().unwrap();
        assert_eq!(handled.made.attempt, 2);
        assert!(matches!(enter(&running, &id, true), Entered::Joined(_)), "it is being settled");
        drop(turn);
        drop(run(&running, &id));
    }

    #[test]
    fn an_outcome_is_kept_when_the_channel_of_whoever_waits_for_it_has_closed_too() {
        let (running, id) = (Running::default(), MessageId::new());
        let first = run(&running, &id);
        let epoch = Epoch::begin(&tokio_util::sync::CancellationToken::new(), false);
        let joined = running.enter(&envelope(&id, "a.b"), true, Some(Arc::clone(&epoch)));
        assert!(matches!(joined, Entered::Joined(_)));
        epoch.end();
        first.pass_on(handled());
        assert!(matches!(enter(&running, &id, true), Entered::Ended(..)));
    }

    #[test]
    fn an_outcome_that_could_not_be_settled_is_kept_for_one_redelivery_and_again_if_that_cannot_settle_it_either() {
        let (running, id) = (Running::default(), MessageId::new());
        run(&running, &id).pass_on(handled());
        let Entered::Ended(turn, handled) = enter(&running, &id, true) else { panic!("it runs again") };
        turn.pass_on(handled);
        let Entered::Ended(turn, _) = enter(&running, &id, true) else { panic!("it runs again") };
        drop(turn);
        drop(run(&running, &id));
    }

    #[test]
    fn a_redelivery_does_not_run_beside_the_settling_of_its_own_first_delivery() {
        let (running, id) = (Running::default(), MessageId::new());
        let settling = run(&running, &id);
        let Entered::Joined(mut second) = enter(&running, &id, true) else { panic!("it runs beside it") };
        assert!(second.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Empty));
        drop(settling);
        assert!(second.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed), "it asks again");
    }

    #[test]
    fn a_message_that_was_sent_twice_waits_and_another_one_with_its_id_does_not() {
        let (running, id) = (Running::default(), MessageId::new());
        let _first = run(&running, &id);
        assert!(matches!(enter(&running, &id, false), Entered::After(_)));
        let Entered::Run(_other) = running.enter(&envelope(&id, "a.other"), true, None) else { panic!("it waits") };
        assert!(matches!(running.enter(&envelope(&id, "a.other"), true, None), Entered::Joined(_)));
        let later = Envelope { attempt: 2, ..(*envelope(&id, "a.b")).clone() };
        assert!(
            matches!(running.enter(&Arc::new(later), true, None), Entered::After(_)),
            "it waits until the first is settled"
        );
    }

    #[test]
    fn a_first_delivery_is_never_taken_for_a_redelivery() {
        let (running, id) = (Running::default(), MessageId::new());
        run(&running, &id).pass_on(handled());
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
}
