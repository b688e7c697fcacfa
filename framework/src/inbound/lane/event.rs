//! The events that wake a lane, and why its channel ends.

use tokio::sync::mpsc;

use crate::broker::{BrokerError, QueueState};
use crate::host::{End, Finished, Handled, Settlement, Turn};
use crate::inbound::settle::Receive;
use crate::inbound::suspects::Cleared;

/// The state of a queue, as the broker reports it.
pub(super) type Found = Result<Option<QueueState>, BrokerError>;

/// The events that can wake a lane.
pub(super) enum Event {
    /// Something has happened and was dealt with.
    Progress,
    /// The consumer has ended: the broker has cancelled it, or there was an error.
    Ended(Option<BrokerError>),
    Finished(Finished),
    Settled(Settled),
    /// Whether a suspect may be handled; `None` when the app stops.
    Cleared(u64, Option<Cleared>),
    /// The answer to a delivery was sent, or will not be.
    Answered(u64, bool),
    /// The oldest answer was not sent in time.
    Unanswered,
    /// Nothing else is ready: acknowledgements are flushed.
    Quiet,
    /// It is time to check whether the queue stalls.
    Probe,
    Probed(Found),
    /// An order to the actor has changed.
    Controlled,
    Stop,
}

/// A delivery of which everything is published; only its receipt is left to use.
pub(super) struct Settled {
    pub(super) number: u64,
    pub(super) receive: Receive,
    /// The right to handle it, and how it was handled.
    pub(super) handled: Option<(Turn, Handled)>,
}

impl Drop for Settled {
    /// The lane is gone. A redelivery is acknowledged then, and not handled again.
    fn drop(&mut self) {
        if let Some((turn, mut handled)) = self.handled.take().filter(|_| self.receive == Receive::Ack) {
            handled.settlement = ONLY_ACK;
            turn.pass_on(handled);
        }
    }
}

/// A delivery that a task settles. If the task panics, the lane hears that it is given back: else it would be held for ever.
pub(super) struct Unsettled {
    pub(super) number: u64,
    /// Never full: it has room for every held delivery. `None` once the lane has heard.
    pub(super) settle: Option<mpsc::Sender<Settled>>,
}

impl Unsettled {
    /// Tells the lane. A lane that is gone has given its deliveries back already.
    pub(super) fn end(mut self, settled: Settled) {
        if let Some(settle) = self.settle.take() {
            let _ = settle.try_send(settled);
        }
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if let Some(settle) = self.settle.take() {
            let _ = settle.try_send(Settled { number: self.number, receive: Receive::GiveBack, handled: None });
        }
    }
}

/// The settlement of a message for which only the acknowledgement is left to do.
pub(super) const ONLY_ACK: Settlement = Settlement { answer: false, end: End::Ack };

/// Why an epoch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// For good.
    Stopped,
    /// Until it is resumed, or the circuit breaker lets a message through.
    Paused,
    /// A new consumer must be opened.
    Lost,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_delivery_whose_task_panics_is_given_back() {
        let (settle, mut settled) = mpsc::channel(1);
        let unsettled = Unsettled { number: 7, settle: Some(settle) };
        let panics = tokio::spawn(async move {
            let _held = unsettled;
            panic!("as a bug would make it");
        });
        panics.await.unwrap_err();
        let Some(Settled { number: 7, receive: Receive::GiveBack, handled: None }) = settled.recv().await.as_mut()
        else {
            panic!("the lane does not hear of it");
        };
    }
}
