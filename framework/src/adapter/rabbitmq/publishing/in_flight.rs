//! Messages that are sent and unconfirmed, in the order in which they were sent.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::adapter::amqp::Way;
use crate::adapter::rabbitmq::publishing::job::Job;
use crate::adapter::rabbitmq::publishing::silent::SILENT_AFTER;

/// When to check again a message whose caller has its answer, but which is not written yet.
const WRITTEN_PAUSE: Duration = Duration::from_secs(1);
/// The row may have this number of places beyond twice the messages, before it is cleaned up.
const SPARE_PLACES: usize = 64;

/// Messages by number. Numbers ascend, and the oldest messages usually leave first.
#[derive(Default)]
pub(super) struct InFlight {
    /// The number of the first place in the row.
    first: u64,
    row: VecDeque<Option<Box<Job>>>,
    /// Messages that stayed while most of the row has left; they are older than all in the row. Moving them here keeps the row
    /// short, so that no search passes many empty places.
    stragglers: BTreeMap<u64, Box<Job>>,
    count: usize,
    /// How many of the messages are requests.
    requests: usize,
    /// No deadline is earlier than this. It may be stale: the message it came from can have left.
    earliest: Option<Instant>,
    /// Messages whose callers have their answer. They do not count as in flight.
    overdue: BTreeMap<u64, Overdue>,
}

/// The remains of a message whose caller was told that its outcome is unknown: enough to recognise the message when it is returned.
pub(super) struct Overdue {
    pub(super) target: Way,
    id: Option<Arc<str>>,
    mandatory: bool,
}

/// A message that the broker has confirmed, rejected or returned.
pub(super) enum Taken {
    Job(Box<Job>),
    /// Its caller has its answer already.
    Overdue(Way),
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The number of overdue messages.
    pub(super) fn overdue(&self) -> usize {
        self.overdue.len()
    }

    /// The number of the next message.
    pub(super) fn next_number(&self) -> u64 {
        self.first + self.row.len() as u64
    }

    /// Whether all messages in flight are requests, whose callers wait for more than the confirm.
    pub(super) fn only_requests(&self) -> bool {
        self.requests == self.count
    }

    pub(super) fn push(&mut self, job: Box<Job>) {
        self.track(&job);
        self.row.push_back(Some(job));
        while self.row.len() > 2 * self.count + SPARE_PLACES {
            if let Some(Some(job)) = self.row.pop_front() {
                self.stragglers.insert(self.first, job);
            }
            self.first += 1;
        }
    }

