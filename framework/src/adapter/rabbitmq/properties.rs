//! Converts properties and headers to the client's types and back. Every value keeps its AMQP type.

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable, LongString, ShortString};

use crate::adapter::amqp::fields::{Fields, Reading, write, write_all_headers};
use crate::adapter::amqp::{Origin, Routed};
use crate::broker::headers::{ATTEMPT, CAUSATION_ID, CONVERSATION_ID, INSTANCE, KIND, size};
use crate::broker::{BrokerError, DIRECT_REPLY_TO, HeaderValue};
use crate::message::{Envelope, Headers, ReplyTo, Value, shared};

/// Converts a text of at most 255 bytes to a short string.
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

/// A message's properties and headers in the client's types; an error if they take more than `most` bytes.
pub(super) fn to_client(message: &Routed, most: usize) -> Result<BasicProperties, BrokerError> {
    let envelope = &*message.envelope;
    let bytes = size(envelope);
    if bytes > most {
        let reason =
            format!("properties and headers of {bytes} bytes; at most {most} fit into a frame of this connection");
        return Err(BrokerError::Protocol { reason });
    }
    let mut fields = write(envelope, message.tells_address);
    if message.bare && !message.tells_address && envelope.message_type.is_none() {
        fields.message_type = None;
    }
    let reply_to = if envelope.reply_to == Some(ReplyTo::Caller) { Some(DIRECT_REPLY_TO) } else { fields.reply_to };
    let mut client = BasicProperties::default().with_delivery_mode(if fields.persistent { 2 } else { 1 });
    if let Some(text) = fields.content_type {
        client = client.with_content_type(short("the content type", text)?);
    }
    if let Some(text) = fields.content_encoding {
        client = client.with_content_encoding(short("the content encoding", text)?);
    }
    if let Some(text) = fields.cluster_id {
        client = client.with_cluster_id(short("the cluster id", text)?);
    }
    if let Some(text) = fields.message_id {
        client = client.with_message_id(short("the message id", text)?);
    }
    if let Some(text) = fields.correlation_id {
        client = client.with_correlation_id(short("the correlation id", text)?);
    }
    if let Some(text) = reply_to {
        client = client.with_reply_to(short("the reply address", text)?);
    }
    if let Some(text) = fields.message_type {
        client = client.with_type(short("the type", &text)?);
    }
    if let Some(text) = fields.app_id {
        client = client.with_app_id(short("the app id", text)?);
    }
    if let Some(text) = fields.expiration {
        client = client.with_expiration(short("the expiration", &text)?);
    }
    if let Some(seconds) = fields.timestamp {
        client = client.with_timestamp(seconds);
    }
    if let Some(priority) = fields.priority {
        client = client.with_priority(priority);
    }
    let headers = headers_to_client(envelope, message.tells_address)?;
    if !headers.inner().is_empty() {
        client = client.with_headers(headers);
    }
    Ok(client)
}

fn headers_to_client(envelope: &Envelope, tells_address: bool) -> Result<FieldTable, BrokerError> {
    let mut table = FieldTable::default();
    let mut problem = None;
    write_all_headers(envelope, tells_address, |name, value| {
        match short("the name of a header", name).and_then(|name| Ok((name, header_to_client(value)?))) {
            Ok((name, value)) => drop(table.insert(name, value)),
            Err(error) => problem = Some(error),
        }
    });
    problem.map_or(Ok(table), Err)
}

fn header_to_client(value: HeaderValue<'_>) -> Result<AMQPValue, BrokerError> {
    let text = |text: &str| AMQPValue::LongString(LongString::from(text.as_bytes()));
    let list = |texts: Vec<AMQPValue>| AMQPValue::FieldArray(FieldArray::from(texts));
    Ok(match value {
        HeaderValue::Given(value) => value_to_client(value)?,
        HeaderValue::Number(number) => AMQPValue::LongLongInt(number),
        HeaderValue::Text(given) => text(given),
        HeaderValue::Names(names) => list(names.iter().map(|name| text(name.as_str())).collect()),
        HeaderValue::Texts(texts) => list(texts.iter().map(|given| text(given)).collect()),
    })
}

