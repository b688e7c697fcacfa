//! A message in the outbox.

use crate::message::Envelope;
use crate::store::UnreadableRow;
use crate::store::stored_envelope;

/// A message that a transaction wants to send once it is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxRow {
    /// Kind and key, or the service it is sent to by name: what keeps order and holds up what is behind it.
    pub address: String,
    /// The version of the encoding.
    pub version: i16,
    /// The encoded envelope.
    pub envelope: Vec<u8>,
}

impl OutboxRow {
    /// The row for a stamped message.
    #[must_use]
    pub fn of(envelope: &Envelope) -> Self {
        Self {
            address: format!("{} {}", envelope.kind, envelope.address()),
            version: stored_envelope::VERSION,
            envelope: stored_envelope::encode(envelope),
        }
    }
}

/// A row as the relay reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRow {
    /// Its number; rows are sent in this order.
    pub number: i64,
    /// How long ago it was written, in milliseconds.
    pub age_millis: u64,
    /// What was written.
    pub row: OutboxRow,
}

impl StoredRow {
    /// The message, its delay reduced by the time it has waited here.
    ///
    /// # Errors
    /// When the row was written by a newer version, or its bytes were damaged.
    pub fn message(&self) -> Result<Envelope, UnreadableRow> {
        let mut envelope = stored_envelope::decode(self.row.version, &self.row.envelope)?;
        let waited = std::time::Duration::from_millis(self.age_millis);
        envelope.delay = envelope.delay.map(|delay| delay.saturating_sub(waited)).filter(|delay| !delay.is_zero());
        Ok(envelope)
    }
}
