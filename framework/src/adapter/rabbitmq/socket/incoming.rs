//! Makes the bytes from the broker readable for the client before it sees them.

use crate::adapter::rabbitmq::socket::frame::{END, Frame, HEADER, Head, Kind, put_frame};
use crate::adapter::rabbitmq::socket::{content, method};

/// The largest frame that is inspected as a whole. A message with a larger header frame loses its properties, but not its place.
const MAX_LOOKED_INTO: usize = 1024 * 1024;

/// Checks the bytes from the broker, frame by frame.
pub(super) struct Incoming {
    /// The largest frame that the client takes, in bytes.
    frame_max: usize,
    /// Bytes of the current frame that pass unchecked.
    passing: usize,
    /// Bytes of the current frame that are thrown away.
    dropping: usize,
    /// The beginning of a frame that has not arrived completely.
    held: Vec<u8>,
    /// The bytes for the client to read next, from `read` on.
    ready: Vec<u8>,
    read: usize,
}

impl Incoming {
    pub(super) fn new(frame_max: usize) -> Self {
        Self { frame_max, passing: 0, dropping: 0, held: Vec::new(), ready: Vec::new(), read: 0 }
    }

    /// Copies ready bytes to the client; returns how many.
    pub(super) fn take(&mut self, to: &mut [u8]) -> usize {
        let waiting = &self.ready[self.read..];
        let count = waiting.len().min(to.len());
        to[..count].copy_from_slice(&waiting[..count]);
        self.read += count;
        if self.read == self.ready.len() && self.read > 0 {
            (self.ready, self.read) = (Vec::new(), 0);
        }
        count
    }

    /// Checks bytes that have arrived. Returns how many of the first ones the client may read unchanged. The rest is kept here, and
    /// [`Incoming::take`] gives it out when its frame is complete.
    pub(super) fn came(&mut self, bytes: &[u8]) -> usize {
        if self.held.is_empty() && self.dropping == 0 {
            let plain = self.plain(bytes);
            if plain < bytes.len() {
                self.look(&bytes[plain..]);
            }
            return plain;
        }
        self.look(bytes);
        0
    }

    /// The connection has ended within a frame: the client gets what has arrived.
    pub(super) fn end(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.ready.extend_from_slice(&held);
    }

    /// How many bytes at the beginning can pass unchanged.
    fn plain(&mut self, bytes: &[u8]) -> usize {
        let mut at = self.passing.min(bytes.len());
        self.passing -= at;
        while let Some(head) = Head::read(&bytes[at..]) {
            match head.kind {
                Kind::Other => {
                    let size = head.whole();
                    let here = size.min(bytes.len() - at);
                    self.passing = size - here;
                    at += here;
                }
                Kind::Method | Kind::Header => match head.frame(&bytes[at..]) {
                    Some(frame) if self.is_readable(&frame) => at += head.whole(),
                    _ => break,
                },
            }
        }
        at
    }

    fn is_readable(&mut self, frame: &Frame<'_>) -> bool {
        match frame.head.kind {
            Kind::Method => {
                if let Some(most) = method::frame_max(frame.payload) {
                    self.frame_max = self.frame_max.min(most);
                }
                method::is_readable(frame.payload)
            }
            Kind::Header => content::is_readable(frame.payload, self.room()),
            Kind::Other => true,
        }
    }

    /// The largest payload of a frame.
    fn room(&self) -> usize {
        self.frame_max - HEADER - END
    }

    /// Takes bytes that cannot pass unchanged, or that belong to a frame that began earlier.
    fn look(&mut self, bytes: &[u8]) {
        let mut rest = self.after_frame(bytes);
        while !rest.is_empty() {
            let Some(taken) = self.hold(rest) else { return };
            rest = self.after_frame(&rest[taken..]);
        }
    }

    /// Passes or drops the rest of the current frame, as was decided for it; returns the bytes behind it.
    fn after_frame<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let dropped = self.dropping.min(bytes.len());
        self.dropping -= dropped;
        let passed = self.passing.min(bytes.len() - dropped);
        self.passing -= passed;
        self.ready.extend_from_slice(&bytes[dropped..dropped + passed]);
        &bytes[dropped + passed..]
    }

    /// Adds missing bytes to the held frame. Returns how many when the frame is done with; `None` if bytes are still missing.
    fn hold(&mut self, bytes: &[u8]) -> Option<usize> {
        let before = self.held.len();
        let lacking = HEADER.saturating_sub(before).min(bytes.len());
        self.held.extend_from_slice(&bytes[..lacking]);
        let head = Head::read(&self.held)?;
        if head.kind == Kind::Other {
            self.ready.append(&mut self.held);
            self.passing = head.whole() - HEADER;
            return Some(lacking);
        }
        // Only the beginning of a frame that is too large is kept.
        let too_large = head.kind == Kind::Header && head.whole() > MAX_LOOKED_INTO;
        let wanted = if too_large { HEADER + content::PREFIX } else { head.whole() };
        let more = wanted.saturating_sub(self.held.len()).min(bytes.len() - lacking);
        self.held.extend_from_slice(&bytes[lacking..lacking + more]);
        if self.held.len() < wanted {
            return None;
        }
        let held = std::mem::take(&mut self.held);
        if too_large {
            self.dropping = head.whole() - wanted;
            put_frame(&mut self.ready, &held, &content::bare(&held[HEADER..]));
        } else {
            self.let_in(&head, &held);
        }
        Some(lacking + more)
    }

    fn let_in(&mut self, head: &Head, whole: &[u8]) {
        let made = match head.frame(whole) {
            Some(frame) if !self.is_readable(&frame) => match head.kind {
                Kind::Header => Some(content::readable(frame.payload, self.room())),
                Kind::Method => method::readable(frame.payload),
                Kind::Other => None,
            },
            _ => None,
        };
        match made {
            Some(payload) => put_frame(&mut self.ready, whole, &payload),
            None => self.ready.extend_from_slice(whole),
        }
    }
}