/// The envelope of a received message.
pub(super) fn from_client(client: &BasicProperties, origin: &Origin, payload: Bytes) -> Envelope {
    let fields = Fields {
        content_type: client.content_type().as_ref().map(ShortString::as_str),
        content_encoding: client.content_encoding().as_ref().map(ShortString::as_str),
        cluster_id: client.cluster_id().as_ref().map(ShortString::as_str),
        message_id: client.message_id().as_ref().map(ShortString::as_str),
        correlation_id: client.correlation_id().as_ref().map(ShortString::as_str),
        reply_to: client.reply_to().as_ref().map(ShortString::as_str),
        message_type: client.kind().as_ref().map(|text| text.as_str().into()),
        app_id: client.app_id().as_ref().map(ShortString::as_str),
        timestamp: *client.timestamp(),
        expiration: client.expiration().as_ref().map(|text| text.as_str().into()),
        persistent: *client.delivery_mode() == Some(2),
        priority: *client.priority(),
        user_id: client.user_id().as_ref().map(ShortString::as_str),
    };
    let table = client.headers().as_ref().map(FieldTable::inner);
    // A message that comes straight from its sender tells its kind by its routing.
    let told = match origin {
        Origin::Key { .. } => None,
        _ => table.and_then(|table| table.get(KIND)),
    };
    let told = if let Some(AMQPValue::LongString(word)) = told { str::from_utf8(word.as_bytes()).ok() } else { None };
    let mut reading = Reading::begin(origin, &fields, told, payload);
    for (name, value) in table.into_iter().flatten() {
        let name = name.as_str();
        let value = match value {
            AMQPValue::LongString(text) if name == INSTANCE => str::from_utf8(text.as_bytes()).map(shared).ok(),
            _ => None,
        }
        .map_or_else(|| value_from_client(value), Value::Text);
        match usual_header(name) {
            Some(usual) => reading.header(usual, value),
            None => reading.header(name.to_owned(), value),
        }
    }
    reading.end()
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
    table.inner().iter().map(|(name, value)| (name.as_str(), value_from_client(value))).collect()
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
        // AMQP calls it a string, but it may hold any bytes.
        AMQPValue::LongString(text) => match std::str::from_utf8(text.as_bytes()) {
            Ok(text) => Value::Text(text.into()),
            Err(_) => Value::Bytes(Bytes::copy_from_slice(text.as_bytes())),
        },
        AMQPValue::ByteArray(bytes) => Value::Bytes(Bytes::copy_from_slice(bytes.as_slice())),
        AMQPValue::FieldArray(values) => Value::List(values.as_slice().iter().map(value_from_client).collect()),
        AMQPValue::FieldTable(table) => Value::Table(table_from_client(table)),
    }
}

/// The static name of a header that nearly every message has, which saves a copy.
fn usual_header(name: &str) -> Option<&'static str> {
    const USUAL: [&str; 5] = ["traceparent", CONVERSATION_ID, INSTANCE, CAUSATION_ID, ATTEMPT];
    USUAL.into_iter().find(|usual| *usual == name)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use lapin::types::generation::gen_field_table;
    use lapin::types::parsing::parse_field_table;
    use proptest::prelude::*;

    use super::*;
    use crate::adapter::amqp::fields_tests::{foreign, origin, written};
    use crate::broker::{MAX_PROPERTIES_BYTES, any};
    use crate::message::MediaType;

    fn routed(envelope: Envelope, tells_address: bool) -> Routed {
        let mut routed = Routed::for_test("e", "k", false);
        (routed.envelope, routed.tells_address) = (envelope.into(), tells_address);
        routed
    }

    fn encoded(table: &FieldTable) -> Vec<u8> {
        let mut room = vec![0; 256 * 1024];
        let end = gen_field_table(table)(Cursor::new(&mut room[..]).into()).unwrap().position;
        room.truncate(end as usize);
        room
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn properties_and_headers_keep_names_values_and_types(message in foreign(), origin in origin()) {
            let envelope = message.received(&origin, Bytes::new());
            let client = to_client(&routed(envelope.clone(), origin.is_moved()), MAX_PROPERTIES_BYTES).unwrap();
            let read = from_client(&client, &origin, Bytes::new());
            let mut expected = written(&envelope, origin.is_moved());
            // `to_client` sends no user id.
            expected.user_id = None;
            prop_assert_eq!(written(&read, origin.is_moved()), expected);
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
        fn any_bytes_of_headers_are_read_as_an_envelope_or_refused(
            origin in origin(), headers in any::headers(), damage in prop::collection::vec((any::<u16>(), any::<u8>()), 0..6)
        ) {
            let mut bytes = encoded(&table_to_client(&headers).unwrap());
            for (place, byte) in damage {
                let place = usize::from(place) % bytes.len();
                bytes[place] = byte;
            }
            if let Ok((_, table)) = parse_field_table(&bytes[..]) {
                let count = table.inner().len();
                let envelope = from_client(&BasicProperties::default().with_headers(table), &origin, Bytes::new());
                prop_assert!(envelope.headers.len() <= count);
            }
        }
    }

    #[test]
    fn a_property_of_more_than_255_bytes_is_refused_with_its_name() {
        let mut envelope = Envelope::note(MediaType::BYTES, Bytes::new());
        envelope.correlation_id = Some("x".repeat(256).into());
        let error = to_client(&routed(envelope, false), MAX_PROPERTIES_BYTES).unwrap_err().to_string();
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
