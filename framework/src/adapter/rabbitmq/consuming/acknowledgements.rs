//! Decides which acknowledgements to send on one channel, and when: pure.

use std::collections::VecDeque;

/// An acknowledgement to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ack {
    /// Of one delivery.
    One(u64),
    /// Of all unacknowledged deliveries up to this one.
    UpTo(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    /// The lane still works on it.
    Open,
    /// Done; the broker has not been told.
    Done,
    /// The broker has been told.
    Told,
}

/// The delivery tags of one channel. Acknowledgements are collected and sent together: one for the unbroken row of settled tags,
/// and a single one for each tag beyond it, so that none waits for another delivery.
#[derive(Debug)]
pub(super) struct Acks {
    /// The broker has been told of all tags up to this one.
    told: u64,
    /// The tags after `told`.
    tags: VecDeque<Tag>,
    /// The number of done deliveries that the broker has not been told of.
    waiting: usize,
    /// With this number waiting, they are sent at once.
    most: usize,
}

/// The most acknowledgements that wait, whatever the prefetch.
const MOST_WAITING: usize = 64;

impl Acks {
    /// Up to a quarter of the prefetch may wait, so that unsent acknowledgements never use up the prefetch.
    pub(super) fn new(prefetch: u16) -> Self {
        let most = (usize::from(prefetch) / 4).clamp(1, MOST_WAITING);
        Self { told: 0, tags: VecDeque::new(), waiting: 0, most }
    }

    /// A delivery is done. Returns whether to send acknowledgements now.
    pub(super) fn done(&mut self, tag: u64) -> bool {
        if self.set(tag, Tag::Done) {
            self.waiting += 1;
        }
        self.waiting >= self.most
    }

    /// A delivery was given back, so the broker has been told of it.
    pub(super) fn given_back(&mut self, tag: u64) {
        self.set(tag, Tag::Told);
        self.forget_told();
    }

    /// The acknowledgements to send now.
    pub(super) fn flush(&mut self) -> Vec<Ack> {
        let mut acks = Vec::new();
        if self.waiting == 0 {
            return acks;
        }
        self.waiting = 0;
        let row = self.tags.iter().take_while(|tag| **tag != Tag::Open).count();
        // The last done tag of the row covers all before it.
        if let Some(last) = (0..row).rev().find(|&index| self.tags[index] == Tag::Done) {
            acks.push(Ack::UpTo(self.told + 1 + last as u64));
        }
        for index in row..self.tags.len() {
            if self.tags[index] == Tag::Done {
                self.tags[index] = Tag::Told;
                acks.push(Ack::One(self.told + 1 + index as u64));
            }
        }
        self.tags.drain(..row);
        self.told += row as u64;
        acks
    }

    /// Sets the state of an open tag. Returns whether the tag was open.
    fn set(&mut self, tag: u64, state: Tag) -> bool {
        let Some(index) = tag.checked_sub(self.told + 1).and_then(|index| usize::try_from(index).ok()) else {
            return false;
        };
        if index >= self.tags.len() {
            self.tags.resize(index + 1, Tag::Open);
        }
        let was_open = self.tags[index] == Tag::Open;
        if was_open {
            self.tags[index] = state;
        }
        was_open
    }

