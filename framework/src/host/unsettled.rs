//! Keeps outcomes of messages that were handled but could not be settled, because their channel had closed. The redelivery takes
//! the outcome, so that the handler does not run again.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::handler::{Failed, Outcome};
use crate::host::handled::Handled;

/// How long an outcome is remembered. The broker delivers such a message again at once, but perhaps to another process.
pub(super) const REMEMBERED_FOR: Duration = Duration::from_secs(60);
/// The most outcomes that are remembered per actor. Beyond that the oldest are forgotten, and those messages run again.
const MOST_REMEMBERED: usize = 4_096;
/// The most bytes of answers and errors in the remembered outcomes.
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// A hash of everything that identifies a message across redeliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint(pub(super) u64);

/// The outcomes that are not settled, and since when.
#[derive(Default)]
pub(super) struct Unsettled {
    ended: HashMap<Fingerprint, (u64, Handled)>,
    /// The fingerprints by age.
    ages: BTreeMap<u64, (Instant, Fingerprint)>,
    bytes: usize,
    next: u64,
}

impl Unsettled {
    /// Adds an outcome. Forgets outcomes that are too old or exceed a limit.
    pub(super) fn add(&mut self, of: Fingerprint, handled: Handled) {
        self.take(of);
        let (now, age) = (Instant::now(), self.next);
        self.next += 1;
        self.bytes += bytes_of(&handled);
        self.ended.insert(of, (age, handled));
        self.ages.insert(age, (now, of));
        while self.ended.len() > MOST_REMEMBERED || self.bytes > MOST_BYTES {
            self.forget_oldest();
        }
        self.forget_old();
    }

    /// Removes and returns the outcome of this message.
    pub(super) fn take(&mut self, of: Fingerprint) -> Option<Handled> {
        let (age, handled) = self.ended.remove(&of)?;
        self.ages.remove(&age);
        self.bytes -= bytes_of(&handled);
        Some(handled)
    }

    /// Forgets outcomes that are older than [`REMEMBERED_FOR`].
    pub(super) fn forget_old(&mut self) {
        while self.ages.first_key_value().is_some_and(|(_, (at, _))| at.elapsed() > REMEMBERED_FOR) {
            self.forget_oldest();
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ended.is_empty()
    }

    fn forget_oldest(&mut self) {
        let Some((_, &(_, oldest))) = self.ages.first_key_value() else { return };
        self.take(oldest);
    }
}

fn bytes_of(handled: &Handled) -> usize {
    match &handled.outcome {
        Outcome::Done(Some(reply)) => reply.payload.len(),
        Outcome::Failed(Failed { problem, log, .. }) => problem.text.len() + log.len(),
        Outcome::Done(None) | Outcome::Expired => 0,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::handler::Reply;
    use crate::host::AttemptRecord;
    use crate::message::MediaType;

    fn handled(bytes: usize) -> Handled {
        let reply = Reply { media_type: MediaType::BYTES, payload: Bytes::from(vec![0; bytes]) };
        Handled::given_back(Outcome::Done(Some(reply)), AttemptRecord::default())
    }

    #[test]
    fn only_so_many_outcomes_are_remembered_and_each_once() {
        let mut unsettled = Unsettled::default();
        for number in 0..MOST_REMEMBERED as u64 + 10 {
            unsettled.add(Fingerprint(number), handled(1));
        }
        assert_eq!((unsettled.ended.len(), unsettled.ages.len()), (MOST_REMEMBERED, MOST_REMEMBERED));
        assert!(unsettled.take(Fingerprint(9)).is_none() && unsettled.take(Fingerprint(10)).is_some());
        assert!(unsettled.take(Fingerprint(10)).is_none());
        assert_eq!(unsettled.bytes, MOST_REMEMBERED - 1);
    }

    #[test]
    fn only_so_many_bytes_of_answers_are_remembered() {
        let mut unsettled = Unsettled::default();
        for number in 0..100 {
            unsettled.add(Fingerprint(number), handled(MOST_BYTES / 10));
            assert!(unsettled.bytes <= MOST_BYTES);
        }
        assert_eq!(unsettled.ended.len(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_old_is_forgotten_although_nothing_is_added() {
        let mut unsettled = Unsettled::default();
        unsettled.add(Fingerprint(1), handled(1));
        tokio::time::advance(REMEMBERED_FOR + Duration::from_secs(1)).await;
        unsettled.forget_old();
        assert!(unsettled.is_empty() && unsettled.ages.is_empty() && unsettled.bytes == 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_ends_unsettled_a_second_time_is_remembered_as_long_as_any_other() {
        let mut unsettled = Unsettled::default();
        unsettled.add(Fingerprint(1), handled(1));
        assert!(unsettled.take(Fingerprint(1)).is_some());
        tokio::time::advance(REMEMBERED_FOR - Duration::from_secs(1)).await;
        unsettled.add(Fingerprint(1), handled(2));
        tokio::time::advance(Duration::from_secs(2)).await;
        unsettled.forget_old();
        assert!(unsettled.take(Fingerprint(1)).is_some(), "the first time says nothing about the second");
    }
}
