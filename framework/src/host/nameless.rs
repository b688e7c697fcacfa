//! Messages without an id, which foreign senders may leave out. What was lost with its channel gets the id again that it had
//! here when it is delivered again, so that it is known by it like any other.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

use foldhash::HashMap;
use foldhash::quality::RandomState;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::broker::{Delivery, is_of_one_delivery};
use crate::handler::Lane;
use crate::message::MessageId;

/// The most messages without an id that are remembered per actor. Beyond it the oldest are forgotten, and run again.
const MOST_REMEMBERED: usize = 4_096;

/// Deliveries that this process had, in the order in which they were lost. Each is found once: of two messages that are
/// the same to the byte, each redelivery stands for one.
#[derive(Default)]
pub(super) struct Lost {
    ids: HashMap<u64, SmallVec<[(Instant, MessageId); 1]>>,
    order: VecDeque<u64>,
}

impl Lost {
    /// A delivery was lost, or given back.
    pub(super) fn add(&mut self, number: u64, id: MessageId) {
        self.ids.entry(number).or_default().push((Instant::now(), id));
        self.order.push_back(number);
        while self.order.len() > MOST_REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.take_first(oldest);
            }
        }
    }

    /// The id that a redelivery had. One that was lost long ago has gone to somebody else, unless it still runs here.
    pub(super) fn find(
        &mut self,
        number: u64,
        young: Duration,
        runs: impl Fn(&MessageId) -> bool,
    ) -> Option<MessageId> {
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

    fn take_first(&mut self, number: u64) -> Option<(Instant, MessageId)> {
        let ids = self.ids.get_mut(&number)?;
        let first = if ids.is_empty() { None } else { Some(ids.remove(0)) };
        if ids.is_empty() {
            self.ids.remove(&number);
        }
        first
    }
}

/// A number for everything that a delivery has in common with its redelivery, if it has no id.
pub(super) fn number_of(delivery: &Delivery, lane: Lane, hasher: &RandomState) -> Option<u64> {
    let properties = &delivery.properties;
    if properties.message_id.as_deref().is_some_and(|id| !id.is_empty()) {
        return None;
    }
    let mut all = Hashed(hasher.build_hasher());
    let texts = [&properties.correlation_id, &properties.reply_to, &properties.message_type, &properties.app_id];
    let origin = &delivery.origin;
    // Writing to it never fails.
    let _ = write!(all, "{lane} {:?} {:?} {texts:?}", origin.exchange, origin.routing_key);
    let rest = (&properties.content_type, properties.timestamp, properties.priority, &properties.user_id);
    let _ = write!(all, " {rest:?}");
    for (name, value) in properties.headers.iter().filter(|(name, _)| !is_of_one_delivery(name)) {
        let _ = write!(all, " {name:?} {value:?}");
    }
    all.0.write(&delivery.payload);
    Some(all.0.finish())
}

/// Text that is only hashed.
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
            origin: delivery.origin.clone(),
            redelivered: true,
            delivery_count: Some(1),
            properties: delivery.properties.clone(),
            payload: delivery.payload.clone(),
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
            Arc::make_mut(&mut later.properties).headers.set("x-delivery-count", count);
            let number = number_of(&delivery, Lane::Durable, &hasher);
            prop_assert_eq!(number.is_none(), delivery.properties.message_id.as_deref().is_some_and(|id| !id.is_empty()));
            prop_assert_eq!(number_of(&later, Lane::Durable, &hasher), number);
            later.payload = [&later.payload[..], b"more"].concat().into();
            prop_assert!(number.is_none() || number_of(&later, Lane::Durable, &hasher) != number);
        }
    }

    #[test]
    fn each_loss_is_found_once_and_in_its_order() {
        let mut lost = Lost::default();
        lost.add(7, "first".into());
        lost.add(7, "second".into());
        lost.add(8, "other".into());
        let mut find = |number| lost.find(number, MINUTE, |_| false).map(|id| id.to_string());
        assert_eq!([find(7), find(7), find(7)], [Some("first".into()), Some("second".into()), None]);
        assert_eq!((find(8), lost.order.len(), lost.ids.len()), (Some("other".into()), 0, 0));
    }

    #[test]
    fn what_was_lost_long_ago_is_found_only_while_it_runs() {
        let mut lost = Lost::default();
        for id in ["gone", "running"] {
            lost.add(7, id.into());
        }
        let runs = |id: &MessageId| id.as_str() == "running";
        assert_eq!(lost.find(7, Duration::ZERO, runs).map(|id| id.to_string()), Some("running".into()));
        assert!(lost.find(7, Duration::ZERO, runs).is_none() && lost.order.is_empty());
    }

    #[test]
    fn only_so_many_are_remembered() {
        let mut lost = Lost::default();
        for number in 0..MOST_REMEMBERED as u64 + 10 {
            lost.add(number, MessageId::new());
        }
        assert_eq!((lost.order.len(), lost.ids.len()), (MOST_REMEMBERED, MOST_REMEMBERED));
        assert!(lost.find(9, MINUTE, |_| true).is_none() && lost.find(10, MINUTE, |_| true).is_some());
    }
}
