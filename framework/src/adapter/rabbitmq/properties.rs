//! Properties and headers to the client's types and back. Every AMQP type stays what it is.

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable, LongString, ShortString};

use crate::broker::{BrokerError, Properties};
use crate::message::{Headers, Value};

/// A text of at most 255 bytes.
pub(super) fn short(what: &str, text: &str) -> Result<ShortString, BrokerError> {
    ShortString::try_new(text).map_err(|_| BrokerError::Protocol {
        reason: format!(
            "{what} has {} bytes; AMQP allows at most 255: {:?}…",
            text.len(),
            text.chars().take(40).collect::<String>()
        ),
    })
}

pub(super) fn to_client(properties: Properties) -> Result<BasicProperties, BrokerError> {
    let mut client = BasicProperties::default().with_delivery_mode(if properties.persistent { 2 } else { 1 });
    if let Some(text) = &properties.content_type {
        client = client.with_content_type(short("the content type", text)?);
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
        client = client.with_headers(table_to_client(properties.headers)?);
    }
    Ok(client)
}

pub(super) fn from_client(client: &BasicProperties) -> Properties {
    let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
    Properties {
        content_type: text(client.content_type()),
        message_id: text(client.message_id()),
        correlation_id: text(client.correlation_id()),
        reply_to: text(client.reply_to()),
        message_type: text(client.kind()),
        app_id: text(client.app_id()),
        timestamp: *client.timestamp(),
        expiration: text(client.expiration()),
        persistent: *client.delivery_mode() == Some(2),
        priority: *client.priority(),
        user_id: text(client.user_id()),
        headers: client.headers().as_ref().map(table_from_client).unwrap_or_default(),
    }
}

pub(super) fn table_to_client(headers: Headers) -> Result<FieldTable, BrokerError> {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert(short("the name of a header", &name)?, value_to_client(value)?);
    }
    Ok(table)
}

fn value_to_client(value: Value) -> Result<AMQPValue, BrokerError> {
    Ok(match value {
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
        Value::Text(text) => AMQPValue::LongString(LongString::from(text.into_bytes())),
        Value::Bytes(bytes) => AMQPValue::ByteArray(bytes.to_vec().into()),
        Value::List(values) => {
            let values: Result<Vec<AMQPValue>, _> = values.into_iter().map(value_to_client).collect();
            AMQPValue::FieldArray(FieldArray::from(values?))
        }
        Value::Table(table) => AMQPValue::FieldTable(table_to_client(table)?),
    })
}

fn table_from_client(table: &FieldTable) -> Headers {
    table.inner().iter().map(|(name, value)| (name.to_string(), value_from_client(value))).collect()
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
        AMQPValue::ShortString(text) => Value::Text(text.to_string()),
        // AMQP calls it a string and lets it hold any bytes.
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Bytes(Bytes::copy_from_slice(text.as_bytes())),
        },
        AMQPValue::ByteArray(bytes) => Value::Bytes(Bytes::copy_from_slice(bytes.as_slice())),
        AMQPValue::FieldArray(values) => Value::List(values.as_slice().iter().map(value_from_client).collect()),
        AMQPValue::FieldTable(table) => Value::Table(table_from_client(table)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Void),
            any::<bool>().prop_map(Value::Bool),
            any::<i8>().prop_map(Value::I8),
            any::<u8>().prop_map(Value::U8),
            any::<i16>().prop_map(Value::I16),
            any::<u16>().prop_map(Value::U16),
            any::<i32>().prop_map(Value::I32),
            any::<u32>().prop_map(Value::U32),
            any::<i64>().prop_map(Value::I64),
            (-1.0e9_f32..1.0e9).prop_map(Value::F32),
            (-1.0e9_f64..1.0e9).prop_map(Value::F64),
            (any::<u8>(), any::<u32>()).prop_map(|(scale, value)| Value::Decimal { scale, value }),
            any::<u64>().prop_map(Value::Timestamp),
            ".{0,40}".prop_map(Value::Text),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Value::Bytes(bytes.into())),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                prop::collection::btree_map("[a-z]{1,8}", inner, 0..4)
                    .prop_map(|table| Value::Table(table.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn headers_keep_names_values_and_types(headers in prop::collection::btree_map("[a-zA-Z-]{1,20}", value(), 0..6)) {
            let properties = Properties { headers: headers.into_iter().collect(), ..Properties::default() };
            let client = to_client(properties.clone()).unwrap();
            prop_assert_eq!(from_client(&client), properties);
        }
    }

    #[test]
    fn a_property_of_more_than_255_bytes_is_refused_with_its_name() {
        let properties = Properties { correlation_id: Some("x".repeat(256)), ..Properties::default() };
        let error = to_client(properties).unwrap_err().to_string();
        assert!(error.contains("correlation id") && error.contains("256"), "{error}");
    }
}
