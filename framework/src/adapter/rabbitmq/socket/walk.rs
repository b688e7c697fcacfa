//! Reads the fields of a frame one after another, without building values.

/// The unread rest of a frame.
#[derive(Clone, Copy)]
pub(super) struct Walk<'a>(pub(super) &'a [u8]);

impl<'a> Walk<'a> {
    pub(super) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.bytes(1).map(|bytes| bytes[0])
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.bytes(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    /// A string of at most 255 bytes, its length in front.
    pub(super) fn short(&mut self) -> Option<&'a [u8]> {
        let length = self.u8()?;
        self.bytes(usize::from(length))
    }

    /// Up to 4 GiB of bytes, their length in front: a long string, a table, a list.
    pub(super) fn long(&mut self) -> Option<&'a [u8]> {
        let length = self.bytes(4)?;
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
        self.bytes(usize::try_from(length).ok()?)
    }

    pub(super) fn is_at_end(self) -> bool {
        self.0.is_empty()
    }
}

/// How many bytes a value with this tag has; `None` for values that state their own length, and for unknown tags. The tags are
/// RabbitMQ's (<https://www.rabbitmq.com/amqp-0-9-1-errata>, section 3).
pub(super) fn fixed_size(tag: u8) -> Option<usize> {
    Some(match tag {
        b'V' => 0,
        b't' | b'b' | b'B' => 1,
        b's' | b'u' | b'U' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'L' | b'l' | b'd' | b'T' => 8,
        _ => return None,
    })
}

/// Appends a short string. Longer ones are cut.
pub(super) fn put_short(to: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(usize::from(u8::MAX))];
    to.push(text.len() as u8);
    to.extend_from_slice(text);
}

/// Appends bytes with their length in front.
pub(super) fn put_long(to: &mut Vec<u8>, bytes: &[u8]) {
    to.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    to.extend_from_slice(bytes);
}
