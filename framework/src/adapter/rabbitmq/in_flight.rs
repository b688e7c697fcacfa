//! What is sent and not confirmed, in the order in which it was sent.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::adapter::rabbitmq::job::Job;

/// Messages by number. Numbers are given in order, and the oldest usually leave first.
#[derive(Default)]
pub(super) struct InFlight {
    /// The number of the first place.
    first: u64,
    places: VecDeque<Option<Box<Job>>>,
    count: usize,
    /// How many of them are requests.
    requests: usize,
    /// Nobody's time is over before; it may lie before that of all who are still here.
    earliest: Option<Instant>,
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The number of the next message.
    pub(super) fn next_number(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    /// Whether nothing is in flight but requests, whose senders wait for more than the confirm.
    pub(super) fn only_requests(&self) -> bool {
        self.requests == self.count
    }

    pub(super) fn push(&mut self, job: Box<Job>) {
        self.heed(&job);
        self.places.push_back(Some(job));
    }

    /// Puts back what was taken out just now.
    pub(super) fn put_back(&mut self, number: u64, job: Box<Job>) {
        self.heed(&job);
        while number < self.first {
            self.first -= 1;
            self.places.push_front(None);
        }
        if let Some(place) = self.place(number) {
            *place = Some(job);
        }
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Job> {
        self.place(number)?.as_deref_mut()
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Box<Job>> {
        let job = self.place(number)?.take()?;
        self.count -= 1;
        self.requests -= usize::from(job.awaits_reply);
        while let Some(None) = self.places.front() {
            self.places.pop_front();
            self.first += 1;
        }
        Some(job)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Job)> {
        (self.first..).zip(&mut self.places).filter_map(|(number, job)| Some((number, job.as_deref_mut()?)))
    }

    /// Takes all out, the newest first.
    pub(super) fn take_newest_first(&mut self) -> impl Iterator<Item = Box<Job>> + use<> {
        std::mem::take(self).places.into_iter().rev().flatten()
    }

    /// When to look whose time is over. It may still be a time of messages that have left: whoever waits for it need not
    /// be told of every new one.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.earliest
    }

    /// Somebody's time may be over: all are looked at, which is done so rarely that it costs nothing.
    pub(super) fn look(&mut self, mut at: impl FnMut(&mut Job)) {
        self.earliest = None;
        let (mut earliest, places) = (None, &mut self.places);
        for job in places.iter_mut().flatten() {
            at(job);
            earliest = earliest.into_iter().chain(job.time_is_over_at()).min();
        }
        self.earliest = earliest;
    }

    fn heed(&mut self, job: &Job) {
        self.count += 1;
        self.requests += usize::from(job.awaits_reply);
        self.earliest = self.earliest.into_iter().chain(job.time_is_over_at()).min();
    }

    fn place(&mut self, number: u64) -> Option<&mut Option<Box<Job>>> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.places.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;
    use tokio::sync::oneshot;

    use super::*;
    use crate::broker::Addressed;

    fn job(routing_key: &str, awaits_reply: bool, deadline: Instant) -> Box<Job> {
        let message = Addressed {
            exchange: "".into(),
            routing_key: routing_key.into(),
            mandatory: true,
            awaits_reply,
            properties: std::sync::Arc::default(),
            payload: Bytes::new(),
        };
        Job::new(message, deadline, oneshot::channel().0, usize::MAX).unwrap()
    }

    proptest! {
        /// Steps: a new message with its deadline, or one of those in flight is taken out, and perhaps put back.
        #[test]
        fn it_is_a_map_of_numbers_that_never_misses_a_deadline(
            steps in prop::collection::vec((0..3_u8, any::<prop::sample::Index>(), 0..1_000_u64), 0..80)
        ) {
            let (began, mut known, mut jobs) = (Instant::now(), BTreeMap::new(), InFlight::default());
            for (step, which, millis) in steps {
                let deadline = began + std::time::Duration::from_millis(millis);
                if step == 0 || known.is_empty() {
                    let number = jobs.next_number();
                    jobs.push(job(&number.to_string(), number % 3 == 0, deadline));
                    known.insert(number, deadline);
                } else {
                    let number = *which.get(&known.keys().copied().collect::<Vec<_>>());
                    let taken = jobs.remove(number).unwrap();
                    prop_assert_eq!(taken.routing_key.parse(), Ok(number));
                    prop_assert!(jobs.remove(number).is_none());
                    if step == 1 {
                        jobs.put_back(number, taken);
                    } else {
                        known.remove(&number);
                    }
                }
                prop_assert_eq!(jobs.len(), known.len());
                prop_assert_eq!(jobs.only_requests(), known.keys().all(|number| number % 3 == 0));
                prop_assert!(known.values().min().is_none_or(|first| jobs.look_at().is_some_and(|at| at <= *first)));
                let numbers: Vec<u64> = jobs.iter_mut().map(|(number, _)| number).collect();
                prop_assert_eq!(numbers, known.keys().copied().collect::<Vec<_>>());
            }
            jobs.look(|_| {});
            prop_assert_eq!(jobs.look_at(), known.values().min().copied());
            let left: Vec<String> = jobs.take_newest_first().map(|job| job.routing_key.to_string()).collect();
            prop_assert_eq!(left, known.keys().rev().map(u64::to_string).collect::<Vec<_>>());
        }
    }
}
