//! Content headers: a message's properties and headers as they cross the socket. Checks them, and makes them readable for the
//! client.

use crate::adapter::rabbitmq::socket::escape::{escape, needs_escape, unescape};
use crate::adapter::rabbitmq::socket::walk::{Walk, fixed_size, put_long, put_short};
use crate::broker::fit::{LIST_BYTES, MOST_NAMED, NAME_SHOWN};
use crate::broker::headers::{CUT_HEADERS, UNREADABLE, own_mark};

/// How deeply lists and tables in headers may be nested. The client reads them by recursion, and each level costs stack.
pub(super) const MAX_HEADER_NESTING: usize = 128;

/// The properties of a message: the bit of each one's flag, and its shape. In the order of the protocol (AMQP 0-9-1, section
/// 1.8.3).
const PROPERTIES: [(u16, Shape); 14] = [
    (1 << 15, Shape::Short),
    (1 << 14, Shape::Short),
    (HEADERS, Shape::Table),
    (1 << 12, Shape::Bytes(1)),
    (1 << 11, Shape::Bytes(1)),
    (1 << 10, Shape::Short),
    (1 << 9, Shape::Short),
    (1 << 8, Shape::Short),
    (1 << 7, Shape::Short),
    (1 << 6, Shape::Bytes(8)),
    (1 << 5, Shape::Short),
    (1 << 4, Shape::Short),
    (1 << 3, Shape::Short),
    (1 << 2, Shape::Short),
];
const HEADERS: u16 = 1 << 13;
/// The flags that belong to no property: more flags follow, and a reserved one.
const UNKNOWN_FLAGS: u16 = 0b11;
/// The size of class, weight and body size, in front of the flags.
pub(super) const PREFIX: usize = 12;

#[derive(Clone, Copy)]
enum Shape {
    Short,
    Table,
    Bytes(usize),
}

/// Whether the client can read this content header unchanged, and it has at most `room` bytes.
pub(super) fn is_readable(payload: &[u8], room: usize) -> bool {
    payload.len() <= room && properties_are_readable(payload).unwrap_or(false)
}

fn properties_are_readable(payload: &[u8]) -> Option<bool> {
    let mut walk = Walk(payload.get(PREFIX..)?);
    let flags = walk.u16()?;
    for (_, shape) in PROPERTIES.iter().filter(|(bit, _)| flags & bit != 0) {
        let readable = match *shape {
            Shape::Short => !needs_escape(walk.short()?),
            Shape::Bytes(count) => walk.bytes(count).is_some(),
            Shape::Table => table_is_readable(walk.long()?, 1)?,
        };
        if !readable {
            return Some(false);
        }
    }
    Some(walk.is_at_end() && flags & UNKNOWN_FLAGS == 0)
}

/// Whether the client can read a table; `None` when it is truncated or has an unknown type.
fn table_is_readable(bytes: &[u8], depth: usize) -> Option<bool> {
    let mut walk = Walk(bytes);
    while !walk.is_at_end() {
        if needs_escape(walk.short()?) || !value_is_readable(&mut walk, depth)? {
            return Some(false);
        }
    }
    Some(true)
}

fn value_is_readable(walk: &mut Walk<'_>, depth: usize) -> Option<bool> {
    match walk.u8()? {
        b'S' | b'x' => walk.long().map(|_| true),
        b'F' | b'A' if depth == MAX_HEADER_NESTING => Some(false),
        b'F' => table_is_readable(walk.long()?, depth + 1),
        b'A' => {
            let mut values = Walk(walk.long()?);
            while !values.is_at_end() {
                if !value_is_readable(&mut values, depth + 1)? {
                    return Some(false);
                }
            }
            Some(true)
        }
        tag => fixed_size(tag).map(|size| walk.bytes(size).is_some()),
    }
}

/// A content header that the client can read in place of one that it cannot, of at most `room` bytes. Strings are escaped. Values
/// that are nested too deeply or cannot be understood are kept as bytes, and [`UNREADABLE`] says so. Headers that do not fit are
/// left out, the largest first, and [`CUT_HEADERS`] names them.
pub(super) fn readable(payload: &[u8], room: usize) -> Vec<u8> {
    rewritten(payload, room).filter(|made| made.len() <= room).unwrap_or_else(|| bare(payload))
}

