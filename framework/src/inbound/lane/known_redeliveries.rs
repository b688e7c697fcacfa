//! Redeliveries that this process has caused by giving a message back or losing its channel. They are no sign of a crash.

use std::collections::HashMap;

use crate::broker::Delivery;
use crate::message::MessageId;

/// The most messages remembered per lane. Above this number all are forgotten, and their deliveries count again.
const MOST_REMEMBERED: usize = 4_096;

/// How often this process gave back or lost each message.
#[derive(Default)]
pub(super) struct KnownRedeliveries(HashMap<MessageId, u32>);

impl KnownRedeliveries {
    /// Counts a delivery that was not settled although this process lives.
    pub(super) fn add(&mut self, id: MessageId) {
        if self.0.len() >= MOST_REMEMBERED && !self.0.contains_key(&id) {
            self.0.clear();
        }
        *self.0.entry(id).or_default() += 1;
    }

    /// How often a message was delivered without being settled, apart from deliveries to this lane.
    pub(super) fn unexplained_deliveries(&self, delivery: &Delivery) -> u32 {
        let count = delivery.delivery_count.unwrap_or(0);
        if count == 0 || self.0.is_empty() {
            return count;
        }
        count.saturating_sub(self.0.get(&delivery.envelope.id).copied().unwrap_or(0))
    }
}
