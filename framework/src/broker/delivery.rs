//! A delivery, and the receipt that settles it exactly once.

use std::fmt;
use std::sync::Arc;

use crate::broker::Addressed;
use crate::message::Envelope;

/// A message that the broker delivered.
#[derive(Debug)]
pub struct Delivery {
    /// The message.
    pub envelope: Arc<Envelope>,
    /// Whether it may have been delivered before. `false` proves a first delivery, `true` proves nothing.
    pub redelivered: bool,
    /// How often it was requeued, if the queue counts.
    pub delivery_count: Option<u32>,
    /// The single-use right to settle it.
    pub receipt: Receipt,
}

/// One open channel of an adapter, for settling deliveries. No method blocks.
pub trait DeliveryChannel: Send + Sync {
    /// Acknowledges the delivery with this tag. The broker may be told later, together with others.
    fn ack(&self, tag: u64);
    /// Sends all acknowledgements to the broker. Called when no other delivery is about to be settled.
    fn flush(&self);
    /// Requeues the delivery with this tag.
    fn give_back(&self, tag: u64);
    /// Whether the channel is open. A closed one sends nothing; the broker delivers again.
    fn is_live(&self) -> bool;
    /// Sends the answer to a delivery on the channel on which it arrived. The number is the lane's own. A channel takes
    /// answers only if its consumer was opened for them.
    fn answer(&self, number: u64, answer: Addressed) -> Answered {
        let _ = number;
        Answered::Refused(Box::new(answer))
    }
}

/// The result of sending an answer.
#[derive(Debug)]
pub enum Answered {
    /// The broker has it.
    Left,
    /// It is on its way; [`Consumer::poll_answered`](crate::broker::Consumer::poll_answered) reports when it has been
    /// sent.
    Leaving,
    /// The channel does not take answers.
    Refused(Box<Addressed>),
}

/// The single-use right to settle a delivery. It knows the channel of the delivery and is consumed by settling;
/// dropping it requeues the delivery.
#[must_use = "a delivery that is not settled blocks its queue"]
pub struct Receipt {
    tag: u64,
    channel: Option<Arc<dyn DeliveryChannel>>,
}

impl Receipt {
    /// Called by adapters, once per delivery.
    pub fn new(tag: u64, channel: Arc<dyn DeliveryChannel>) -> Self {
        Self { tag, channel: Some(channel) }
    }

    /// Acknowledges the delivery; the broker forgets it.
    pub fn ack(mut self) {
        if let Some(channel) = self.channel.take() {
            channel.ack(self.tag);
            channel.flush();
        }
    }

    /// Acknowledges the delivery. The broker is told with the next flush of the returned channel.
    pub fn ack_with_next_flush(mut self) -> Option<Arc<dyn DeliveryChannel>> {
        let channel = self.channel.take()?;
        channel.ack(self.tag);
        Some(channel)
    }

    /// Requeues the delivery for another consumer.
    pub fn give_back(mut self) {
        if let Some(channel) = self.channel.take() {
            channel.give_back(self.tag);
        }
    }

    /// Sends the answer on the delivery's own channel. The delivery is settled behind it, once the answer has been
    /// sent.
    #[must_use = "a delivery is settled when its answer has left"]
    pub fn answer(&self, number: u64, answer: Addressed) -> Answered {
        match &self.channel {
            Some(channel) => channel.answer(number, answer),
            None => Answered::Refused(Box::new(answer)),
        }
    }

    /// The channel on which the delivery is settled.
    pub(crate) fn channel(&self) -> Option<Arc<dyn DeliveryChannel>> {
        self.channel.clone()
    }

    /// Whether settling still reaches the broker. If not, the broker delivers the message again.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.channel.as_ref().is_some_and(|channel| channel.is_live())
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if let Some(channel) = self.channel.take() {
            channel.give_back(self.tag);
        }
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").field("tag", &self.tag).finish_non_exhaustive()
    }
}
