//! What the broker sends, made readable for the client before it sees it.

use crate::adapter::rabbitmq::socket::frame::{END, Frame, HEADER, Head, Kind, put_frame};
use crate::adapter::rabbitmq::socket::{content, method};

/// The largest frame that is looked into as a whole. The properties of a larger one are lost; its message is not.
const MAX_LOOKED_INTO: usize = 1024 * 1024;

/// Goes through the bytes from the broker, frame by frame.
pub(super) struct Incoming {
    /// The largest frame that the client takes, in bytes.
    frame_max: usize,
    /// Bytes of the present frame that need not be looked at.
    passing: usize,
    /// Bytes of the present frame that are thrown away.
    dropping: usize,
    /// The beginning of a frame that has not come whole.
    held: Vec<u8>,
    /// What the client is to read next, from this place on.
    ready: Vec<u8>,
    read: usize,
}

impl Incoming {
    pub(super) fn new(frame_max: usize) -> Self {
        Self { frame_max, passing: 0, dropping: 0, held: Vec::new(), ready: Vec::new(), read: 0 }
    }

    /// Gives the client what is ready for it; the number of bytes.
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

    /// Looks at bytes that have come. The client may read as many of them as they are; the rest is kept here, and comes by
    /// [`Incoming::take`] when its frame is whole.
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

    /// The connection has ended in the middle of a frame: the client gets what there is.
    pub(super) fn end(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.ready.extend_from_slice(&held);
    }

    /// How many bytes at the beginning can pass as they are.
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

    /// Takes bytes that cannot pass as they are, or belong to a frame that began earlier.
    fn look(&mut self, bytes: &[u8]) {
        let mut rest = self.after_frame(bytes);
        while !rest.is_empty() {
            let Some(taken) = self.hold(rest) else { return };
            rest = self.after_frame(&rest[taken..]);
        }
    }

    /// Does with the rest of the present frame what was decided; what comes behind it.
    fn after_frame<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let dropped = self.dropping.min(bytes.len());
        self.dropping -= dropped;
        let passed = self.passing.min(bytes.len() - dropped);
        self.passing -= passed;
        self.ready.extend_from_slice(&bytes[dropped..dropped + passed]);
        &bytes[dropped + passed..]
    }

    /// Adds to the frame that is held as much as it lacks. How much that was, if it is done with; nothing if it still lacks some.
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
        // Of one that is too large only its beginning is kept.
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
