//! Envelopes as they stand in the outbox: MessagePack with named fields, so that each release reads the rows of the one before.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::message::{
    ContentEncoding, Envelope, Foreign, Headers, Key, Kind, MediaType, MessageId, Name, ReplyTo, Value,
};

/// The version of the encoding. A release reads all versions up to its own.
pub(super) const VERSION: i16 = 1;

/// Why a row of the outbox cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnreadableRow {
    /// A newer release wrote it.
    #[error("it has version {0} and this release reads up to {VERSION}: a newer release wrote it")]
    Newer(i16),
    /// Its bytes are not an envelope.
    #[error("its bytes are not an envelope: {0}")]
    Damaged(String),
}

/// What a message to be sent can have. A field that is not set takes no bytes.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    kind: String,
    key: String,
    id: String,
    media_type: String,
    payload: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply_to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    /// Seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    sent_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_millis: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    fire: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    expiration_millis: Option<u64>,
    #[serde(skip_serializing_if = "is_false")]
    transient: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    skip: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    recipients: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    schema_version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(String, WrittenValue)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    foreign: Option<WrittenForeign>,
}

/// What a foreign sender wrote, for a message that a handler passes on.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct WrittenForeign {
    no_id: bool,
    no_media_type: bool,
    no_type: bool,
    no_kind: bool,
    expiration: Option<String>,
    timestamp: Option<u64>,
    user_id: Option<String>,
    headers: Vec<(String, WrittenValue)>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WrittenValue {
    Void,
    Bool(bool),
    I8(i8),
    U8(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    F32(f32),
    F64(f64),
    Decimal(u8, u32),
    Timestamp(u64),
    Text(String),
    Bytes(Bytes),
    List(Vec<WrittenValue>),
    Table(Vec<(String, WrittenValue)>),
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The bytes of a stamped message.
pub(super) fn encode(envelope: &Envelope) -> Vec<u8> {
    let id = |id: &MessageId| id.as_str().to_owned();
    let name = |name: &Name| name.as_str().to_owned();
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let written = Written {
        kind: envelope.kind.as_str().to_owned(),
        key: envelope.key.as_str().to_owned(),
        id: id(&envelope.id),
        media_type: envelope.media_type.as_str().to_owned(),
        payload: envelope.payload.clone(),
        content_encoding: envelope.content_encoding.as_ref().map(|encoding| encoding.as_str().to_owned()),
        correlation_id: envelope.correlation_id.as_ref().map(id),
        causation_id: envelope.causation_id.as_ref().map(id),
        conversation_id: envelope.conversation_id.as_ref().map(id),
        // Nobody can wait for the reply to a held message, so the only address is a queue.
        reply_to: match &envelope.reply_to {
            Some(ReplyTo::Queue(queue)) => Some(queue.to_string()),
            Some(ReplyTo::Caller) | None => None,
        },
        source: envelope.source.as_ref().map(name),
        instance: envelope.instance.as_ref().map(name),
        target: envelope.target.as_ref().map(name),
        sent_at: envelope.sent_at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok()).map(|at| at.as_secs()),
        delay_millis: envelope.delay.map(millis),
        fire: envelope.fire,
        expiration_millis: envelope.expiration.map(millis),
        transient: envelope.transient,
        priority: envelope.priority,
        skip: envelope.skip.as_ref().map(name),
        recipients: envelope.recipients.iter().map(name).collect(),
        schema_version: envelope.schema_version,
        message_type: envelope.message_type.as_deref().map(str::to_owned),
        cluster_id: envelope.cluster_id.as_deref().map(str::to_owned),
        headers: written_headers(&envelope.headers),
        foreign: envelope.foreign.as_deref().map(written_foreign),
    };
    // It cannot fail: a vector grows, and every field can be written.
    rmp_serde::to_vec_named(&written).unwrap_or_default()
}

/// The message of a row.
pub(super) fn decode(version: i16, bytes: &[u8]) -> Result<Envelope, UnreadableRow> {
    if version > VERSION {
        return Err(UnreadableRow::Newer(version));
    }
    let written: Written = rmp_serde::from_slice(bytes).map_err(|error| UnreadableRow::Damaged(error.to_string()))?;
    let kind = Kind::from_word(&written.kind)
        .ok_or_else(|| UnreadableRow::Damaged(format!("there is no kind {:?}", written.kind)))?;
    let name = |name: String| Name::from_wire(name);
    let mut envelope = Envelope::with_id(
        kind,
        Key::from_wire(written.key),
        MessageId::from(written.id),
        MediaType::from_wire(&written.media_type),
        written.payload,
    );
    envelope.content_encoding =
        written.content_encoding.and_then(|encoding| ContentEncoding::from_wire(&encoding.into()));
    envelope.correlation_id = written.correlation_id.map(MessageId::from);
    envelope.causation_id = written.causation_id.map(MessageId::from);
    envelope.conversation_id = written.conversation_id.map(MessageId::from);
    envelope.reply_to = written.reply_to.map(|queue| ReplyTo::Queue(queue.into()));
    envelope.source = written.source.map(name);
    envelope.instance = written.instance.map(name);
    envelope.target = written.target.map(name);
    envelope.sent_at = written.sent_at.and_then(|at| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(at)));
    envelope.delay = written.delay_millis.map(Duration::from_millis);
    envelope.fire = written.fire;
    envelope.expiration = written.expiration_millis.map(Duration::from_millis);
    envelope.transient = written.transient;
    envelope.priority = written.priority;
    envelope.skip = written.skip.map(name);
    envelope.recipients = written.recipients.into_iter().map(name).collect();
    envelope.schema_version = written.schema_version;
    envelope.message_type = written.message_type.map(Into::into);
    envelope.cluster_id = written.cluster_id.map(Into::into);
    envelope.headers = headers(written.headers);
    envelope.foreign = written.foreign.map(|written| Box::new(foreign(written)));
    Ok(envelope)
}

