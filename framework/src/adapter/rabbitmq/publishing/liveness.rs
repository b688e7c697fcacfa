//! Whether a channel lives. Each confirm shows it. If the broker has confirmed nothing for a while although messages wait, it is
//! asked, so that a queue that never confirms does not cost the channel of all other targets.

use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::Instant;

/// How long the broker may neither confirm anything nor answer before the channel counts as dead.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// The time without a confirm after which the broker is asked.
const ASK_AFTER: Duration = Duration::from_secs(10);

/// The liveness of one channel.
pub(super) struct Liveness {
    /// When the broker last gave a sign of life, or no confirm was awaited.
    heard: Instant,
    /// When the broker was asked, and its answer.
    asked: Option<(Instant, BoxFuture<'static, bool>)>,
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Self { heard: now, asked: None }
    }

    /// The broker has given a sign of life.
    pub(super) fn heard(&mut self, now: Instant) {
        (self.heard, self.asked) = (now, None);
    }

    /// Whether the broker has given a sign of life within this time.
    pub(super) fn was_heard_within(&self, time: Duration, now: Instant) -> bool {
        self.heard + time > now
    }

    /// When to check again.
    pub(super) fn look_at(&self) -> Instant {
        self.asked.as_ref().map_or(self.heard + ASK_AFTER, |(asked, _)| *asked + CONFIRM_TIMEOUT)
    }

    /// Asks the broker if it has long been silent although messages wait; an error when the channel is dead. `waits` must be false
    /// while the broker is short of memory, since it answers no publisher then.
    pub(super) fn look(
        &mut self,
        now: Instant,
        waits: bool,
        ask: impl FnOnce() -> BoxFuture<'static, bool>,
    ) -> Result<(), String> {
        if now < self.look_at() {
            return Ok(());
        }
        if !waits {
            self.heard(now);
            return Ok(());
        }
        if self.asked.is_some() {
            return Err(format!("nothing was confirmed, nor a question answered, within {CONFIRM_TIMEOUT:?}"));
        }
        self.ask(now, ask);
        Ok(())
    }

    /// Asks the broker now, unless an answer is awaited.
    pub(super) fn ask(&mut self, now: Instant, ask: impl FnOnce() -> BoxFuture<'static, bool>) {
        if self.asked.is_none() {
            self.asked = Some((now, ask()));
        }
    }

    /// Waits for the answer; for ever if there is no question.
    pub(super) async fn answered(&mut self) {
        let Some((_, answer)) = &mut self.asked else { return std::future::pending().await };
        // An error means that the channel has ended, which the awaited confirms report too.
        let _ = answer.await;
        self.heard(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn ask(answer: bool) -> BoxFuture<'static, bool> {
        if answer { std::future::ready(true).boxed() } else { std::future::pending().boxed() }
    }

    #[test]
    fn a_channel_is_dead_when_it_neither_confirms_nor_answers() {
        let began = Instant::now();
        let mut liveness = Liveness::new(began);
        assert!(liveness.look(began + ASK_AFTER, true, || ask(false)).is_ok());
        assert!(liveness.asked.is_some());
        let dead_at = began + ASK_AFTER + CONFIRM_TIMEOUT;
        assert_eq!(liveness.look_at(), dead_at);
        assert!(liveness.look(dead_at - ASK_AFTER, true, || ask(false)).is_ok());
        assert!(liveness.look(dead_at, true, || ask(false)).is_err());
    }

    #[test]
    fn a_broker_that_is_asked_at_once_has_as_long_to_answer() {
        let began = Instant::now();
        let mut liveness = Liveness::new(began);
        liveness.ask(began, || ask(false));
        liveness.ask(began + ASK_AFTER, || panic!("it has been asked"));
        assert_eq!(liveness.look_at(), began + CONFIRM_TIMEOUT);
    }

    #[test]
    fn a_channel_that_answers_or_has_nothing_to_confirm_is_kept() {
        let began = Instant::now();
        let mut liveness = Liveness::new(began);
        assert!(liveness.look(began + ASK_AFTER, true, || ask(true)).is_ok());
        assert!(liveness.answered().now_or_never().is_some() && liveness.asked.is_none());
        let later = began + 10 * CONFIRM_TIMEOUT;
        assert!(liveness.look(later, false, || ask(false)).is_ok());
        assert!(liveness.asked.is_none() && liveness.was_heard_within(ASK_AFTER, later));
    }
}
