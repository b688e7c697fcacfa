//! Finds the message that made the broker close a channel or a connection. The broker does not name it, so the messages that were
//! in flight are sent again, each alone, until one is found.

use std::time::Duration;

use tokio::time::Instant;

use crate::adapter::rabbitmq::errors::code;
use crate::adapter::rabbitmq::publishing::send_path::ChannelState;

/// A message that was in flight this often when the broker closed a channel or connection counts as the reason. The second time it
/// was alone.
const MAX_CLOSED_CHANNELS: u8 = 2;
/// How long each reply is alone on its channel after an unidentified reply has closed one.
const ONE_AT_A_TIME: Duration = Duration::from_secs(30);
/// The broker's code for a connection that was closed on purpose, or that ends because the broker stops.
const CONNECTION_FORCED: u16 = 320;

/// The numbers of the messages that must have been the reason.
///
/// A message is the reason if it was alone on a channel that the broker closed. A connection may have been closed because of
/// another channel, so there a message must have been in flight twice.
pub(super) fn closers(error: &lapin::Error, on_channel: &mut ChannelState, replies_only: bool) -> Vec<u64> {
    if code(error).is_none_or(|code| code == CONNECTION_FORCED) {
        return Vec::new();
    }
    if replies_only {
        on_channel.one_at_a_time_until = Some(Instant::now() + ONE_AT_A_TIME);
    }
    let alone = on_channel.in_flight.len() == 1;
    let proven = alone && error.is_amqp_soft_error();
    let mut accused = Vec::new();
    for (number, job) in on_channel.in_flight.iter_mut() {
        job.closed_channels += 1;
        if proven || job.closed_channels >= MAX_CLOSED_CHANNELS {
            accused.push(number);
        }
    }
    accused
}