fn written_foreign(foreign: &Foreign) -> WrittenForeign {
    WrittenForeign {
        no_id: foreign.no_id,
        no_media_type: foreign.no_media_type,
        no_type: foreign.no_type,
        no_kind: foreign.no_kind,
        expiration: foreign.expiration.as_deref().map(str::to_owned),
        timestamp: foreign.timestamp,
        user_id: foreign.user_id.as_deref().map(str::to_owned),
        headers: written_headers(&foreign.headers),
    }
}

fn foreign(written: WrittenForeign) -> Foreign {
    Foreign {
        no_id: written.no_id,
        no_media_type: written.no_media_type,
        no_type: written.no_type,
        no_kind: written.no_kind,
        expiration: written.expiration.map(Into::into),
        timestamp: written.timestamp,
        user_id: written.user_id.map(Into::into),
        headers: headers(written.headers),
    }
}

fn written_headers(headers: &Headers) -> Vec<(String, WrittenValue)> {
    headers.iter().map(|(name, value)| (name.to_owned(), written_value(value))).collect()
}

fn headers(written: Vec<(String, WrittenValue)>) -> Headers {
    written.into_iter().map(|(name, written)| (name, value(written))).collect()
}

fn written_value(value: &Value) -> WrittenValue {
    match value {
        Value::Void => WrittenValue::Void,
        Value::Bool(value) => WrittenValue::Bool(*value),
        Value::I8(value) => WrittenValue::I8(*value),
        Value::U8(value) => WrittenValue::U8(*value),
        Value::I16(value) => WrittenValue::I16(*value),
        Value::U16(value) => WrittenValue::U16(*value),
        Value::I32(value) => WrittenValue::I32(*value),
        Value::U32(value) => WrittenValue::U32(*value),
        Value::I64(value) => WrittenValue::I64(*value),
        Value::F32(value) => WrittenValue::F32(*value),
        Value::F64(value) => WrittenValue::F64(*value),
        Value::Decimal { scale, value } => WrittenValue::Decimal(*scale, *value),
        Value::Timestamp(value) => WrittenValue::Timestamp(*value),
        Value::Text(value) => WrittenValue::Text(value.to_string()),
        Value::Bytes(value) => WrittenValue::Bytes(value.clone()),
        Value::List(values) => WrittenValue::List(values.iter().map(written_value).collect()),
        Value::Table(table) => WrittenValue::Table(written_headers(table)),
    }
}

fn value(written: WrittenValue) -> Value {
    match written {
        WrittenValue::Void => Value::Void,
        WrittenValue::Bool(value) => Value::Bool(value),
        WrittenValue::I8(value) => Value::I8(value),
        WrittenValue::U8(value) => Value::U8(value),
        WrittenValue::I16(value) => Value::I16(value),
        WrittenValue::U16(value) => Value::U16(value),
        WrittenValue::I32(value) => Value::I32(value),
        WrittenValue::U32(value) => Value::U32(value),
        WrittenValue::I64(value) => Value::I64(value),
        WrittenValue::F32(value) => Value::F32(value),
        WrittenValue::F64(value) => Value::F64(value),
        WrittenValue::Decimal(scale, value) => Value::Decimal { scale, value },
        WrittenValue::Timestamp(value) => Value::Timestamp(value),
        WrittenValue::Text(value) => Value::Text(value.into()),
        WrittenValue::Bytes(value) => Value::Bytes(value),
        WrittenValue::List(values) => Value::List(values.into_iter().map(value).collect()),
        WrittenValue::Table(table) => Value::Table(headers(table)),
    }
}

#[cfg(test)]
mod tests;
