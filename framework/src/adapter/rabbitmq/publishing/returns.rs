//! Tells which confirms of one channel are final, and which may belong to a returned message: pure.
//!
//! The broker sends a returned message before that message's confirm. The client queues returned messages, and attaches the first
//! of them to whichever confirm it resolves next, perhaps another message's. It resolves confirms that came together in any order.
//! So a confirm is final only when its own message can no longer be in that queue. The queue never holds more messages than are
//! returned and unconfirmed. When each known returned message has its own confirm, the queue holds no message whose confirm was
//! seen here.

use crate::broker::Publication;

#[derive(Default)]
pub(super) struct Returns {
    /// Confirmed, and perhaps returned.
    unsettled: Vec<(u64, Publication)>,
    /// Returned, and not confirmed yet.
    returned: Vec<u64>,
}

impl Returns {
    /// A message was returned, attached to some confirm. Call this before `confirmed` for that confirm.
    pub(super) fn returned(&mut self, number: u64) {
        match self.unsettled.iter().position(|(confirmed, _)| *confirmed == number) {
            Some(place) => drop(self.unsettled.swap_remove(place)),
            None => self.returned.push(number),
        }
    }

    /// A message's own confirm has come.
    pub(super) fn confirmed(&mut self, number: u64, publication: Publication) {
        match self.returned.iter().position(|returned| *returned == number) {
            Some(place) => drop(self.returned.swap_remove(place)),
            None => self.unsettled.push((number, publication)),
        }
    }

    /// Moves the final outcomes into the empty list. Call it when all confirms that have come are reported.
    pub(super) fn settle_into(&mut self, settled: &mut Vec<(u64, Publication)>) {
        if self.returned.is_empty() {
            std::mem::swap(&mut self.unsettled, settled);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Steps: the broker takes some messages, and returns the unroutable ones at once. It confirms some that it has taken, and
        /// the client resolves those in its own order. Then the test perhaps looks, in an order of its own.
        #[test]
        fn no_message_that_came_back_is_ever_called_confirmed(
            unroutable in prop::collection::vec(any::<bool>(), 1..40), seed in any::<u64>(),
            steps in prop::collection::vec((0..5_u64, 0..6_usize, any::<bool>()), 0..60),
        ) {
            let count = unroutable.len() as u64;
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut taken, mut row, mut unconfirmed, mut resolved) = (0, VecDeque::new(), Vec::new(), Vec::new());
            let (mut returns, mut came_back, mut certain) = (Returns::default(), BTreeSet::new(), BTreeSet::new());
            for (takes, confirms, look) in steps.into_iter().chain([(count, usize::MAX, true)]) {
                let new = taken..count.min(taken + takes);
                taken = new.end;
                row.extend(new.clone().filter(|number| unroutable[*number as usize]));
                unconfirmed.extend(new);
                random.shuffle(&mut unconfirmed);
                for number in unconfirmed.drain(..confirms.min(unconfirmed.len())) {
                    resolved.push((number, row.pop_front()));
                }
                if !look {
                    continue;
                }
                random.shuffle(&mut resolved);
                for (number, attached) in resolved.drain(..) {
                    if let Some(back) = attached {
                        prop_assert!(came_back.insert(back));
                        returns.returned(back);
                    }
                    returns.confirmed(number, Publication::Confirmed);
                }
                let mut settled = Vec::new();
                returns.settle_into(&mut settled);
                for (number, _) in settled {
                    prop_assert!(!unroutable[number as usize], "{number} came back");
                    prop_assert!(certain.insert(number));
                }
            }
            let (back, there): (BTreeSet<u64>, BTreeSet<u64>) = (0..count).partition(|number| unroutable[*number as usize]);
            prop_assert_eq!((came_back, certain), (back, there), "each is answered");
        }
    }
}