    fn forget_told(&mut self) {
        while self.tags.front() == Some(&Tag::Told) {
            self.tags.pop_front();
            self.told += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_unbroken_row_is_one_ack_and_what_is_beyond_it_is_acked_alone() {
        let mut acks = Acks::new(400);
        for tag in [2, 1, 5, 3] {
            assert!(!acks.done(tag));
        }
        assert_eq!(acks.flush(), [Ack::UpTo(3), Ack::One(5)]);
        assert_eq!(acks.flush(), []);
        acks.done(4);
        assert_eq!(acks.flush(), [Ack::UpTo(4)]);
        acks.done(6);
        assert_eq!(acks.flush(), [Ack::UpTo(6)]);
    }

    #[test]
    fn a_quarter_of_the_prefetch_or_64_are_sent_at_once() {
        let mut acks = Acks::new(8);
        assert_eq!((acks.done(1), acks.done(2)), (false, true));
        let mut acks = Acks::new(10_000);
        assert_eq!((1..=64).filter(|tag| acks.done(*tag)).collect::<Vec<_>>(), [64]);
        assert!(Acks::new(1).done(1));
    }

    /// Acts as the broker, and refuses what RabbitMQ refuses.
    #[derive(Default)]
    struct Broker {
        unsettled: BTreeSet<u64>,
    }

    impl Broker {
        fn take(&mut self, ack: Ack) -> Vec<u64> {
            let settled: Vec<u64> = match ack {
                Ack::One(tag) => self.unsettled.take(&tag).into_iter().collect(),
                Ack::UpTo(tag) => {
                    assert!(self.unsettled.contains(&tag), "PRECONDITION_FAILED: unknown delivery tag {tag}");
                    let rest = self.unsettled.split_off(&(tag + 1));
                    std::mem::replace(&mut self.unsettled, rest).into_iter().collect()
                }
            };
            assert!(!settled.is_empty(), "PRECONDITION_FAILED: {ack:?} settles nothing");
            settled
        }
    }

    /// All orders of this number of tags.
    fn orders(tags: u64) -> Vec<Vec<u64>> {
        let Some(shorter) = tags.checked_sub(1) else { return vec![Vec::new()] };
        let insert = |order: &Vec<u64>, place: usize| [&order[..place], &[tags], &order[place..]].concat();
        orders(shorter)
            .iter()
            .flat_map(|order| (0..=order.len()).map(|place| insert(order, place)).collect::<Vec<_>>())
            .collect()
    }

    #[test]
    fn every_order_of_five_deliveries_is_acknowledged_exactly() {
        for order in orders(5) {
            // As bits: which deliveries are given back, and after which steps the channel is flushed.
            for (given_back, flushed) in
                (0..32_u32).flat_map(|given_back| (0..32_u32).map(move |flushed| (given_back, flushed)))
            {
                let (mut broker, mut acks) = (Broker { unsettled: (1..=5).collect() }, Acks::new(400));
                let mut done = BTreeSet::new();
                for (step, &tag) in order.iter().enumerate() {
                    if given_back >> (tag - 1) & 1 == 1 {
                        broker.take(Ack::One(tag));
                        acks.given_back(tag);
                    } else {
                        done.insert(tag);
                        acks.done(tag);
                    }
                    if flushed >> step & 1 == 1 || step == 4 {
                        let settled: Vec<u64> = acks.flush().into_iter().flat_map(|ack| broker.take(ack)).collect();
                        assert!(settled.iter().all(|tag| done.contains(tag)), "{order:?} {given_back:b} {flushed:b}");
                        assert!(done.iter().all(|tag| !broker.unsettled.contains(tag)));
                    }
                }
                assert!(broker.unsettled.is_empty() && acks.tags.is_empty());
            }
        }
    }

    proptest! {
        /// Deliveries are finished, given back and flushed in any order.
        #[test]
        fn an_ack_never_covers_an_unsettled_delivery(
            order in Just((1..=40_u64).collect::<Vec<_>>()).prop_shuffle(),
            given_back in prop::collection::vec(prop::bool::weighted(0.2), 40),
            flush_after in prop::collection::vec(prop::bool::weighted(0.3), 40),
            prefetch in 1_u16..200,
        ) {
            let mut broker = Broker { unsettled: (1..=40).collect() };
            let (mut acks, mut done) = (Acks::new(prefetch), BTreeSet::new());
            for (step, tag) in order.into_iter().enumerate() {
                let full = if given_back[step] {
                    // The frame is sent at once, before any later acknowledgement.
                    broker.take(Ack::One(tag));
                    acks.given_back(tag);
                    false
                } else {
                    done.insert(tag);
                    acks.done(tag)
                };
                if full || flush_after[step] {
                    for ack in acks.flush() {
                        for settled in broker.take(ack) {
                            prop_assert!(done.contains(&settled), "{ack:?} settled {settled}, which is still open");
                        }
                    }
                    let told = done.iter().all(|tag| !broker.unsettled.contains(tag));
                    prop_assert!(told, "something is done and was not acknowledged");
                }
            }
            for ack in acks.flush() {
                broker.take(ack);
            }
            prop_assert!(broker.unsettled.is_empty(), "left over: {:?}", broker.unsettled);
            prop_assert!(acks.tags.is_empty());
        }
    }
}
