//! Properties and headers to the client's types and back. Every AMQP type stays what it is.

use std::sync::Arc;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable, LongString, ShortString};

use crate::broker::wire::{ATTEMPT, CAUSATION_ID, CONVERSATION_ID, INSTANCE};
use crate::broker::{BrokerError, Properties};
use crate::message::{Headers, MediaType, Value, shared};

/// A text of at most 255 bytes.
pub(super) fn short(what: &str, text: &str) -> Result<ShortString, BrokerError> {
    check_short(what, text)?;
    ShortString::try_new(text).map_err(|error| BrokerError::Protocol { reason: error.to_string() })
}

pub(super) fn check_short(what: &str, text: &str) -> Result<(), BrokerError> {
    if text.len() <= MAX_SHORT {
        return Ok(());
    }
    let begin: String = text.chars().take(40).collect();
    let reason = format!("{what} has {} bytes; AMQP allows at most {MAX_SHORT}: {begin:?}…", text.len());
    Err(BrokerError::Protocol { reason })
}

/// The most bytes of a short string.
pub(super) const MAX_SHORT: usize = 255;

/// Properties and headers as the client takes them, if they take at most `most` bytes.
pub(super) fn to_client(properties: &Properties, most: usize) -> Result<BasicProperties, BrokerError> {
    let bytes = properties.size();
    if bytes > most {
        let reason =
            format!("properties and headers of {bytes} bytes; at most {most} fit into a frame of this connection");
        return Err(BrokerError::Protocol { reason });
    }
    let mut client = BasicProperties::default().with_delivery_mode(if properties.persistent { 2 } else { 1 });
    if let Some(text) = &properties.content_type {
        client = client.with_content_type(short("the content type", text)?);
    }
    if let Some(text) = &properties.content_encoding {
        client = client.with_content_encoding(short("the content encoding", text)?);
    }
    if let Some(text) = &properties.cluster_id {
        client = client.with_cluster_id(short("the cluster id", text)?);
    }
    if let Some(text) = &properties.message_id {
        client = client.with_message_id(short("the message id", text)?);
    }
    if let Some(text) = &properties.correlation_id {
        client = client.with_correlation_id(short("the correlation id", text)?);
    }
    if let Some(text) = &properties.reply_to {
        client = client.with_reply_to(short("the reply address", text)?);
    }
    if let Some(text) = &properties.message_type {
        client = client.with_type(short("the type", text)?);
    }
    if let Some(text) = &properties.app_id {
        client = client.with_app_id(short("the app id", text)?);
    }
    if let Some(text) = &properties.expiration {
        client = client.with_expiration(short("the expiration", text)?);
    }
    if let Some(seconds) = properties.timestamp {
        client = client.with_timestamp(seconds);
    }
    if let Some(priority) = properties.priority {
        client = client.with_priority(priority);
    }
    if !properties.headers.is_empty() {
        client = client.with_headers(table_to_client(&properties.headers)?);
    }
    Ok(client)
}

pub(super) fn from_client(client: &BasicProperties) -> Properties {
    let text = |value: &Option<ShortString>| value.as_ref().map(|text| Arc::from(text.as_str()));
    let often = |value: &Option<ShortString>| value.as_ref().map(|text| shared(text.as_str()));
    Properties {
        content_type: client.content_type().as_ref().map(|text| MediaType::from_wire(text.as_str()).shared()),
        content_encoding: often(client.content_encoding()),
        cluster_id: often(client.cluster_id()),
        message_id: text(client.message_id()),
        correlation_id: text(client.correlation_id()),
        reply_to: often(client.reply_to()),
        message_type: often(client.kind()),
        app_id: often(client.app_id()),
        timestamp: *client.timestamp(),
        expiration: text(client.expiration()),
        persistent: *client.delivery_mode() == Some(2),
        priority: *client.priority(),
        user_id: often(client.user_id()),
        headers: client.headers().as_ref().map(table_from_client).unwrap_or_default(),
    }
}

pub(super) fn table_to_client(headers: &Headers) -> Result<FieldTable, BrokerError> {
    let mut table = FieldTable::default();
    for (name, value) in headers.iter() {
        table.insert(short("the name of a header", name)?, value_to_client(value)?);
    }
    Ok(table)
}

fn value_to_client(value: &Value) -> Result<AMQPValue, BrokerError> {
    Ok(match *value {
        Value::Void => AMQPValue::Void,
        Value::Bool(v) => AMQPValue::Boolean(v),
        Value::I8(v) => AMQPValue::ShortShortInt(v),
        Value::U8(v) => AMQPValue::ShortShortUInt(v),
        Value::I16(v) => AMQPValue::ShortInt(v),
        Value::U16(v) => AMQPValue::ShortUInt(v),
        Value::I32(v) => AMQPValue::LongInt(v),
        Value::U32(v) => AMQPValue::LongUInt(v),
        Value::I64(v) => AMQPValue::LongLongInt(v),
        Value::F32(v) => AMQPValue::Float(v),
        Value::F64(v) => AMQPValue::Double(v),
        Value::Decimal { scale, value } => AMQPValue::DecimalValue(DecimalValue { scale, value }),
        Value::Timestamp(v) => AMQPValue::Timestamp(v),
        Value::Text(ref text) => AMQPValue::LongString(LongString::from(text.as_bytes())),
        Value::Bytes(ref bytes) => AMQPValue::ByteArray(bytes.to_vec().into()),
        Value::List(ref values) => {
            let values: Result<Vec<AMQPValue>, _> = values.iter().map(value_to_client).collect();
            AMQPValue::FieldArray(FieldArray::from(values?))
        }
        Value::Table(ref table) => AMQPValue::FieldTable(table_to_client(table)?),
    })
}

