//! The message that the benchmarks send.

use serde::{Deserialize, Serialize};

/// A message of any size: a number, when it was sent, and text.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Work {
    /// Its number, from 0.
    pub number: u64,
    /// When it was sent: nanoseconds of this machine's monotonic clock.
    pub sent_at: u64,
    /// Padding to the wanted size.
    pub text: String,
}

/// Bytes of a message that are not text: the map, its three names, two numbers of nine bytes and the text's length.
const REST: usize = 1 + 7 + 9 + 8 + 9 + 5 + 3;

impl Work {
    /// A message of about this many bytes, as maps with names in msgpack.
    #[must_use]
    pub fn of_bytes(bytes: usize) -> Self {
        Self { number: 0, sent_at: now(), text: "x".repeat(bytes.saturating_sub(REST)) }
    }

    /// How long ago it was sent, in nanoseconds.
    #[must_use]
    pub fn age(&self) -> u64 {
        now().saturating_sub(self.sent_at)
    }
}

/// Nanoseconds of the clock that all processes of this machine share.
#[must_use]
pub fn now() -> u64 {
    let since = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    since.map_or(0, |at| u64::try_from(at.tv_sec() * 1_000_000_000 + at.tv_nsec()).unwrap_or_default())
}
