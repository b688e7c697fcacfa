//! A message on its way to the confirm channel, with the caller that waits for its outcome.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lapin::BasicProperties;
use lapin::types::ShortString;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::adapter::amqp::{Routed, Way};
use crate::adapter::rabbitmq::properties::{check_short, to_client};
use crate::adapter::rabbitmq::publishing::silent::SILENT_AFTER;
use crate::adapter::rabbitmq::writes::ClientMessage;
use crate::broker::{BrokerError, MAX_PROPERTIES_BYTES, Publication};
use crate::message::{MessageId, ReplyTo};

/// Counts one waiting message while it exists. As long as the count is not zero, no caller sends directly, so that no message
/// overtakes.
pub(super) struct Waits(Arc<AtomicUsize>);

impl Waits {
    /// Adds one to this count.
    pub(super) fn one_of(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

pub(super) type Outcome = Result<Publication, BrokerError>;

/// A message on its way, and its state.
pub(super) struct Job {
    /// Kept in case it must be sent again.
    pub(super) message: Routed,
    /// Its converted properties, until it is sent.
    client: Option<BasicProperties>,
    pub(super) deadline: Instant,
    /// How often it was sent.
    pub(super) sent: u32,
    pub(super) closed_channels: u8,
    /// When it was sent last.
    pub(super) sent_at: Option<Instant>,
    /// Held while the message is queued; dropped when it is sent.
    pub(super) waits: Option<Waits>,
    /// `None` once the caller has its answer; the confirm is awaited all the same.
    pub(super) result: Option<oneshot::Sender<Outcome>>,
}

impl Job {
    /// A job for this message; an error if a name is too long, or the properties take more than `most` bytes.
    /// If a name does not fit into a short string, or the properties take more than `most` bytes.
    pub(super) fn new(
        message: Routed,
        deadline: Instant,
        result: oneshot::Sender<Outcome>,
        most: usize,
    ) -> Result<Box<Self>, BrokerError> {
        check_short("an exchange's name", &message.way.exchange)?;
        check_short("a routing key", &message.way.routing_key)?;
        let client = to_client(&message, most)?;
        Ok(Box::new(Self {
            message,
            client: Some(client),
            deadline,
            sent: 0,
            closed_channels: 0,
            sent_at: None,
            waits: None,
            result: Some(result),
        }))
    }

    /// Whether its caller still waits. A message without a waiting caller is not sent, nor sent again.
    pub(super) fn is_awaited(&self) -> bool {
        self.result.as_ref().is_some_and(|result| !result.is_closed())
    }

    /// Whether its caller awaits a reply.
    pub(super) fn awaits_reply(&self) -> bool {
        self.message.envelope.reply_to == Some(ReplyTo::Caller)
    }

    /// The id that its reply will name, if its caller awaits one.
    pub(super) fn reply_id(&self) -> Option<&MessageId> {
        self.awaits_reply().then(|| self.message.envelope.reply_id())
    }

    /// The id with which it is sent; a foreign sender may have left it out.
    pub(super) fn message_id(&self) -> Option<&str> {
        let envelope = &self.message.envelope;
        envelope.has_own_id().then(|| envelope.id.as_str())
    }

    /// The message as it is sent.
    pub(super) fn client_message(&mut self) -> ClientMessage {
        // `new` has checked names and properties, so that the conversion succeeds.
        let short = |text: &str| ShortString::try_new(text).unwrap_or_default();
        let message = &self.message;
        ClientMessage {
            exchange: short(&message.way.exchange),
            routing_key: short(&message.way.routing_key),
            mandatory: message.mandatory,
            properties: self
                .client
                .take()
                .or_else(|| to_client(message, MAX_PROPERTIES_BYTES).ok())
                .unwrap_or_default(),
            payload: message.envelope.payload.clone(),
        }
    }

    /// The exchange and routing key to which it is published.
    pub(super) fn target(&self) -> Way {
        self.message.way.clone()
    }

    /// When to check it next: at its deadline, or when its target counts as silent.
    pub(super) fn look_at(&self, now: Instant) -> Option<Instant> {
        let silent_at = self.sent_at.map(|at| at + SILENT_AFTER).filter(|at| *at > now);
        silent_at.into_iter().chain([self.deadline]).min()
    }

    pub(super) fn resolve(mut self, outcome: Outcome) {
        self.answer(outcome);
    }

    /// Answers the caller, which may have stopped waiting.
    pub(super) fn answer(&mut self, outcome: Outcome) {
        if let Some(result) = self.result.take() {
            let _ = result.send(outcome);
        }
    }

    /// Tells the caller that the message is given up: its outcome is unknown if it was sent.
    pub(super) fn give_up(&mut self, why: &str) {
        let outcome = if self.sent > 0 {
            Ok(Publication::Unknown(why.to_owned()))
        } else {
            Err(BrokerError::Lost { reason: format!("{why}; the message was not sent") })
        };
        self.answer(outcome);
    }
}

impl Drop for Job {
    /// The app stopped: answers a caller that still waits.
    fn drop(&mut self) {
        if self.sent > 0 {
            self.give_up("the app stopped before the confirm came");
        } else {
            self.answer(Err(BrokerError::Stopped));
        }
    }
}
