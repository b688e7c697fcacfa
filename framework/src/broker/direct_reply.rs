//! Direct reply-to: replies go straight to the caller's channel (<https://www.rabbitmq.com/docs/direct-reply-to>).

/// The placeholder for the sender's own channel; the broker replaces it with the real address.
pub(crate) const DIRECT_REPLY_TO: &str = "amq.rabbitmq.reply-to";

/// Whether the address is a channel and not a queue.
pub(crate) fn is_direct_reply(address: &str) -> bool {
    address.strip_prefix(DIRECT_REPLY_TO).is_some_and(|rest| rest.starts_with('.'))
}