/// A content header with only a note that the properties are lost.
pub(super) fn bare(payload: &[u8]) -> Vec<u8> {
    let mut made = prefix(payload);
    made.extend_from_slice(&HEADERS.to_be_bytes());
    let mut table = Vec::new();
    put_short(&mut table, UNREADABLE.as_bytes());
    table.push(b'S');
    let reason = format!("{}the properties could not be read, or were too large for this connection", own_mark());
    put_long(&mut table, reason.as_bytes());
    put_long(&mut made, &table);
    made
}

fn prefix(payload: &[u8]) -> Vec<u8> {
    let mut made = payload[..payload.len().min(PREFIX)].to_vec();
    made.resize(PREFIX, 0);
    made
}

fn rewritten(payload: &[u8], room: usize) -> Option<Vec<u8>> {
    let mut walk = Walk(payload.get(PREFIX..)?);
    let flags = walk.u16()? & !UNKNOWN_FLAGS;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut entries = Entries::default();
    for (bit, shape) in PROPERTIES.iter().filter(|(bit, _)| flags & bit != 0) {
        let made = if *bit > HEADERS { &mut before } else { &mut after };
        match *shape {
            Shape::Short => put_escaped(made, walk.short()?),
            Shape::Bytes(count) => made.extend_from_slice(walk.bytes(count)?),
            Shape::Table => entries.read(walk.long()?),
        }
    }
    let table = entries.table(room.checked_sub(PREFIX + 2 + 4 + before.len() + after.len())?);
    let mut made = prefix(payload);
    let flags = if table.is_empty() { flags & !HEADERS } else { flags | HEADERS };
    made.extend_from_slice(&flags.to_be_bytes());
    made.extend_from_slice(&before);
    if !table.is_empty() {
        put_long(&mut made, &table);
    }
    made.extend_from_slice(&after);
    Some(made)
}

fn put_escaped(to: &mut Vec<u8>, text: &[u8]) {
    if needs_escape(text) { put_short(to, escape(text).as_bytes()) } else { put_short(to, text) }
}

/// The headers of a message: the name of each, and its value with its tag.
#[derive(Default)]
struct Entries {
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    unreadable: Option<&'static str>,
}

impl Entries {
    fn read(&mut self, table: &[u8]) {
        let mut walk = Walk(table);
        while !walk.is_at_end() {
            let rest = walk.0;
            let Some((name, value)) = self.entry(&mut walk) else {
                self.keep_as_bytes(rest);
                return;
            };
            self.entries.push((name, value));
        }
    }

    fn keep_as_bytes(&mut self, rest: &[u8]) {
        self.unreadable = Some("a header cannot be understood");
        let mut value = vec![b'x'];
        put_long(&mut value, rest);
        self.entries.push((b"postrider-unreadable-headers".to_vec(), value));
    }

    fn entry(&mut self, walk: &mut Walk<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
        let name = walk.short()?;
        let name = if needs_escape(name) { escape(name).into_bytes() } else { name.to_vec() };
        let mut value = Vec::new();
        self.value(walk, &mut value, 1)?;
        Some((name, value))
    }

    fn value(&mut self, walk: &mut Walk<'_>, to: &mut Vec<u8>, depth: usize) -> Option<()> {
        let tag = walk.u8()?;
        match tag {
            b'F' | b'A' if depth == MAX_HEADER_NESTING => {
                self.unreadable = Some("the headers are nested more than 128 levels deep");
                to.push(b'x');
                put_long(to, walk.long()?);
            }
            b'F' | b'A' => {
                let (mut values, mut inner) = (Walk(walk.long()?), Vec::new());
                while !values.is_at_end() {
                    if tag == b'F' {
                        put_escaped(&mut inner, values.short()?);
                    }
                    self.value(&mut values, &mut inner, depth + 1)?;
                }
                to.push(tag);
                put_long(to, &inner);
            }
            b'S' | b'x' => {
                to.push(tag);
                put_long(to, walk.long()?);
            }
            tag => {
                let bytes = walk.bytes(fixed_size(tag)?)?;
                to.push(tag);
                to.extend_from_slice(bytes);
            }
        }
        Some(())
    }

