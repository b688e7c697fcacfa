//! A message on its way to the confirm channel.

use std::sync::Arc;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::ShortString;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::adapter::amqp::{Routed, Way};
use crate::adapter::rabbitmq::properties::{check_short, to_client};
use crate::adapter::rabbitmq::publishing::send_path::Waits;
use crate::adapter::rabbitmq::publishing::silent::SILENT_AFTER;
use crate::adapter::rabbitmq::writes::ClientMessage;
use crate::broker::{BrokerError, DIRECT_REPLY_TO, MAX_PROPERTIES_BYTES, Properties, Publication};

pub(super) type Outcome = Result<Publication, BrokerError>;

/// A message on its way.
pub(super) struct Job {
    pub(super) way: Way,
    pub(super) mandatory: bool,
    pub(super) awaits_reply: bool,
    /// As they are to be sent, until they are.
    client: Option<BasicProperties>,
    /// Kept for the case that it is to be sent once more.
    properties: Arc<Properties>,
    pub(super) payload: Bytes,
    pub(super) deadline: Instant,
    /// How often it was sent.
    pub(super) sent: u32,
    pub(super) strikes: u8,
    /// When it was sent last.
    pub(super) sent_at: Option<Instant>,
    /// As long as it has not been sent, if it could not be sent at once.
    pub(super) waits: Option<Waits>,
    /// `None` once the caller has its answer; the confirm is awaited all the same.
    pub(super) result: Option<oneshot::Sender<Outcome>>,
}

impl Job {
    /// A message whose properties take at most `most` bytes.
    pub(super) fn new(
        message: Routed,
        deadline: Instant,
        result: oneshot::Sender<Outcome>,
        most: usize,
    ) -> Result<Box<Self>, BrokerError> {
        let Routed { way, mandatory, awaits_reply, mut properties, payload } = message;
        if awaits_reply {
            Arc::make_mut(&mut properties).reply_to = Some(DIRECT_REPLY_TO.into());
        }
        check_short("an exchange's name", &way.exchange)?;
        check_short("a routing key", &way.routing_key)?;
        let client = to_client(&properties, most)?;
        Ok(Box::new(Self {
            way,
            mandatory,
            awaits_reply,
            client: Some(client),
            properties,
            payload,
            deadline,
            sent: 0,
            strikes: 0,
            sent_at: None,
            waits: None,
            result: Some(result),
        }))
    }

    /// Whether its caller still waits. A message for which nobody waits is not sent, nor sent again.
    pub(super) fn is_awaited(&self) -> bool {
        self.result.as_ref().is_some_and(|result| !result.is_closed())
    }

    /// The id that its reply will name, if one is awaited.
    pub(super) fn reply_id(&self) -> Option<&Arc<str>> {
        self.properties.reply_id().filter(|_| self.awaits_reply)
    }

    pub(super) fn message_id(&self) -> Option<&str> {
        self.properties.message_id.as_deref()
    }

    /// The message as it is sent.
    pub(super) fn client_message(&mut self) -> ClientMessage {
        // Names and properties were checked when the message came, and could be converted once.
        let short = |text: &str| ShortString::try_new(text).unwrap_or_default();
        ClientMessage {
            exchange: short(&self.way.exchange),
            routing_key: short(&self.way.routing_key),
            mandatory: self.mandatory,
            properties: self
                .client
                .take()
                .or_else(|| to_client(&self.properties, MAX_PROPERTIES_BYTES).ok())
                .unwrap_or_default(),
            payload: self.payload.clone(),
        }
    }

    /// Where it goes.
    pub(super) fn target(&self) -> Way {
        self.way.clone()
    }

    /// When to look at it next: its caller's time is over then, or its target has kept silent.
    pub(super) fn look_at(&self, now: Instant) -> Option<Instant> {
        let silent_at = self.sent_at.map(|at| at + SILENT_AFTER).filter(|at| *at > now);
        silent_at.into_iter().chain([self.deadline]).min()
    }

    pub(super) fn resolve(mut self, outcome: Outcome) {
        self.answer(outcome);
    }

    /// Tells the caller, who may have stopped waiting.
    pub(super) fn answer(&mut self, outcome: Outcome) {
        if let Some(result) = self.result.take() {
            let _ = result.send(outcome);
        }
    }

    /// Tells the caller that the time is over.
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
    /// The app stopped.
    fn drop(&mut self) {
        if self.sent > 0 {
            self.give_up("the app stopped before the confirm came");
        } else {
            self.answer(Err(BrokerError::Stopped));
        }
    }
}
