//! Whether a queue stalls: it has messages, the consumer has room, and nothing comes. A connected consumer may still get nothing.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use crate::broker::{Broker, QueueState};
use crate::inbound::lane::event::{Event, Found};

/// How soon a queue that seems to stall is inspected again: a message counted as ready may be on its way.
const SECOND_LOOK: Duration = Duration::from_secs(1);

/// Inspects a queue while nothing is delivered.
pub(in crate::inbound) struct Probe {
    stall_after: Duration,
    /// Since when there has been room and nothing came.
    idle_since: Option<Instant>,
    next: Instant,
    asked: Option<BoxFuture<'static, Found>>,
    /// Whether it seemed to stall at the last look.
    suspected: bool,
}

/// What ended a probe's wait.
enum Looked {
    /// It is time to inspect the queue.
    Due,
    Found(Found),
}

impl Probe {
    pub(in crate::inbound) fn new(stall_after: Duration) -> Self {
        let next = Instant::now() + stall_after / 2;
        Self { stall_after, idle_since: None, next, asked: None, suspected: false }
    }

    pub(in crate::inbound) fn delivered(&mut self) {
        (self.idle_since, self.suspected) = (None, false);
    }

    /// Sets whether there is room for a delivery.
    pub(in crate::inbound) fn watch(&mut self, room: bool) {
        if !room {
            self.delivered();
        } else if self.idle_since.is_none() {
            self.idle_since = Some(Instant::now());
        }
    }

    /// Waits for the time of the next look, or for its result.
    pub(super) async fn next(&mut self) -> Event {
        match self.look().await {
            Looked::Due => Event::Probe,
            Looked::Found(found) => Event::Probed(found),
        }
    }

    async fn look(&mut self) -> Looked {
        match &mut self.asked {
            Some(asked) => {
                let found = asked.await;
                self.asked = None;
                Looked::Found(found)
            }
            None => {
                sleep_until(self.next).await;
                Looked::Due
            }
        }
    }

    /// Waits until the queue stalls. Returns why the consumer must be opened again. Cancel safe.
    pub(in crate::inbound) async fn stalled(&mut self, broker: &Arc<dyn Broker>, queue: &str) -> &'static str {
        loop {
            match self.look().await {
                Looked::Due => self.ask(|| {
                    let (broker, queue) = (Arc::clone(broker), queue.to_owned());
                    Box::pin(async move { broker.inspect(&queue).await })
                }),
                Looked::Found(found) => {
                    if let Some(stall) = self.judge(&found, false) {
                        return stall;
                    }
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.idle_since.is_some_and(|since| since.elapsed() >= self.stall_after)
    }

    /// Inspects the queue, if nothing has come for long enough.
    pub(super) fn ask(&mut self, look: impl FnOnce() -> BoxFuture<'static, Found>) {
        self.next = Instant::now() + self.stall_after / 2;
        if self.is_idle() {
            self.asked = Some(look());
        }
    }

    /// Why the consumer must be opened again, if two looks in a row say so.
    pub(super) fn judge(&mut self, found: &Found, ordered: bool) -> Option<&'static str> {
        let stall = self.seems(found, ordered);
        let seemed = std::mem::replace(&mut self.suspected, stall.is_some());
        if stall.is_some() && !seemed {
            self.next = self.next.min(Instant::now() + SECOND_LOOK);
        }
        stall.filter(|_| seemed)
    }

    fn seems(&self, found: &Found, ordered: bool) -> Option<&'static str> {
        match found {
            _ if !self.is_idle() => None,
            // The connection reports its own loss.
            Err(_) => None,
            Ok(None) => Some("its queue is gone"),
            Ok(Some(QueueState { consumers: 0, .. })) => Some("the broker knows of no consumer"),
            // Another consumer may be the active one.
            Ok(Some(QueueState { consumers, .. })) if ordered && *consumers > 1 => None,
            Ok(Some(QueueState { ready: 0, .. })) => None,
            Ok(Some(_)) => Some("messages are ready, and none is delivered"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::BrokerError;

    fn found(ready: u64, consumers: u64) -> Found {
        Ok(Some(QueueState { ready, consumers }))
    }

    /// The result of two looks that find the same.
    fn twice(probe: &mut Probe, found: &Found, ordered: bool) -> Option<&'static str> {
        assert_eq!(probe.judge(found, ordered), None, "one look is not enough");
        let stall = probe.judge(found, ordered);
        probe.suspected = false;
        stall
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_with_room_stalls_when_messages_are_ready_and_none_comes() {
        let mut probe = Probe::new(Duration::from_secs(10));
        probe.watch(true);
        assert_eq!(twice(&mut probe, &found(1, 1), false), None, "it may come any moment");
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(twice(&mut probe, &found(1, 1), false).is_some());
        assert!(twice(&mut probe, &found(0, 0), false).is_some());
        assert!(twice(&mut probe, &Ok(None), false).is_some());
        assert_eq!(twice(&mut probe, &found(0, 1), false), None);
        assert_eq!(twice(&mut probe, &found(1, 2), true), None, "the other one is active");
        assert_eq!(twice(&mut probe, &Err(BrokerError::Stopped), false), None);
        probe.delivered();
        assert_eq!(twice(&mut probe, &found(1, 1), false), None);
        probe.watch(true);
        tokio::time::advance(Duration::from_secs(11)).await;
        probe.watch(false);
        assert_eq!(twice(&mut probe, &found(1, 1), false), None, "there is no room");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_comes_between_two_looks_is_no_stall() {
        let mut probe = Probe::new(Duration::from_secs(10));
        probe.watch(true);
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(probe.judge(&found(1, 1), false), None);
        assert!(probe.next <= Instant::now() + SECOND_LOOK, "it is looked at again soon");
        probe.delivered();
        probe.watch(true);
        assert_eq!(probe.judge(&found(1, 1), false), None, "it is not idle");
        tokio::time::advance(Duration::from_secs(11)).await;
        assert_eq!(probe.judge(&found(1, 1), false), None, "what seemed so before does not count");
        assert_eq!(probe.judge(&found(0, 1), false), None);
        assert_eq!(probe.judge(&found(1, 1), false), None, "the looks were not in a row");
        assert!(probe.judge(&found(1, 1), false).is_some());
    }
}
