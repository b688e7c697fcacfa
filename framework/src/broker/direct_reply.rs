//! Direct reply-to: replies straight to the channel of the caller (<https://www.rabbitmq.com/docs/direct-reply-to>).

/// What a sender writes for the address of its own channel; the broker puts the real one in its place.
pub(crate) const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Whether it is the address of somebody's channel, and no queue.
pub(crate) fn is_direct_reply(address: &str) -> bool {
    address.strip_prefix(DIRECT_REPLY_TO).is_some_and(|rest| rest.starts_with('.'))
}