fn table_from_client(table: &FieldTable) -> Headers {
    let mut headers = Headers::new();
    if table.inner().is_empty() {
        return headers;
    }
    let entries = headers.edit();
    for (name, value) in table.inner() {
        let name = name.as_str();
        let value = match value {
            AMQPValue::LongString(text) if name == INSTANCE => str::from_utf8(text.as_bytes()).map(shared).ok(),
            _ => None,
        }
        .map_or_else(|| value_from_client(value), Value::Text);
        let _ = match usual_header(name) {
            Some(usual) => entries.put(usual, value),
            None => entries.put(name.to_owned(), value),
        };
    }
    headers
}

fn value_from_client(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Void => Value::Void,
        AMQPValue::Boolean(v) => Value::Bool(*v),
        AMQPValue::ShortShortInt(v) => Value::I8(*v),
        AMQPValue::ShortShortUInt(v) => Value::U8(*v),
        AMQPValue::ShortInt(v) => Value::I16(*v),
        AMQPValue::ShortUInt(v) => Value::U16(*v),
        AMQPValue::LongInt(v) => Value::I32(*v),
        AMQPValue::LongUInt(v) => Value::U32(*v),
        AMQPValue::LongLongInt(v) => Value::I64(*v),
        AMQPValue::Float(v) => Value::F32(*v),
        AMQPValue::Double(v) => Value::F64(*v),
        AMQPValue::DecimalValue(v) => Value::Decimal { scale: v.scale, value: v.value },
        AMQPValue::Timestamp(v) => Value::Timestamp(*v),
        AMQPValue::ShortString(text) => Value::Text(text.as_str().into()),
        // AMQP calls it a string and lets it hold any bytes.
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => Value::Text(text.into()),
            Err(_) => Value::Bytes(Bytes::copy_from_slice(text.as_bytes())),
        },
        AMQPValue::ByteArray(bytes) => Value::Bytes(Bytes::copy_from_slice(bytes.as_slice())),
        AMQPValue::FieldArray(values) => Value::List(values.as_slice().iter().map(value_from_client).collect()),
        AMQPValue::FieldTable(table) => Value::Table(table_from_client(table)),
    }
}

/// The name of a header that nearly every message has, so that nobody needs a copy of it.
fn usual_header(name: &str) -> Option<&'static str> {
    const USUAL: [&str; 5] = [INSTANCE, CAUSATION_ID, CONVERSATION_ID, ATTEMPT, "traceparent"];
    USUAL.into_iter().find(|usual| *usual == name)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use lapin::types::generation::gen_field_table;
    use lapin::types::parsing::parse_field_table;
    use proptest::prelude::*;

    use super::*;
    use crate::broker::{MAX_PROPERTIES_BYTES, any, open};

    fn encoded(table: &FieldTable) -> Vec<u8> {
        let mut room = vec![0; 256 * 1024];
        let end = gen_field_table(table)(Cursor::new(&mut room[..]).into()).unwrap().position;
        room.truncate(end as usize);
        room
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn properties_keep_names_values_and_types(properties in any::properties()) {
            let client = to_client(&properties, MAX_PROPERTIES_BYTES).unwrap();
            // Who published is the broker's to say.
            prop_assert_eq!(from_client(&client), Properties { user_id: None, ..properties });
        }

        #[test]
        fn headers_take_no_more_bytes_than_is_said(headers in any::headers()) {
            let bytes = encoded(&table_to_client(&headers).unwrap());
            prop_assert!(bytes.len() <= headers.size() + 4, "{} bytes, said {}", bytes.len(), headers.size());
            let (rest, table) = parse_field_table(&bytes[..]).unwrap();
            prop_assert!(rest.is_empty());
            prop_assert_eq!(table_from_client(&table), headers);
        }

        #[test]
        fn any_bytes_of_headers_open_as_an_envelope_or_are_refused(
            origin in any::origin(), headers in any::headers(), damage in prop::collection::vec((any::<u16>(), any::<u8>()), 0..6)
        ) {
            let mut bytes = encoded(&table_to_client(&headers).unwrap());
            for (place, byte) in damage {
                let place = usize::from(place) % bytes.len();
                bytes[place] = byte;
            }
            if let Ok((_, table)) = parse_field_table(&bytes[..]) {
                let properties = from_client(&BasicProperties::default().with_headers(table));
                let envelope = open(&origin, &properties, Bytes::new());
                prop_assert!(envelope.headers.len() <= properties.headers.len());
            }
        }
    }

    #[test]
    fn a_property_of_more_than_255_bytes_is_refused_with_its_name() {
        let properties = Properties { correlation_id: Some("x".repeat(256).into()), ..Properties::default() };
        let error = to_client(&properties, MAX_PROPERTIES_BYTES).unwrap_err().to_string();
        assert!(error.contains("correlation id") && error.contains("256"), "{error}");
    }

    #[test]
    fn headers_nested_a_hundred_levels_deep_arrive_as_they_were_sent() {
        let headers: Headers = [("deep", any::nested(100))].into_iter().collect();
        let bytes = encoded(&table_to_client(&headers).unwrap());
        let (_, table) = parse_field_table(&bytes[..]).unwrap();
        assert_eq!(table_from_client(&table), headers);
        assert!(bytes.len() <= headers.size() + 4);
    }
}
