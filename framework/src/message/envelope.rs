//! The envelope: headers and payload of one message.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::message::content_encoding::ContentEncoding;
use crate::message::foreign::Foreign;
use crate::message::id::MessageId;
use crate::message::key::{Key, Name};
use crate::message::kind::Kind;
use crate::message::media_type::MediaType;
use crate::message::value::Headers;

/// Where the reply goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyTo {
    /// To the bus that sends the message: the sender waits for the reply.
    Caller,
    /// To the queue of this name.
    Queue(Arc<str>),
}

/// Whether a reply contains a result or a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The payload is the result.
    Ok,
    /// The payload is a problem.
    Error,
}

/// Headers and payload bytes: the only form in which a message leaves a process.
///
/// `Debug` shows neither the payload nor secrets.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Envelope {
    /// Command, event, query, channel message or reply.
    pub kind: Kind,
    /// The routing key; for a channel message the channel, for a reply the key of the request.
    pub key: Key,
    /// The message's own, unique id.
    pub id: MessageId,
    /// The encoding of the payload.
    pub media_type: MediaType,
    /// The encoded message.
    pub payload: Bytes,
    /// The compression of the payload; handlers get the decompressed payload.
    pub content_encoding: Option<ContentEncoding>,
    /// For a reply: the id of the request.
    pub correlation_id: Option<MessageId>,
    /// The message whose handling sent this one.
    pub causation_id: Option<MessageId>,
    /// The first message of the conversation, passed on across all hops. A message received without one starts a
    /// conversation.
    pub conversation_id: Option<MessageId>,
    /// Where the reply goes; absent for a one-way message.
    pub reply_to: Option<ReplyTo>,
    /// The sending service.
    pub source: Option<Name>,
    /// The sending instance.
    pub instance: Option<Name>,
    /// The service a command or query is sent to by name; required for channel messages.
    pub target: Option<Name>,
    /// When it was sent, to the second.
    pub sent_at: Option<SystemTime>,
    /// How long the broker holds it before it is routed, from 100 ms to 38 days. Never set on a received message.
    pub delay: Option<Duration>,
    /// Whether it is sent with only what its receiver needs, and without a report if no service takes it. Never set on
    /// a received message.
    pub fire: bool,
    /// How long it may wait in a queue.
    pub expiration: Option<Duration>,
    /// How long, from receipt on, the sender still waits for the reply.
    pub timeout: Option<Duration>,
    /// Whether a broker restart may lose it.
    pub transient: bool,
    /// 0 to 255; its effect depends on the queue. See `docs/wire.md`.
    pub priority: Option<u8>,
    /// The number of this attempt to handle it, counted from 1.
    pub attempt: u32,
    /// A service that must not handle it.
    pub skip: Option<Name>,
    /// The only services that may handle it; empty for all.
    pub recipients: Vec<Name>,
    /// The version of the payload's shape; 0 if the sender does not use versions.
    pub schema_version: u32,
    /// `service.actor@instance` of every actor that waits for the answer to this message.
    pub call_path: Vec<String>,
    /// For a reply: result or problem.
    pub status: Option<Status>,
    /// The `type` that a foreign sender gave it, if that is not the key.
    pub message_type: Option<Arc<str>>,
    /// The `cluster_id` that a foreign sender gave it.
    pub cluster_id: Option<Arc<str>>,
    /// The user's own headers, including trace context and bearer token.
    pub headers: Headers,
    /// A foreign sender's data without a field; `None` for our own messages.
    pub foreign: Option<Box<Foreign>>,
}

impl Envelope {
    /// The header that carries a bearer token.
    pub const AUTHORIZATION: &str = "authorization";

    /// A one-way message with a new id and only the given values.
    #[must_use]
    pub fn new(kind: Kind, key: Key, media_type: MediaType, payload: Bytes) -> Self {
        Self::with_id(kind, key, MessageId::new(), media_type, payload)
    }

    /// A one-way message with only the given values.
    #[must_use]
    pub fn with_id(kind: Kind, key: Key, id: MessageId, media_type: MediaType, payload: Bytes) -> Self {
        Self {
            kind,
            key,
            id,
            media_type,
            payload,
            content_encoding: None,
            correlation_id: None,
            causation_id: None,
            conversation_id: None,
            reply_to: None,
            source: None,
            instance: None,
            target: None,
            sent_at: None,
            delay: None,
            fire: false,
            expiration: None,
            timeout: None,
            transient: false,
            priority: None,
            attempt: 1,
            skip: None,
            recipients: Vec::new(),
            schema_version: 0,
            call_path: Vec::new(),
            status: None,
            message_type: None,
            cluster_id: None,
            headers: Headers::new(),
            foreign: None,
        }
    }

    /// A note in one of our queues. No handler takes it, so it has no key.
    pub(crate) fn note(media_type: MediaType, payload: Bytes) -> Self {
        let is_empty = payload.is_empty();
        let mut note = Self::new(Kind::Reply, Key::from_wire(""), media_type, payload);
        note.foreign = is_empty.then(|| Box::new(Foreign { no_media_type: true, ..Foreign::default() }));
        note
    }

    /// The token of an `authorization: Bearer …` header.
    #[must_use]
    pub fn bearer_token(&self) -> Option<&str> {
        self.headers.text(Self::AUTHORIZATION)?.strip_prefix("Bearer ")
    }

    /// Whether the sender waits for a reply.
    #[must_use]
    pub fn wants_reply(&self) -> bool {
        self.reply_to.is_some()
    }

    /// The id that a reply to this message names.
    #[must_use]
    pub fn reply_id(&self) -> &MessageId {
        self.correlation_id.as_ref().unwrap_or(&self.id)
    }

    /// Whether its id was given by its sender.
    #[must_use]
    pub fn has_own_id(&self) -> bool {
        self.foreign.as_ref().is_none_or(|foreign| !foreign.no_id)
    }

    /// The key, with `service:` in front if the message is for one service by name.
    pub(crate) fn address(&self) -> Arc<str> {
        match &self.target {
            Some(service) => format!("{service}:{}", self.key).into(),
            None => self.key.shared(),
        }
    }
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("kind", &self.kind)
            .field("key", &self.key.as_str())
            .field("id", &self.id.as_str())
            .field("media_type", &self.media_type.as_str())
            .field("content_encoding", &self.content_encoding)
            .field("payload_bytes", &self.payload.len())
            .field("source", &self.source)
            .field("attempt", &self.attempt)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}
