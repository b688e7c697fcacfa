//! Redeliveries that this process itself has caused: it gave the message back, or lost its channel, and lives. They are no sign of a crash.

use std::collections::HashMap;

use crate::broker::Delivery;
use crate::message::MessageId;

/// The most messages that are remembered per lane. Beyond it all are forgotten, and their deliveries count again.
const MOST_REMEMBERED: usize = 4_096;

/// How often this process had each message.
#[derive(Default)]
pub(super) struct KnownRedeliveries(HashMap<MessageId, u32>);

impl KnownRedeliveries {
    /// One more delivery that has ended without an end of this process.
    pub(super) fn add(&mut self, id: MessageId) {
        if self.0.len() >= MOST_REMEMBERED && !self.0.contains_key(&id) {
            self.0.clear();
        }
        *self.0.entry(id).or_default() += 1;
    }

    /// How often a message was delivered without an end, here not counted.
    pub(super) fn unexplained_deliveries(&self, delivery: &Delivery) -> u32 {
        let count = delivery.delivery_count.unwrap_or(0);
        if count == 0 || self.0.is_empty() {
            return count;
        }
        count.saturating_sub(self.0.get(&delivery.envelope.id).copied().unwrap_or(0))
    }
}
