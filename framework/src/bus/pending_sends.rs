//! Holds the messages that a handler has sent. They leave when it succeeds.

use crate::bus::SendError;
use crate::message::Envelope;

/// Limits on what one handler may hold until it succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldLimits {
    /// The most messages. Default: 10 000.
    pub messages: usize,
    /// The most payload bytes in all. Default: 16 MiB.
    pub bytes: usize,
}

impl Default for HeldLimits {
    fn default() -> Self {
        Self { messages: 10_000, bytes: 16 * 1024 * 1024 }
    }
}

/// Envelopes are large, so the list holds boxes.
#[allow(clippy::vec_box, reason = "a list that grows, or is taken, copies no envelope")]
pub type Envelopes = Vec<Box<Envelope>>;

/// The messages that one handler has sent so far, in the order of the calls. They leave only if it succeeds.
#[derive(Debug, Default)]
pub(crate) struct PendingSends {
    messages: Envelopes,
    bytes: usize,
    ended: bool,
}

impl PendingSends {
    pub(crate) fn push(&mut self, envelope: Box<Envelope>, limits: HeldLimits) -> Result<(), SendError> {
        if self.ended {
            return Err(SendError::HandlerEnded);
        }
        let bytes = self.bytes + envelope.payload.len();
        if self.messages.len() >= limits.messages || bytes > limits.bytes {
            return Err(SendError::TooManyPending { messages: limits.messages, bytes: limits.bytes });
        }
        self.bytes = bytes;
        self.messages.push(envelope);
        Ok(())
    }

    pub(crate) fn take(&mut self) -> Envelopes {
        self.ended = true;
        self.bytes = 0;
        std::mem::take(&mut self.messages)
    }

    pub(crate) fn messages(&self) -> impl Iterator<Item = &Envelope> {
        self.messages.iter().map(|envelope| &**envelope)
    }
}
