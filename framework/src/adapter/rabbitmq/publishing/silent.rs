//! Targets that take messages and confirm none, such as a quorum queue that has lost its majority: pure.
//!
//! RabbitMQ holds up a channel on which more than 32 messages wait for one quorum queue. After 400 more messages, to any target, it
//! holds up the whole connection. So a silent target gets only a few messages. Those that follow are held aside until it confirms
//! one, or their deadline passes.

use std::time::Duration;

use foldhash::{HashMap, HashMapExt};
use tokio::time::Instant;

use crate::adapter::amqp::Way;

/// The time without a confirm after which a message's target counts as silent. A queue that elects a leader may take longer.
pub(super) const SILENT_AFTER: Duration = Duration::from_secs(5);
/// The most unconfirmed messages to a silent target on one channel.
const MOST_UNCONFIRMED: usize = 16;
/// The most targets that are known as silent; further ones are treated as any others.
const MOST_TARGETS: usize = 1_024;
/// The shortest time between two messages to a silent target that are tried on another channel.
const TRY_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Silent {
    /// How many messages to it on the channel are unconfirmed.
    unconfirmed: usize,
    /// When one of its messages was last tried on another channel, or when the target became known as silent.
    tried: Instant,
    /// Whether a message to it was confirmed on another channel, although ours stays silent.
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

    /// Whether a message to this target must be held aside.
    pub(super) fn holds(&self, target: impl FnOnce() -> Way) -> bool {
        !self.0.is_empty() && self.0.get(&target()).is_some_and(|silent| silent.unconfirmed >= MOST_UNCONFIRMED)
    }

    /// A message to this target is sent.
    pub(super) fn sent(&mut self, target: impl FnOnce() -> Way) {
        if !self.0.is_empty()
            && let Some(silent) = self.0.get_mut(&target())
        {
            silent.unconfirmed += 1;
        }
    }

    /// The broker has confirmed, rejected or returned a message. Returns whether its target was silent until now.
    pub(super) fn heard(&mut self, target: impl FnOnce() -> Way) -> bool {
        !self.0.is_empty() && self.0.remove(&target()).is_some()
    }

    /// The next channel has no messages yet. Silent targets stay known, so that they do not hold up that channel too.
    pub(super) fn channel_ended(&mut self) {
        self.0.values_mut().for_each(|silent| silent.unconfirmed = 0);
    }

    /// Whether to try a held message on another channel, since ours may be the cause.
    pub(super) fn is_try_due(&mut self, target: &Way, now: Instant) -> bool {
        let Some(silent) = self.0.get_mut(target).filter(|silent| now >= silent.tried + TRY_PAUSE) else {
            return false;
        };
        silent.tried = now;
        true
    }

    /// A message to this target was confirmed on another channel. Returns whether that happened before too: then our channel is the
    /// cause.
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
