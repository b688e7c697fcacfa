//! Whether a queue stalls: it has messages, the lane has room, and nothing comes. Connected and consuming proves nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::broker::{Broker, BrokerError, QueueState};
use crate::inbound::lane::event::Event;

/// What the broker says of a queue.
pub(super) type Found = Result<Option<QueueState>, BrokerError>;

/// Looks at a lane's queue while nothing is delivered.
pub(super) struct Probe {
    stall_after: Duration,
    /// Since when the lane has had room and got nothing.
    idle_since: Option<Instant>,
    next: Instant,
    asked: Option<oneshot::Receiver<Found>>,
}

impl Probe {
    pub(super) fn new(stall_after: Duration) -> Self {
        Self { stall_after, idle_since: None, next: Instant::now() + stall_after / 2, asked: None }
    }

    pub(super) fn delivered(&mut self) {
        self.idle_since = None;
    }

    /// Says whether the lane has room.
    pub(super) fn watch(&mut self, room: bool) {
        if !room {
            self.idle_since = None;
        } else if self.idle_since.is_none() {
            self.idle_since = Some(Instant::now());
        }
    }

    /// Waits for the next look, or for what it finds.
    pub(super) async fn next(&mut self) -> Event {
        match &mut self.asked {
            Some(asked) => {
                let found = asked.await;
                self.asked = None;
                Event::Probed(found.unwrap_or(Err(BrokerError::Stopped)))
            }
            None => {
                sleep_until(self.next).await;
                Event::Probe
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.idle_since.is_some_and(|since| since.elapsed() >= self.stall_after)
    }

    /// Looks at the queue, if nothing has come for long enough.
    pub(super) fn ask(&mut self, broker: &Arc<dyn Broker>, queue: &str) {
        self.next = Instant::now() + self.stall_after / 2;
        if !self.is_idle() {
            return;
        }
        let (tell, asked) = oneshot::channel();
        let (broker, queue) = (Arc::clone(broker), queue.to_owned());
        actix_rt::spawn(async move {
            // A lane that is gone does not want to know.
            let _ = tell.send(broker.inspect(&queue).await);
        });
        self.asked = Some(asked);
    }

    /// Why the consumer is to be opened again, if it is.
    pub(super) fn judge(&self, found: &Found, ordered: bool) -> Option<&'static str> {
        match found {
            _ if !self.is_idle() => None,
            // The connection tells by itself when it is gone.
            Err(_) => None,
            Ok(None) => Some("its queue is gone"),
            Ok(Some(QueueState { consumers: 0, .. })) => Some("the broker knows of no consumer"),
            // Another one may be the active one.
            Ok(Some(QueueState { consumers, .. })) if ordered && *consumers > 1 => None,
            Ok(Some(QueueState { ready: 0, .. })) => None,
            Ok(Some(_)) => Some("messages are ready, and none is delivered"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(ready: u64, consumers: u64) -> Found {
        Ok(Some(QueueState { ready, consumers }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_with_room_stalls_when_messages_are_ready_and_none_comes() {
        let mut probe = Probe::new(Duration::from_secs(10));
        probe.watch(true);
        assert_eq!(probe.judge(&found(1, 1), false), None, "it may come any moment");
        tokio::time::advance(Duration::from_secs(11)).await;
        assert!(probe.judge(&found(1, 1), false).is_some());
        assert!(probe.judge(&found(0, 0), false).is_some());
        assert!(probe.judge(&Ok(None), false).is_some());
        assert_eq!(probe.judge(&found(0, 1), false), None);
        assert_eq!(probe.judge(&found(1, 2), true), None, "the other one is active");
        assert_eq!(probe.judge(&Err(BrokerError::Stopped), false), None);
        probe.delivered();
        assert_eq!(probe.judge(&found(1, 1), false), None);
        probe.watch(true);
        tokio::time::advance(Duration::from_secs(11)).await;
        probe.watch(false);
        assert_eq!(probe.judge(&found(1, 1), false), None, "there is no room");
    }
}
