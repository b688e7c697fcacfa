//! Messages that wait to be sent, and messages that are held aside because their target confirms nothing.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::adapter::rabbitmq::publishing::job::Job;

/// The most messages that are held aside.
const MOST_HELD: usize = 1_024;

/// Messages that wait for the channel, oldest first.
#[derive(Default)]
pub(super) struct Waiting {
    jobs: VecDeque<Box<Job>>,
    held: VecDeque<Box<Job>>,
    /// No deadline is earlier than this. It may be stale: the message it came from can have left.
    earliest: Option<Instant>,
}

impl Waiting {
    /// The number of waiting messages, without those that are held aside.
    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether no message waits or is held aside.
    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.held.is_empty()
    }

    pub(super) fn front(&self) -> Option<&Job> {
        self.jobs.front().map(|job| &**job)
    }

    pub(super) fn pop_front(&mut self) -> Option<Box<Job>> {
        self.jobs.pop_front()
    }

    pub(super) fn push_front(&mut self, job: Box<Job>) {
        self.heed(&job);
        self.jobs.push_front(job);
    }

    pub(super) fn push_back(&mut self, job: Box<Job>) {
        self.heed(&job);
        self.jobs.push_back(job);
    }

    /// Holds a message aside, or gives it back if there is no room.
    pub(super) fn hold(&mut self, job: Box<Job>) -> Result<(), Box<Job>> {
        if self.held.len() >= MOST_HELD {
            return Err(job);
        }
        self.heed(&job);
        self.held.push_back(job);
        Ok(())
    }

    /// Holds a message aside again, in front of all others.
    pub(super) fn hold_again(&mut self, job: Box<Job>) {
        self.heed(&job);
        self.held.push_front(job);
    }

    /// Puts the messages held aside in front of all that wait.
    pub(super) fn release(&mut self) {
        while let Some(job) = self.held.pop_back() {
            self.jobs.push_front(job);
        }
    }

    /// Puts messages of a channel that has ended in front of all others, in their order. If order does not matter, those that
    /// have closed channels go behind all others.
    pub(super) fn send_again(&mut self, jobs: impl Iterator<Item = Box<Job>>, in_any_order: bool) {
        let (suspects, innocent): (Vec<_>, Vec<_>) = jobs.partition(|job| in_any_order && job.closed_channels > 0);
        innocent.into_iter().rev().for_each(|job| self.push_front(job));
        suspects.into_iter().for_each(|job| self.push_back(job));
    }

    /// When the next deadline may pass.
    pub(super) fn look_at(&self) -> Option<Instant> {
        self.earliest.filter(|_| !self.is_empty())
    }

    /// Answers the callers whose deadline has passed.
    pub(super) fn end_overdue(&mut self, now: Instant, why: &str) {
        if self.look_at().is_none_or(|at| at > now) {
            return;
        }
        for jobs in [&mut self.jobs, &mut self.held] {
            jobs.retain_mut(|job| {
                let over = job.deadline <= now;
                if over {
                    job.give_up(why);
                }
                !over
            });
        }
        self.earliest = self.jobs.iter().chain(&self.held).map(|job| job.deadline).min();
    }

    fn heed(&mut self, job: &Job) {
        self.earliest = self.earliest.filter(|_| !self.is_empty()).into_iter().chain([job.deadline]).min();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;
    use crate::adapter::amqp::Routed;

    fn job(name: &str, closed_channels: u8) -> Box<Job> {
        let message = Routed::for_test("", name, false);
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut job = Job::new(message, deadline, oneshot::channel().0, usize::MAX).unwrap();
        job.closed_channels = closed_channels;
        job
    }

    #[test]
    fn what_may_have_closed_a_channel_is_sent_again_behind_all_others_where_order_does_not_matter() {
        for (in_any_order, expected) in
            [(true, "innocent other new first second"), (false, "first innocent second other new")]
        {
            let mut waiting = Waiting::default();
            waiting.push_back(job("new", 0));
            let ended = [("first", 1), ("innocent", 0), ("second", 2), ("other", 0)];
            waiting.send_again(ended.into_iter().map(|(name, closed)| job(name, closed)), in_any_order);
            let order = std::iter::from_fn(|| waiting.pop_front());
            let order: Vec<String> = order.map(|job| job.message.way.routing_key.to_string()).collect();
            assert_eq!(order.join(" "), expected);
        }
    }
}