    /// Puts a message back that was just taken out.
    pub(super) fn put_back(&mut self, number: u64, job: Box<Job>) {
        self.track(&job);
        match self.place(number) {
            Some(place) => *place = Some(job),
            None => drop(self.stragglers.insert(number, job)),
        }
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut Job> {
        if number < self.first {
            return self.stragglers.get_mut(&number).map(|job| &mut **job);
        }
        self.place(number)?.as_deref_mut()
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Box<Job>> {
        let job = if number < self.first { self.stragglers.remove(&number)? } else { self.place(number)?.take()? };
        self.count -= 1;
        self.requests -= usize::from(job.awaits_reply());
        while let Some(None) = self.row.front() {
            self.row.pop_front();
            self.first += 1;
        }
        Some(job)
    }

    /// Takes out a message, or the remains of an overdue one.
    pub(super) fn take(&mut self, number: u64) -> Option<Taken> {
        match self.remove(number) {
            Some(job) => Some(Taken::Job(job)),
            None => self.overdue.remove(&number).map(|overdue| Taken::Overdue(overdue.target)),
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Job)> {
        let row = (self.first..).zip(&mut self.row).filter_map(|(number, job)| Some((number, job.as_deref_mut()?)));
        self.stragglers.iter_mut().map(|(number, job)| (*number, &mut **job)).chain(row)
    }

    /// Which message was returned with the confirm of this number: nearly always its own.
    pub(super) fn returned_with(&mut self, number: u64, id: Option<&str>, routing_key: &str) -> Option<u64> {
        let meant =
            |job: &Job| job.message.mandatory && job.message_id() == id && *job.message.way.routing_key == *routing_key;
        if self.get_mut(number).is_some_and(|job| meant(job)) {
            return Some(number);
        }
        let overdue = |overdue: &Overdue| {
            overdue.mandatory && overdue.id.as_deref() == id && *overdue.target.routing_key == *routing_key
        };
        if self.overdue.get(&number).is_some_and(overdue) {
            return Some(number);
        }
        let found = self.iter_mut().find(|(_, job)| meant(job)).map(|(number, _)| number);
        found.or_else(|| self.overdue.iter().find(|(_, message)| overdue(message)).map(|(number, _)| *number))
    }

    /// Takes out all messages, the newest first.
    pub(super) fn take_newest_first(&mut self) -> impl Iterator<Item = Box<Job>> + use<> {
        let Self { row, stragglers, .. } = std::mem::take(self);
        row.into_iter().rev().flatten().chain(stragglers.into_values().rev())
    }

    /// When the next deadline may have passed. It may be too early, so that the owner need not be woken for each new message.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.earliest
    }

    /// Checks all messages when a deadline may have passed, which is rare enough to cost nothing. Callers whose deadline has passed
    /// are answered. Their messages become overdue, except those numbered from `unwritten` on, which the client still has in
    /// memory. Returns the silent targets, and how many unconfirmed messages each has.
    pub(super) fn visit_due(&mut self, now: Instant, unwritten: u64) -> BTreeMap<Way, usize> {
        let (mut earliest, mut leaving, mut silent) = (None, Vec::new(), Vec::new());
        for (number, job) in self.iter_mut() {
            if job.result.is_some() && job.deadline <= now {
                job.give_up("no confirm came in time");
            }
            let answered = job.result.is_none();
            if answered || job.sent_at.is_some_and(|at| at + SILENT_AFTER <= now) {
                silent.push(job.target());
            }
            let next = match (answered, number < unwritten) {
                (true, true) => {
                    leaving.push(number);
                    None
                }
                (true, false) => Some(now + WRITTEN_PAUSE),
                (false, _) => job.look_at(now),
            };
            earliest = earliest.into_iter().chain(next).min();
        }
        self.earliest = earliest;
        for number in leaving {
            if let Some(job) = self.remove(number) {
                let id = job.message_id().map(Into::into);
                self.overdue.insert(number, Overdue { target: job.target(), id, mandatory: job.message.mandatory });
            }
        }
        self.counted(silent)
    }

    /// How many messages to each of these targets are unconfirmed.
    fn counted(&mut self, targets: Vec<Way>) -> BTreeMap<Way, usize> {
        let mut counts: BTreeMap<Way, usize> = targets.into_iter().map(|target| (target, 0)).collect();
        if counts.is_empty() {
            return counts;
        }
        let overdue: Vec<Way> = self.overdue.values().map(|message| message.target.clone()).collect();
        for target in self.iter_mut().map(|(_, job)| job.target()).chain(overdue) {
            if let Some(count) = counts.get_mut(&target) {
                *count += 1;
            }
        }
        counts
    }

    fn track(&mut self, job: &Job) {
        self.count += 1;
        self.requests += usize::from(job.awaits_reply());
        let look_at = job.sent_at.and_then(|at| job.look_at(at)).or(Some(job.deadline));
        self.earliest = self.earliest.into_iter().chain(look_at).min();
    }

    fn place(&mut self, number: u64) -> Option<&mut Option<Box<Job>>> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.row.get_mut(index)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::sync::oneshot;

    use super::*;
    use crate::adapter::amqp::Routed;

    fn job(routing_key: &str, awaits_reply: bool, deadline: Instant) -> Box<Job> {
        let message = Routed::for_test("", routing_key, awaits_reply);
        Job::new(message, deadline, oneshot::channel().0, usize::MAX).unwrap()
    }

    proptest! {
        /// Steps: a new message with its deadline comes, or one in flight is taken out and perhaps put back.
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
                    prop_assert_eq!(taken.message.way.routing_key.parse(), Ok(number));
                    prop_assert!(jobs.remove(number).is_none());
                    if step == 1 {
                        jobs.put_back(number, taken);
                    } else {
                        known.remove(&number);
                    }
                }
                prop_assert_eq!(jobs.len(), known.len());
                prop_assert_eq!(jobs.only_requests(), known.keys().all(|number| number % 3 == 0));
                prop_assert!(known.values().min().is_none_or(|first| jobs.next_deadline().is_some_and(|at| at <= *first)));
                let numbers: Vec<u64> = jobs.iter_mut().map(|(number, _)| number).collect();
                prop_assert_eq!(numbers, known.keys().copied().collect::<Vec<_>>());
            }
            jobs.visit_due(began, u64::MAX);
            let later: Vec<Instant> = known.values().copied().filter(|deadline| *deadline > began).collect();
            prop_assert_eq!(jobs.next_deadline(), later.into_iter().min());
            known.retain(|_, deadline| *deadline > began);
            let left: Vec<String> = jobs.take_newest_first().map(|job| job.message.way.routing_key.to_string()).collect();
            prop_assert_eq!(left, known.keys().rev().map(u64::to_string).collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_never_confirmed_costs_nobody_a_search_through_those_that_have_left() {
        let (began, mut jobs) = (Instant::now(), InFlight::default());
        jobs.push(job("silent", false, began));
        for number in 1..10_000 {
            jobs.push(job("gone", false, began));
            assert!(jobs.remove(number).is_some());
        }
        assert!(jobs.row.len() <= 2 * jobs.count + SPARE_PLACES, "{} places for one message", jobs.row.len());
        assert_eq!(jobs.iter_mut().map(|(number, _)| number).collect::<Vec<_>>(), [0]);
        assert!(jobs.get_mut(0).is_some() && jobs.remove(0).is_some() && jobs.is_empty());
    }

    #[test]
    fn what_is_beyond_its_deadline_makes_room_and_is_recognised_when_it_comes_back() {
        let (began, mut jobs) = (Instant::now(), InFlight::default());
        let deadline = began + Duration::from_secs(1);
        (0..3).for_each(|_| jobs.push(job("k", false, deadline)));
        jobs.push(job("later", false, deadline + deadline.duration_since(began)));
        let silent = jobs.visit_due(deadline, 2);
        assert_eq!(silent, BTreeMap::from([(Way { exchange: "".into(), routing_key: "k".into() }, 3)]));
        assert_eq!((jobs.len(), jobs.overdue()), (2, 2), "the third is not written yet");
        assert_eq!(jobs.next_deadline(), Some(deadline + WRITTEN_PAUSE));
        assert_eq!(jobs.returned_with(1, None, "k"), Some(1));
        assert_eq!(jobs.returned_with(3, None, "k"), Some(2), "one that is in flight comes first");
        jobs.visit_due(deadline, 3);
        assert_eq!((jobs.len(), jobs.overdue()), (1, 3));
        assert!(matches!(jobs.take(1), Some(Taken::Overdue(_))) && jobs.take(1).is_none());
        assert_eq!(jobs.returned_with(3, None, "k"), Some(0));
    }
}
