//! Gives ids to messages that foreign senders left without one. A message that was lost with its channel gets the same id when it
//! is delivered again, so that it is recognised like any other.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use foldhash::HashMap;
use foldhash::quality::RandomState;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::broker::{Delivery, DeliveryChannel, is_of_one_delivery, write_headers};
use crate::handler::Lane;
use crate::host::unsettled::REMEMBERED_FOR;
use crate::message::{Envelope, MessageId};

/// The most lost messages without an id that are remembered per actor. Beyond that the oldest are forgotten, and run again.
const MOST_REMEMBERED: usize = 4_096;

/// Identifies a message without an id across redeliveries: a hash of everything that stays the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nameless(u64);

/// An id, and the channel on which its message came.
type HeldId = (MessageId, Option<Arc<dyn DeliveryChannel>>);

/// The ids given to messages without one, from delivery until settlement.
#[derive(Default)]
pub(super) struct NamelessIds {
    held: HashMap<Nameless, SmallVec<[HeldId; 1]>>,
    lost: Lost,
}

impl NamelessIds {
    /// Notes a delivery that is held, and its channel.
    pub(super) fn hold(&mut self, nameless: Nameless, id: MessageId, channel: Option<Arc<dyn DeliveryChannel>>) {
        self.held.entry(nameless).or_default().push((id, channel));
    }

    /// Notes that a delivery was lost or given back. Does nothing if the redelivery has already taken its id.
    pub(super) fn lose(&mut self, nameless: Nameless, id: MessageId) {
        if self.let_go(nameless, |(held, _)| *held == id).is_some() {
            self.lost.add(nameless, id);
        }
    }

    pub(super) fn settled(&mut self, nameless: Nameless, id: &MessageId) {
        self.let_go(nameless, |(held, _)| held == id);
    }

    /// The id that a redelivery had before. Held deliveries of a closed channel count as lost, because a blocked lane may not
    /// know yet that the channel has closed.
    pub(super) fn find(&mut self, nameless: Nameless, runs: impl Fn(&MessageId) -> bool) -> Option<MessageId> {
        let has_closed = |(_, channel): &HeldId| channel.as_ref().is_some_and(|channel| !channel.is_live());
        self.lost.find(nameless, REMEMBERED_FOR, runs).or_else(|| self.let_go(nameless, has_closed))
    }

    fn let_go(&mut self, nameless: Nameless, which: impl Fn(&HeldId) -> bool) -> Option<MessageId> {
        let held = self.held.get_mut(&nameless)?;
        let place = held.iter().position(which)?;
        let (id, _) = held.remove(place);
        if held.is_empty() {
            self.held.remove(&nameless);
        }
        Some(id)
    }
}

/// Deliveries that this process lost, in the order of their loss. Each is found once: two identical messages have two
/// redeliveries, and each of these takes one id.
#[derive(Default)]
struct Lost {
    ids: HashMap<Nameless, SmallVec<[(Instant, MessageId); 1]>>,
    order: VecDeque<Nameless>,
}

impl Lost {
    /// Adds a delivery that was lost or given back.
    fn add(&mut self, number: Nameless, id: MessageId) {
        self.ids.entry(number).or_default().push((Instant::now(), id));
        self.order.push_back(number);
        while self.order.len() > MOST_REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.take_first(oldest);
            }
        }
    }

    /// The id that a redelivery had before. An id older than `young` is skipped unless it still runs here, because another
    /// process has had the message meanwhile.
    fn find(&mut self, number: Nameless, young: Duration, runs: impl Fn(&MessageId) -> bool) -> Option<MessageId> {
        while let Some((at, id)) = self.take_first(number) {
            if let Some(place) = self.order.iter().position(|other| *other == number) {
                self.order.remove(place);
            }
            if at.elapsed() <= young || runs(&id) {
                return Some(id);
            }
        }
        None
    }

    fn take_first(&mut self, number: Nameless) -> Option<(Instant, MessageId)> {
        let ids = self.ids.get_mut(&number)?;
        let first = if ids.is_empty() { None } else { Some(ids.remove(0)) };
        if ids.is_empty() {
            self.ids.remove(&number);
        }
        first
    }
}

/// The hash that a delivery shares with its redeliveries; `None` if the message has its own id.
pub(super) fn number_of(delivery: &Delivery, lane: Lane, hasher: &RandomState) -> Option<Nameless> {
    let envelope = &*delivery.envelope;
    if envelope.has_own_id() {
        return None;
    }
    let mut all = Hashed(hasher.build_hasher());
    let Envelope { kind, key, target, message_type, correlation_id, reply_to, source, .. } = envelope;
    // Writing to the hasher never fails.
    let _ = write!(
        all,
        "{lane} {:?}",
        (kind, key, target, message_type, correlation_id, reply_to, source, &envelope.foreign)
    );
    let _ = write!(all, " {:?}", (&envelope.media_type, envelope.sent_at, envelope.priority));
    write_headers(envelope, |name, value| {
        if !is_of_one_delivery(name) {
            let _ = write!(all, " {name:?} {value:?}");
        }
    });
    all.0.write(&envelope.payload);
    Some(Nameless(all.0.finish()))
}

