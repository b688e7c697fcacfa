//! A delivery, and the receipt that settles it once.

use std::fmt;
use std::sync::Arc;

use crate::broker::Addressed;
use crate::message::Envelope;

/// What the broker handed over.
#[derive(Debug)]
pub struct Delivery {
    /// The message.
    pub envelope: Arc<Envelope>,
    /// Whether it may have been handed over before. `false` proves a first delivery, `true` proves nothing.
    pub redelivered: bool,
    /// How often it was given back, where the queue counts.
    pub delivery_count: Option<u32>,
    /// The single-use right to settle it.
    pub receipt: Receipt,
}

/// One open channel of an adapter, as far as settling goes. None of the methods blocks.
pub trait DeliveryChannel: Send + Sync {
    /// The delivery with this tag is done. The broker may be told later, together with others.
    fn ack(&self, tag: u64);
    /// Tells the broker of everything that is done. Called whenever nothing else is about to be settled.
    fn flush(&self);
    /// The delivery with this tag goes back to its queue.
    fn give_back(&self, tag: u64);
    /// Whether the channel is open. On a closed one nothing is sent: the broker delivers again.
    fn is_live(&self) -> bool;
    /// Sends the answer to the delivery with this number of the lane's own, on the channel on which that came. A channel
    /// takes none unless its consumer was opened for answers.
    fn answer(&self, number: u64, answer: Addressed) -> Answered {
        let _ = number;
        Answered::Refused(Box::new(answer))
    }
}

/// What became of an answer.
#[derive(Debug)]
pub enum Answered {
    /// It is with the broker.
    Left,
    /// It is on its way; [`Consumer::poll_answered`](crate::broker::Consumer::poll_answered) tells when it has left.
    Leaving,
    /// The channel does not take it.
    Refused(Box<Addressed>),
}

/// The single-use right to settle a delivery. It knows the channel it came from and is consumed by settling;
/// one that is dropped gives its delivery back.
#[must_use = "a delivery that is not settled blocks its queue"]
pub struct Receipt {
    tag: u64,
    channel: Option<Arc<dyn DeliveryChannel>>,
}

impl Receipt {
    /// Made by adapters, once per delivery.
    pub fn new(tag: u64, channel: Arc<dyn DeliveryChannel>) -> Self {
        Self { tag, channel: Some(channel) }
    }

    /// The delivery is done; the broker forgets it.
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

    /// The delivery goes back to its queue for somebody else.
    pub fn give_back(mut self) {
        if let Some(channel) = self.channel.take() {
            channel.give_back(self.tag);
        }
    }

    /// Sends the answer on the channel of its delivery, in front of whatever settles that once the answer has left.
    #[must_use = "a delivery is settled when its answer has left"]
    pub fn answer(&self, number: u64, answer: Addressed) -> Answered {
        match &self.channel {
            Some(channel) => channel.answer(number, answer),
            None => Answered::Refused(Box::new(answer)),
        }
    }

    /// The channel on which settling it would go.
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
