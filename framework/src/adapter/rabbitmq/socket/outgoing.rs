//! Restores the bytes that the client sends: strings that were escaped when they arrived leave as their original bytes.

use memchr::memchr_iter;

use crate::adapter::rabbitmq::socket::escape::MARK;
use crate::adapter::rabbitmq::socket::frame::{HEADER, Head, Kind, put_frame};
use crate::adapter::rabbitmq::socket::{content, method};

/// The largest frame that is kept until it is complete. The client sends none larger than the connection allows.
const MAX_HELD: usize = 1024 * 1024;

/// Checks the bytes to the broker, frame by frame.
#[derive(Default)]
pub(super) struct Outgoing {
    /// Bytes of the current frame that leave unchanged.
    passing: usize,
    /// The beginning of a frame that the client has not written completely.
    held: Vec<u8>,
    /// The bytes to send before all others, from `left` on.
    ready: Vec<u8>,
    left: usize,
}

impl Outgoing {
    /// The bytes to send first.
    pub(super) fn ready(&self) -> &[u8] {
        &self.ready[self.left..]
    }

    /// This number of the ready bytes has been sent.
    pub(super) fn has_left(&mut self, count: usize) {
        self.left += count;
        if self.left >= self.ready.len() {
            self.ready.clear();
            self.left = 0;
        }
    }

    /// How many bytes at the beginning may leave unchanged. Report to [`Outgoing::passed`] how many were sent.
    pub(super) fn plain(&self, bytes: &[u8]) -> usize {
        if !self.held.is_empty() {
            return 0;
        }
        let mut at = self.passing.min(bytes.len());
        while let Some(head) = Head::read(&bytes[at..]) {
            let is_whole = head.frame(&bytes[at..]).is_some();
            if head.kind == Kind::Other || head.whole() > MAX_HELD {
                at += head.whole().min(bytes.len() - at);
            } else if is_whole && !contains_mark(&bytes[at..at + head.whole()]) {
                at += head.whole();
            } else {
                break;
            }
        }
        // The rest must be kept: an incomplete head, or a frame that is incomplete or may contain an escaped string.
        at
    }

    /// This number of bytes was sent unchanged.
    pub(super) fn passed(&mut self, bytes: &[u8], count: usize) {
        let mut at = self.passing.min(count);
        self.passing -= at;
        while at < count {
            let Some(head) = Head::read(&bytes[at..]) else { return };
            let here = head.whole().min(count - at);
            self.passing = head.whole() - here;
            at += here;
        }
    }

    /// Keeps the first bytes of a frame that cannot leave unchanged: the rest of one frame at most. Returns how many.
    pub(super) fn keep(&mut self, bytes: &[u8]) -> usize {
        let lacking = HEADER.saturating_sub(self.held.len()).min(bytes.len());
        self.held.extend_from_slice(&bytes[..lacking]);
        let Some(head) = Head::read(&self.held) else { return lacking };
        let more = head.whole().saturating_sub(self.held.len()).min(bytes.len() - lacking);
        self.held.extend_from_slice(&bytes[lacking..lacking + more]);
        if self.held.len() == head.whole() {
            let held = std::mem::take(&mut self.held);
            let made = head.frame(&held).filter(|_| contains_mark(&held)).and_then(|frame| match head.kind {
                Kind::Header => content::original(frame.payload),
                Kind::Method => method::original(frame.payload),
                Kind::Other => None,
            });
            match made {
                Some(payload) => put_frame(&mut self.ready, &held, &payload),
                None => self.ready.extend_from_slice(&held),
            }
        }
        lacking + more
    }
}

/// Whether the bytes may contain an escaped string.
fn contains_mark(bytes: &[u8]) -> bool {
    let [first, rest @ ..] = MARK.as_bytes() else { return false };
    memchr_iter(*first, bytes).any(|at| bytes[at + 1..].starts_with(rest))
}
