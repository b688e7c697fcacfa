//! Frames: type, channel, size, payload, end (AMQP 0-9-1, section 2.3.5).

/// Bytes in front of the payload.
pub(super) const HEADER: usize = 7;
/// Bytes behind it.
pub(super) const END: usize = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Method,
    Header,
    /// Bodies, heartbeats, and the protocol's own header, whose content is not checked.
    Other,
}

/// The type and size in front of a frame's payload.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) kind: Kind,
    size: usize,
}

pub(super) struct Frame<'a> {
    pub(super) head: Head,
    pub(super) payload: &'a [u8],
}

impl Head {
    /// Reads it; `None` until all its bytes are there.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let &[kind, _, _, a, b, c, d, ..] = bytes else { return None };
        // A broker with another protocol version answers with eight bytes that are no frame.
        if kind == b'A' {
            return Some(Self { kind: Kind::Other, size: 0 });
        }
        let kind = match kind {
            1 => Kind::Method,
            2 => Kind::Header,
            _ => Kind::Other,
        };
        Some(Self { kind, size: u32::from_be_bytes([a, b, c, d]) as usize })
    }

    /// The size of the whole frame in bytes.
    pub(super) fn whole(&self) -> usize {
        HEADER + self.size + END
    }

    /// The frame, if it is complete.
    pub(super) fn frame<'a>(&self, bytes: &'a [u8]) -> Option<Frame<'a>> {
        let whole = bytes.get(..self.whole())?;
        Some(Frame { head: *self, payload: &whole[HEADER..whole.len() - END] })
    }
}

/// Appends a frame like another one, with another payload.
pub(super) fn put_frame(to: &mut Vec<u8>, like: &[u8], payload: &[u8]) {
    to.extend_from_slice(&like[..HEADER - 4]);
    to.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    to.extend_from_slice(payload);
    to.push(0xce);
}