/// Hashes the text that is written to it.
struct Hashed<H>(H);

impl<H: Hasher> Write for Hashed<H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::broker::any;

    const MINUTE: Duration = Duration::from_secs(60);

    fn again(delivery: &Delivery) -> Delivery {
        Delivery {
            envelope: delivery.envelope.clone(),
            redelivered: true,
            delivery_count: Some(1),
            receipt: any::receipt(),
        }
    }

    proptest! {
        #[test]
        fn a_redelivery_has_the_number_of_its_delivery_whatever_the_broker_counts(
            delivery in any::delivery(any::receipt), count in any::<i64>()
        ) {
            let hasher = RandomState::default();
            let mut later = again(&delivery);
            let again = Arc::make_mut(&mut later.envelope);
            again.headers.set("x-delivery-count", count);
            if !again.has_own_id() {
                // The id is made anew for each delivery.
                again.id = MessageId::new();
                if again.conversation_id.as_ref() == Some(&delivery.envelope.id) {
                    again.conversation_id = Some(again.id.clone());
                }
            }
            let number = number_of(&delivery, Lane::Durable, &hasher);
            prop_assert_eq!(number.is_none(), delivery.envelope.has_own_id());
            prop_assert_eq!(number_of(&later, Lane::Durable, &hasher), number);
            let other = Arc::make_mut(&mut later.envelope);
            other.payload = [&other.payload[..], b"more"].concat().into();
            prop_assert!(number.is_none() || number_of(&later, Lane::Durable, &hasher) != number);
        }
    }

    #[test]
    fn each_loss_is_found_once_and_in_its_order() {
        let mut lost = Lost::default();
        lost.add(Nameless(7), "first".into());
        lost.add(Nameless(7), "second".into());
        lost.add(Nameless(8), "other".into());
        let mut find = |number| lost.find(Nameless(number), MINUTE, |_| false).map(|id| id.to_string());
        assert_eq!([find(7), find(7), find(7)], [Some("first".into()), Some("second".into()), None]);
        assert_eq!((find(8), lost.order.len(), lost.ids.len()), (Some("other".into()), 0, 0));
    }

    #[test]
    fn what_was_lost_long_ago_is_found_only_while_it_runs() {
        let mut lost = Lost::default();
        for id in ["gone", "running"] {
            lost.add(Nameless(7), id.into());
        }
        let runs = |id: &MessageId| id.as_str() == "running";
        assert_eq!(lost.find(Nameless(7), Duration::ZERO, runs).map(|id| id.to_string()), Some("running".into()));
        assert!(lost.find(Nameless(7), Duration::ZERO, runs).is_none() && lost.order.is_empty());
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut lost = Lost::default();
        for number in 0..MOST_REMEMBERED as u64 + 10 {
            lost.add(Nameless(number), MessageId::new());
        }
        assert_eq!((lost.order.len(), lost.ids.len()), (MOST_REMEMBERED, MOST_REMEMBERED));
        assert!(
            lost.find(Nameless(9), MINUTE, |_| true).is_none() && lost.find(Nameless(10), MINUTE, |_| true).is_some()
        );
    }

    #[test]
    fn a_redelivery_is_known_although_its_lane_does_not_know_yet_that_its_channel_has_closed() {
        let mut ids = NamelessIds::default();
        let (closed, open) = (Arc::new(any::Told::default()), Arc::new(any::Told::default()));
        closed.closed.store(true, std::sync::atomic::Ordering::Release);
        ids.hold(Nameless(7), "held".into(), Some(open));
        ids.hold(Nameless(7), "lost".into(), Some(closed));
        let find = |ids: &mut NamelessIds| ids.find(Nameless(7), |_| true).map(|id| id.to_string());
        assert_eq!([find(&mut ids), find(&mut ids)], [Some("lost".into()), None], "the other one is held");
        ids.lose(Nameless(7), "lost".into());
        assert_eq!(find(&mut ids), None, "it was found already");
        ids.lose(Nameless(7), "held".into());
        assert_eq!(find(&mut ids), Some("held".into()));
        ids.hold(Nameless(8), "settled".into(), None);
        ids.settled(Nameless(8), &"settled".into());
        assert!(ids.held.is_empty());
    }
}