    /// The table, of at most `room` bytes if leaving out whole headers can achieve that.
    fn table(mut self, room: usize) -> Vec<u8> {
        if let Some(reason) = self.unreadable {
            self.set(UNREADABLE, &format!("{}{reason}", own_mark()));
        }
        self.cut_to(room);
        let mut table = Vec::with_capacity(self.size());
        for (name, value) in &self.entries {
            put_short(&mut table, name);
            table.extend_from_slice(value);
        }
        table
    }

    /// Leaves out the largest headers, foreign ones first, until the rest takes at most `room` bytes.
    fn cut_to(&mut self, room: usize) {
        let mut size = self.size();
        if size <= room {
            return;
        }
        let ours = |name: &[u8]| name.starts_with(b"postrider-");
        let written_now = |name: &[u8]| name == UNREADABLE.as_bytes();
        self.entries.sort_by_key(|(name, value)| (written_now(name), ours(name), std::cmp::Reverse(value.len())));
        // The list of removed headers takes room itself.
        let room = room.saturating_sub(LIST_BYTES);
        let cut = self.entries.iter().take_while(|(name, value)| {
            let goes = size > room && !written_now(name);
            size -= if goes { 1 + name.len() + value.len() } else { 0 };
            goes
        });
        let cut = cut.count();
        let mut gone = self.entries.drain(..cut).map(|(name, _)| name);
        let shown = |name: Vec<u8>| String::from_utf8_lossy(&name).chars().take(NAME_SHOWN).collect::<String>();
        let (mut names, mut of_ours) = (Vec::new(), false);
        for name in gone.by_ref() {
            of_ours |= ours(&name);
            if names.len() < MOST_NAMED {
                names.push(shown(name));
            }
        }
        drop(gone);
        self.set(CUT_HEADERS, &names.join(", "));
        if of_ours {
            self.set(UNREADABLE, &format!("{}its headers do not fit into a frame of this connection", own_mark()));
        }
    }

    fn size(&self) -> usize {
        self.entries.iter().map(|(name, value)| 1 + name.len() + value.len()).sum()
    }

    fn set(&mut self, name: &str, text: &str) {
        self.entries.retain(|(known, _)| known != name.as_bytes());
        let mut value = vec![b'S'];
        put_long(&mut value, text.as_bytes());
        self.entries.push((name.as_bytes().to_vec(), value));
    }
}

/// The content header as it was before its strings were escaped; `None` if there is nothing to unescape.
pub(super) fn original(payload: &[u8]) -> Option<Vec<u8>> {
    let mut walk = Walk(payload.get(PREFIX..)?);
    let flags = walk.u16()?;
    let mut made = payload.get(..PREFIX + 2)?.to_vec();
    let mut changed = false;
    for (_, shape) in PROPERTIES.iter().filter(|(bit, _)| flags & bit != 0) {
        match *shape {
            Shape::Short => changed |= put_unescaped(&mut made, walk.short()?),
            Shape::Bytes(count) => made.extend_from_slice(walk.bytes(count)?),
            Shape::Table => {
                let mut table = Vec::new();
                changed |= original_values(walk.long()?, true, &mut table)?;
                put_long(&mut made, &table);
            }
        }
    }
    made.extend_from_slice(walk.0);
    changed.then_some(made)
}

/// Appends the values of a table or a list; returns whether any was unescaped. The client never sends values nested more deeply
/// than it can read.
fn original_values(values: &[u8], named: bool, to: &mut Vec<u8>) -> Option<bool> {
    let (mut walk, mut changed) = (Walk(values), false);
    while !walk.is_at_end() {
        if named {
            changed |= put_unescaped(to, walk.short()?);
        }
        let tag = walk.u8()?;
        to.push(tag);
        match tag {
            b'F' | b'A' => {
                let mut inner = Vec::new();
                changed |= original_values(walk.long()?, tag == b'F', &mut inner)?;
                put_long(to, &inner);
            }
            b'S' | b'x' => put_long(to, walk.long()?),
            tag => to.extend_from_slice(walk.bytes(fixed_size(tag)?)?),
        }
    }
    Some(changed)
}

/// Appends a short string in its original form; returns whether it was escaped.
pub(super) fn put_unescaped(to: &mut Vec<u8>, text: &[u8]) -> bool {
    let bytes = unescape(text);
    put_short(to, bytes.as_deref().unwrap_or(text));
    bytes.is_some()
}

#[cfg(test)]
pub(super) mod tests;
