//! Sends the waiting messages on the channel, or holds them aside while their target is silent.

use std::future::Future;

use lapin::options::BasicConsumeOptions;
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection};
use tokio::time::{Instant, sleep_until};

use crate::adapter::rabbitmq::declare::answered_unless_blocked;
use crate::adapter::rabbitmq::errors::on_channel;
use crate::adapter::rabbitmq::publishing::channel_life::{ChannelLife, ask};
use crate::adapter::rabbitmq::publishing::job::Job;
use crate::adapter::rabbitmq::publishing::owner::Owner;
use crate::adapter::rabbitmq::publishing::rejections::Tried;
use crate::adapter::rabbitmq::publishing::silent::SILENT_AFTER;
use crate::broker::{BrokerError, DIRECT_REPLY_TO};

impl ChannelLife {
    pub(super) async fn send_waiting(&mut self, owner: &mut Owner) -> Result<(), String> {
        while let Some(first) = owner.waiting.front() {
            // A message that may be the reason for a closed channel is sent alone, so that it does not take others down.
            if !self.send_path.lock().has_room_for(first) {
                break;
            }
            let Some(mut job) = owner.waiting.pop_front() else { break };
            if !job.is_awaited() {
                continue;
            }
            if job.deadline <= Instant::now() {
                job.give_up("the time was over");
                continue;
            }
            if self.send_path.lock().silent.holds(|| job.target()) {
                if self.hold(owner, job) {
                    continue;
                }
                break;
            }
            if job.awaits_reply() && self.replies.is_none() {
                let opening = open_replies(self.connection.clone(), Channel::clone(&self.channel));
                match self.meanwhile(owner, opening).await {
                    Ok(replies) => {
                        self.replies = Some(replies);
                        self.send_path.lock().takes_requests = true;
                    }
                    Err(error) => {
                        owner.waiting.push_front(job);
                        // A message on the channel may be the reason.
                        return Err(self.why_ended().await.unwrap_or_else(|| error.to_string()));
                    }
                }
            }
            // The owner checks its deadline before it awaits anything else.
            self.send_path.lock().send(&self.channel, job, Instant::now());
        }
        Ok(())
    }

    /// Holds a message aside whose target confirms nothing. Returns whether to go on with the next one.
    fn hold(&mut self, owner: &mut Owner, job: Box<Job>) -> bool {
        let now = Instant::now();
        // A request cannot be tried on another channel: its reply comes to the channel that sent it.
        let blocked = self.connection.status().blocked();
        let can_be_tried = !job.awaits_reply() && !blocked && !self.rejections.is_trying();
        if can_be_tried && self.send_path.lock().silent.is_try_due(&job.target(), now) {
            self.rejections.try_elsewhere(job, false, &self.connection);
            return true;
        }
        let Err(mut job) = owner.waiting.hold(job) else { return true };
        if self.liveness.was_heard_within(SILENT_AFTER, now) {
            job.give_up("many messages wait for queues that confirm nothing");
            return true;
        }
        // Perhaps no target confirms anything. Then all messages wait, in order, until the broker has answered. While the broker is
        // short of memory it answers no publisher, so it is not asked.
        if !blocked {
            self.liveness.ask(now, || ask(&self.channel));
        }
        owner.waiting.push_front(job);
        false
    }

    /// Handles the outcome of a message that was tried on another channel.
    pub(super) fn was_tried(&mut self, tried: Tried, owner: &mut Owner) {
        match tried {
            Tried::Told => {}
            Tried::NotSent(job) => owner.waiting.hold_again(job),
            Tried::Taken(target) => {
                if self.send_path.lock().silent.taken_elsewhere(&target) && !self.stuck {
                    self.stuck = true;
                    let routing_key = &*target.routing_key;
                    tracing::warn!(
                        routing_key,
                        "the broker confirms on other channels what it does not on this one; opening a new one"
                    );
                }
            }
        }
    }

    /// Awaits `something`, and meanwhile answers callers at their deadline.
    async fn meanwhile<T>(
        &mut self,
        owner: &mut Owner,
        something: impl Future<Output = Result<T, BrokerError>>,
    ) -> Result<T, BrokerError> {
        tokio::pin!(something);
        loop {
            let look_at = self.send_path.lock().in_flight.next_deadline();
            let wake_at = self.wake_at(owner, look_at);
            tokio::select! {
                biased;
                done = &mut something => return done,
                () = self.liveness.answered() => {}
                () = sleep_until(wake_at) => {
                    self.look_for_overdue(owner).map_err(|reason| BrokerError::Lost { reason })?;
                }
            }
        }
    }
}

async fn open_replies(
    connection: std::sync::Arc<Connection>,
    channel: Channel,
) -> Result<lapin::Consumer, BrokerError> {
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consuming =
        channel.basic_consume(DIRECT_REPLY_TO.into(), ShortString::default(), options, FieldTable::default());
    answered_unless_blocked(&connection, "consume replies", consuming).await?.map_err(|error| on_channel(&error))
}
