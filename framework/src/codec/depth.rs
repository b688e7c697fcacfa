//! Measures how deep an encoded payload is nested, without building values and without recursion.

use crate::codec::Codec;
use crate::message::MediaType;

/// Whether lists and maps in the payload are nested deeper than `most`. A malformed payload passes here; the decoder
/// reports what is wrong with it.
pub(super) fn exceeds(payload: &[u8], media_type: &MediaType, most: usize) -> bool {
    match Codec::for_media_type(media_type) {
        Some(Codec::Json) => json(payload, most),
        Some(Codec::Msgpack) => matches!(msgpack(payload, most), Walked::TooDeep),
        _ => false,
    }
}

pub(super) fn json(payload: &[u8], most: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for &byte in payload {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The meaning of one MessagePack marker.
enum Item {
    /// This many bytes of the value itself follow.
    Scalar(usize),
    /// This many items follow, one level deeper.
    Nested(u64),
}

/// The result of walking through a payload.
pub(super) enum Walked {
    /// One value, and this number of bytes after it.
    Whole {
        /// 0 for a well-formed payload.
        rest: usize,
    },
    /// It ends in the middle of a value.
    Cut,
    /// It is nested deeper than allowed.
    TooDeep,
}

/// A stack of levels. The usual depth needs no allocation.
#[derive(Default)]
struct Levels {
    near: [u64; 16],
    far: Vec<u64>,
    count: usize,
}

impl Levels {
    fn push(&mut self, level: u64) {
        match self.near.get_mut(self.count) {
            Some(place) => *place = level,
            None => self.far.push(level),
        }
        self.count += 1;
    }

    fn pop(&mut self) -> Option<u64> {
        self.count = self.count.checked_sub(1)?;
        self.far.pop().or_else(|| self.near.get(self.count).copied())
    }
}

/// Walks from item to item until the value ends.
pub(super) fn msgpack(payload: &[u8], most: usize) -> Walked {
    // The number of items left on this level, and on the levels around it.
    let (mut left, mut around) = (1, Levels::default());
    let mut rest = payload;
    while let Some((item, after)) = read_item(rest) {
        rest = after;
        left -= 1;
        match item {
            Item::Scalar(bytes) => match rest.get(bytes..) {
                Some(after) => rest = after,
                None => return Walked::Cut,
            },
            Item::Nested(items) => {
                if around.count >= most {
                    return Walked::TooDeep;
                }
                around.push(left);
                left = items;
            }
        }
        // That was the last item of this level, and perhaps of levels around it.
        while left == 0 {
            let Some(outer) = around.pop() else { return Walked::Whole { rest: rest.len() } };
            left = outer;
        }
    }
    Walked::Cut
}

/// Reads a marker and its length; see the MessagePack specification, "Formats".
fn read_item(bytes: &[u8]) -> Option<(Item, &[u8])> {
    let (&marker, rest) = bytes.split_first()?;
    let sized =
        |width: usize, extra: u64| Some((Item::Scalar((big_endian(rest, width)? + extra) as usize), &rest[width..]));
    let nested = |width: usize, each: u64| Some((Item::Nested(big_endian(rest, width)? * each), &rest[width..]));
    match marker {
        0x80..=0x8f => Some((Item::Nested(u64::from(marker & 0x0f) * 2), rest)),
        0x90..=0x9f => Some((Item::Nested(u64::from(marker & 0x0f)), rest)),
        0xa0..=0xbf => Some((Item::Scalar(usize::from(marker & 0x1f)), rest)),
        0xc4 | 0xd9 => sized(1, 0),
        0xc5 | 0xda => sized(2, 0),
        0xc6 | 0xdb => sized(4, 0),
        0xc7 => sized(1, 1),
        0xc8 => sized(2, 1),
        0xc9 => sized(4, 1),
        0xcc | 0xd0 => Some((Item::Scalar(1), rest)),
        0xcd | 0xd1 | 0xd4 => Some((Item::Scalar(2), rest)),
        0xd5 => Some((Item::Scalar(3), rest)),
        0xca | 0xce | 0xd2 => Some((Item::Scalar(4), rest)),
        0xd6 => Some((Item::Scalar(5), rest)),
        0xcb | 0xcf | 0xd3 => Some((Item::Scalar(8), rest)),
        0xd7 => Some((Item::Scalar(9), rest)),
        0xd8 => Some((Item::Scalar(17), rest)),
        0xdc => nested(2, 1),
        0xdd => nested(4, 1),
        0xde => nested(2, 2),
        0xdf => nested(4, 2),
        _ => Some((Item::Scalar(0), rest)),
    }
}

fn big_endian(bytes: &[u8], width: usize) -> Option<u64> {
    Some(bytes.get(..width)?.iter().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> serde_json::Value {
        (0..depth).fold(serde_json::Value::from("x]{\""), |inner, level| {
            if level % 2 == 0 { serde_json::json!([1, inner]) } else { serde_json::json!({ "k": inner, "l": 2.5 }) }
        })
    }

    #[test]
    fn depth_is_counted_alike_in_json_and_msgpack() {
        for depth in 0..20 {
            let value = nested(depth);
            let json = serde_json::to_vec(&value).unwrap();
            let msgpack = rmp_serde::to_vec_named(&value).unwrap();
            for most in 0..20 {
                assert_eq!(exceeds(&json, &MediaType::JSON, most), depth > most, "json {depth} {most}");
                assert_eq!(exceeds(&msgpack, &MediaType::MSGPACK, most), depth > most, "msgpack {depth} {most}");
            }
        }
    }
}
