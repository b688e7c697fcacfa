//! Foreign messages, one of each kind that has harmed a service before.

use crate::raw::{RawMessage, nested_header, text_header};

/// The prefix of the ids of foreign messages.
pub const STRANGER: &str = "stranger";

/// Not UTF-8, with bytes that end lines and strings.
pub const GARBAGE: &[u8] = b"\xff\xfe\x00\x01 no \xc3\x28 text \n\x0d";

/// Looks like a direct reply address, but no channel has it. The broker closes the whole connection over it.
pub const MADE_UP: &[u8] = b"amq.rabbitmq.reply-to.g1h2AA9yZXBseUAxMTExMTE5.xx";

/// Messages for a command, none of which its handler can decode.
#[must_use]
pub fn messages(exchange: &str, key: &str) -> Vec<RawMessage> {
    let plain =
        || RawMessage::to_exchange(exchange, key, "no message of ours").property("content_type", b"application/json");
    let count = [b"\x10x-delivery-countl".to_vec(), 20_u64.to_be_bytes().to_vec()].concat();
    let all = vec![
        plain().property("correlation_id", GARBAGE),
        plain().property("type", GARBAGE),
        plain().property("app_id", GARBAGE).property("cluster_id", GARBAGE),
        plain().headers(&text_header(GARBAGE, GARBAGE)),
        plain().headers(&nested_header(1_500, true)),
        plain().headers(&nested_header(9_000, false)),
        plain().headers(&count),
        plain().property("content_encoding", b"rot13"),
        plain().property("reply_to", MADE_UP),
    ];
    let numbered = all.into_iter().enumerate();
    numbered
        .map(|(number, message)| message.property("message_id", format!("{STRANGER}-{number}").as_bytes()))
        .collect()
}
