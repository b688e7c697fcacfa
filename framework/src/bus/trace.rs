//! The W3C trace context (<https://www.w3.org/TR/trace-context/>), as much of it as passing it on needs.

use std::fmt;
use std::ops::Range;

use crate::message::Value;

/// One step of a distributed trace: the trace's id, the step's id, and whether it is recorded. Kept as header text, since nearly
/// all of it is passed on unchanged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceContext([u8; LENGTH]);

impl TraceContext {
    /// The header's name.
    pub const TRACEPARENT: &str = "traceparent";
    /// The vendor's header beside it, passed on unchanged.
    pub const TRACESTATE: &str = "tracestate";

    /// A new trace.
    #[must_use]
    pub fn root() -> Self {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-01";
        write_hex(fastrand::u64(..), &mut text[TRACE.start..]);
        write_hex(fastrand::u64(1..), &mut text[TRACE.start + 16..]);
        Self(text).child()
    }

    /// A new step in the same trace.
    #[must_use]
    pub fn child(mut self) -> Self {
        write_hex(fastrand::u64(1..), &mut self.0[SPAN.start..]);
        self
    }

    /// Reads a `traceparent` header. `None` if it is not one; then a new trace begins.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (first, later) = text.as_bytes().split_first_chunk::<LENGTH>()?;
        let mut text = *first;
        let dashes = [2, 35, 52].into_iter().all(|place| text[place] == b'-');
        // A later version may append more after another dash.
        if !dashes || !matches!(later.first(), None | Some(b'-')) {
            return None;
        }
        let version = [text[0], text[1]];
        let has_version = version.iter().all(u8::is_ascii_hexdigit) && version != *b"ff";
        let has_flags = text[FLAGS].iter().all(u8::is_ascii_hexdigit);
        if !has_version || !has_flags || !is_id(&text[TRACE]) || !is_id(&text[SPAN]) {
            return None;
        }
        // Written as version 00 does. Bit 0x20 makes letters lower case; digits have it already.
        text[..2].copy_from_slice(b"00");
        [TRACE, SPAN, FLAGS].into_iter().for_each(|part| text[part].iter_mut().for_each(|digit| *digit |= 0x20));
        Some(Self(text))
    }

    /// The id of the whole trace: 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        self.as_str().get(TRACE).unwrap_or_default()
    }

    /// The id of this step of it: 16 hexadecimal digits.
    #[must_use]
    pub fn span_id(&self) -> &str {
        self.as_str().get(SPAN).unwrap_or_default()
    }

    /// The flags, two hexadecimal digits; the lowest bit says whether the trace is recorded.
    #[must_use]
    pub fn flags(&self) -> &str {
        self.as_str().get(FLAGS).unwrap_or_default()
    }

    /// The header's value.
    pub(crate) fn header(self) -> Value {
        self.as_str().into()
    }

    fn as_str(&self) -> &str {
        // Always ASCII: `parse` checked it, or it was written here.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// The positions of the parts in the header's value.
const TRACE: Range<usize> = 3..35;
const SPAN: Range<usize> = 36..52;
const FLAGS: Range<usize> = 53..55;
/// The length of the header's value.
const LENGTH: usize = 55;

/// Whether these are hexadecimal digits, and not all zero. Their number must be a multiple of eight.
fn is_id(digits: &[u8]) -> bool {
    let (mut wrong, mut set) = (0, 0);
    for eight in digits.as_chunks::<8>().0 {
        wrong |= no_hex(*eight);
        set |= u64::from_ne_bytes(*eight) ^ each(b'0');
    }
    wrong == 0 && set != 0
}

/// The byte, eight times.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Sets the high bit of each of the eight bytes that is not a hexadecimal digit. All eight are checked at once, because every
/// message has 48 digits.
fn no_hex(digits: [u8; 8]) -> u64 {
    let text = u64::from_ne_bytes(digits);
    // The high bit of each byte says whether the byte is at least `least`. No byte carries into the next.
    let at_least = |bytes: u64, least: u8| (bytes & each(0x7f)) + each(0x80 - least);
    let is_digit = at_least(text, b'0') & !at_least(text, b'9' + 1);
    let lower = text | each(0x20);
    let is_letter = at_least(lower, b'a') & !at_least(lower, b'f' + 1);
    (!(is_digit | is_letter) | text) & each(0x80)
}

/// Writes the number as 16 hexadecimal digits into the first places.
fn write_hex(number: u64, places: &mut [u8]) {
    for (eight, half) in places.as_chunks_mut::<8>().0.iter_mut().zip([number >> 32, number & 0xffff_ffff]) {
        *eight = eight_digits(half);
    }
}

/// The hexadecimal digits of a 32-bit number.
fn eight_digits(number: u64) -> [u8; 8] {
    let words = (number | number << 16) & 0x0000_ffff_0000_ffff;
    let bytes = (words | words << 8) & 0x00ff_00ff_00ff_00ff;
    let halves = (bytes | bytes << 4) & each(0x0f);
    let is_letter = ((halves + each(6)) >> 4) & each(1);
    (halves + each(b'0') + is_letter * u64::from(b'a' - b'0' - 10)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_trace_is_read_as_it_is_written_and_its_steps_are_its_own(
            trace_id in 1_u128.., span_id in 1_u64.., flags in any::<u8>()
        ) {
            let text = format!("00-{trace_id:032x}-{span_id:016x}-{flags:02x}");
            let trace = TraceContext::parse(&text).unwrap();
            prop_assert_eq!(trace.to_string(), &*text);
            prop_assert_eq!(trace.header(), Value::from(&*text));
            let parts = [format!("{trace_id:032x}"), format!("{span_id:016x}"), format!("{flags:02x}")];
            prop_assert_eq!([trace.trace_id(), trace.span_id(), trace.flags()], parts.each_ref().map(String::as_str));
            let child = trace.child();
            prop_assert_eq!(TraceContext::parse(&child.to_string()), Some(child));
            prop_assert_eq!(&child.to_string()[..36], &text[..36]);
            prop_assert_ne!(child, trace);
            let root = TraceContext::root();
            prop_assert_eq!(TraceContext::parse(&root.to_string()), Some(root));
        }

        #[test]
        fn numbers_are_written_as_everybody_writes_them(number in any::<u64>()) {
            let mut places = [b'-'; 20];
            write_hex(number, &mut places[..16]);
            prop_assert_eq!(str::from_utf8(&places).unwrap(), format!("{number:016x}----"));
        }

        #[test]
        fn any_text_is_a_trace_or_none(text in "\\PC{0,70}|[0-9a-f]{2}-[0-9a-fA-Fx]{32}-[0-9a-fg]{16}-[0-9a-f]{2}(-.*)?") {
            let trace = TraceContext::parse(&text);
            prop_assert_eq!(trace.is_some(), is_trace(&text), "{}", &text);
            if let Some(trace) = trace {
                prop_assert_eq!(trace.to_string()[3..].to_owned(), text[3..LENGTH].to_lowercase());
            }
        }

        #[test]
        fn one_wrong_character_anywhere_makes_it_none(place in 0..LENGTH, byte in 0..0x80_u8, upper in any::<bool>()) {
            let mut text = *b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            if upper {
                text.make_ascii_uppercase();
            }
            text[place] = byte;
            let text = str::from_utf8(&text).unwrap();
            prop_assert_eq!(TraceContext::parse(text).is_some(), is_trace(text), "{}", text);
        }
    }

    /// The same check, written plainly.
    fn is_trace(text: &str) -> bool {
        let parts: Vec<&str> = text.splitn(5, '-').collect();
        let hex = |part: &str, length: usize| part.len() == length && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let id = |part: &str, length: usize| hex(part, length) && part.bytes().any(|byte| byte != b'0');
        let [version, trace, span, flags, ..] = parts[..] else { return false };
        hex(version, 2) && version != "ff" && id(trace, 32) && id(span, 16) && hex(flags, 2)
    }

    #[test]
    fn what_is_no_trace_begins_a_new_one() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(TraceContext::parse(good).is_some());
        assert!(TraceContext::parse(&format!("cc{}-more", &good[2..])).is_some(), "a later version");
        let zeros = [
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        ];
        for bad in zeros.into_iter().chain(["", "00", &format!("ff{}", &good[2..]), &format!("{good}0"), &good[..54]]) {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }
}
