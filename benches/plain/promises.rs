//! The properties that Postrider sends and the guarantees that it requests, on the bare client: their cost alone.

use std::time::{SystemTime, UNIX_EPOCH};

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

/// The properties and headers of a command without a cause. Ids are a counter, which costs less than generating them.
pub(crate) fn of_command(key: &str, id: &ShortString) -> BasicProperties {
    sent(key, id, Vec::new()).with_delivery_mode(2)
}

/// Those of a query whose caller waits 30 s.
pub(crate) fn of_query(key: &str, id: &ShortString) -> BasicProperties {
    let patience = vec![("postrider-timeout", AMQPValue::LongLongInt(30_000))];
    sent(key, id, patience).with_delivery_mode(1).with_expiration("30000".into())
}

fn sent(key: &str, id: &ShortString, mut headers: Vec<(&str, AMQPValue)>) -> BasicProperties {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let trace = format!("00-{}-b7ad6b7169203331-01", id.as_str().replace('-', ""));
    headers.extend([("postrider-instance", text("i2fc3ff2dfd34")), ("traceparent", text(&trace))]);
    BasicProperties::default()
        .with_content_type("application/msgpack".into())
        .with_message_id(id.clone())
        .with_type(key.into())
        .with_app_id("publisher".into())
        .with_timestamp(seconds)
        .with_headers(table(headers))
}

/// What an answer has besides its correlation id.
pub(crate) fn of_answer(request: &ShortString) -> BasicProperties {
    let headers = vec![
        ("postrider-causation-id", text(request.as_str())),
        ("postrider-conversation-id", text(request.as_str())),
        ("postrider-instance", text("i3bf8b6380d05")),
    ];
    BasicProperties::default()
        .with_content_type("application/msgpack".into())
        .with_message_id(request.clone())
        .with_type("load.echo".into())
        .with_app_id("load".into())
        .with_delivery_mode(1)
        .with_headers(table(headers))
}

/// Has the length and form of an id.
pub(crate) fn id(number: u64) -> ShortString {
    format!("01a200df-bbd6-7672-9bd2-{number:012x}").into()
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn table(headers: Vec<(&str, AMQPValue)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert(name.into(), value);
    }
    table
}
