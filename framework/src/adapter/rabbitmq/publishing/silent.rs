//! Targets that take messages and confirm none, such as a quorum queue that has lost its majority: pure.
//!
//! RabbitMQ holds up a channel on which more than 32 messages wait for one quorum queue, and with it the whole connection
//! after 400 more messages, whatever their targets. So a target that is silent gets a few messages and no more; those that
//! follow are held aside until it has confirmed one, or their time is over.

use std::time::Duration;

use foldhash::{HashMap, HashMapExt};
use tokio::time::Instant;

use crate::adapter::amqp::Way;

/// After how long without a confirm a message's target counts as silent. A queue that elects a leader may take longer.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(5);
/// The most unconfirmed messages that a silent target is sent on one channel.
const MOST_UNCONFIRMED: usize = 16;
/// The most targets that are known to be silent; more are treated as any others.
const MOST_TARGETS: usize = 1_024;
/// The shortest time between two messages to a silent target that are tried on another channel.
const TRY_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Silent {
    /// How many messages to it are on the channel, unconfirmed.
    unconfirmed: usize,
    /// When one of its messages was tried last on another channel.
    tried: Instant,
    /// Whether another channel had one confirmed, although ours stays silent.
    taken_elsewhere: bool,
}

/// The silent targets of one publisher, over all its channels.
#[derive(Debug)]
pub(super) struct SilentTargets(HashMap<Way, Silent>);

impl Default for SilentTargets {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl SilentTargets {
    /// A target has confirmed nothing for a while, with this number of messages on the channel.
    pub(super) fn note(&mut self, target: Way, unconfirmed: usize, now: Instant) {
        if self.0.len() < MOST_TARGETS {
            self.0.entry(target).or_insert(Silent { unconfirmed, tried: now, taken_elsewhere: false });
        }
    }

    /// Whether a message is to be held aside.
    pub(super) fn holds(&self, target: impl FnOnce() -> Way) -> bool {
        !self.0.is_empty() && self.0.get(&target()).is_some_and(|silent| silent.unconfirmed >= MOST_UNCONFIRMED)
    }

    /// A message is put on the channel.
    pub(super) fn sent(&mut self, target: impl FnOnce() -> Way) {
        if !self.0.is_empty()
            && let Some(silent) = self.0.get_mut(&target())
        {
            silent.unconfirmed += 1;
        }
    }

    /// The broker has said what became of a message. Whether its target was silent until now.
    pub(super) fn heard(&mut self, target: impl FnOnce() -> Way) -> bool {
        !self.0.is_empty() && self.0.remove(&target()).is_some()
    }

    /// Nothing is on the next channel yet. Who is silent stays known, so that it does not hold up that one too.
    pub(super) fn channel_ended(&mut self) {
        self.0.values_mut().for_each(|silent| silent.unconfirmed = 0);
    }

    /// Whether a held message is to be tried on another channel: ours may be the reason.
    pub(super) fn is_try_due(&mut self, target: &Way, now: Instant) -> bool {
        let Some(silent) = self.0.get_mut(target).filter(|silent| now >= silent.tried + TRY_PAUSE) else {
            return false;
        };
        silent.tried = now;
        true
    }

    /// Another channel had a message confirmed. Whether that happened before too: then it is our channel that is silent.
    pub(super) fn taken_elsewhere(&mut self, target: &Way) -> bool {
        self.0.get_mut(target).is_some_and(|silent| std::mem::replace(&mut silent.taken_elsewhere, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(key: &str) -> Way {
        Way { exchange: "e".into(), routing_key: key.into() }
    }

    #[test]
    fn a_silent_target_gets_a_few_messages_until_it_confirms_one() {
        let (mut targets, now) = (SilentTargets::default(), Instant::now());
        assert!(!targets.holds(|| target("a")));
        targets.note(target("a"), MOST_UNCONFIRMED - 1, now);
        assert!(!targets.holds(|| target("a")));
        targets.sent(|| target("a"));
        targets.sent(|| target("b"));
        assert!(targets.holds(|| target("a")) && !targets.holds(|| target("b")));
        targets.channel_ended();
        assert!(!targets.holds(|| target("a")), "a few on each channel");
        (0..MOST_UNCONFIRMED).for_each(|_| targets.sent(|| target("a")));
        assert!(targets.holds(|| target("a")));
        assert!(targets.heard(|| target("a")) && !targets.heard(|| target("a")));
        assert!(!targets.holds(|| target("a")));
    }

    #[test]
    fn a_channel_is_at_fault_when_another_one_is_confirmed_twice_what_it_is_not() {
        let (mut targets, now) = (SilentTargets::default(), Instant::now());
        targets.note(target("a"), 1, now);
        assert!(!targets.is_try_due(&target("a"), now), "it has kept silent just now");
        assert!(targets.is_try_due(&target("a"), now + TRY_PAUSE));
        assert!(!targets.is_try_due(&target("a"), now + TRY_PAUSE), "one at a time");
        assert!(!targets.taken_elsewhere(&target("a")));
        assert!(targets.taken_elsewhere(&target("a")));
        assert!(!targets.taken_elsewhere(&target("b")));
    }

    #[test]
    fn no_more_silent_targets_are_known_than_the_limit() {
        let (mut targets, now) = (SilentTargets::default(), Instant::now());
        (0..2 * MOST_TARGETS).for_each(|key| targets.note(target(&key.to_string()), 1, now));
        assert_eq!(targets.0.len(), MOST_TARGETS);
    }
}
