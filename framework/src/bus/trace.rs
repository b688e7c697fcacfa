//! The W3C trace context (<https://www.w3.org/TR/trace-context/>), as far as passing it on goes.

use std::fmt;
use std::ops::Range;

use crate::message::Value;

/// Where in a distributed trace something happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The whole trace.
    pub trace_id: u128,
    /// This step of it.
    pub span_id: u64,
    /// Whether it is recorded.
    pub flags: u8,
}

impl TraceContext {
    /// The header's name.
    pub const TRACEPARENT: &str = "traceparent";
    /// The vendor's header beside it, passed on as it is.
    pub const TRACESTATE: &str = "tracestate";

    /// A new trace.
    #[must_use]
    pub fn root() -> Self {
        Self { trace_id: fastrand::u128(1..), span_id: new_span_id(), flags: 1 }
    }

    /// A new step in the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span_id: new_span_id(), ..self }
    }

    /// Reads a `traceparent` header. `None` if it is not one; then a new trace begins.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let dashes = [2, 35, 52].into_iter().all(|place| bytes.get(place) == Some(&b'-'));
        // A later version may say more behind another dash.
        if !dashes || text.starts_with("ff") || !matches!(bytes.get(LENGTH), None | Some(b'-')) {
            return None;
        }
        from_hex(bytes.get(..2)?)?;
        let (high, low) = bytes.get(TRACE)?.split_at(16);
        let trace_id = u128::from(from_hex(high)?) << 64 | u128::from(from_hex(low)?);
        let (span_id, flags) = (from_hex(bytes.get(SPAN)?)?, from_hex(bytes.get(FLAGS)?)?);
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, flags: flags as u8 })
    }

    fn written(self) -> [u8; LENGTH] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let (high, low) = text[TRACE].split_at_mut(16);
        to_hex((self.trace_id >> 64) as u64, high);
        to_hex(self.trace_id as u64, low);
        to_hex(self.span_id, &mut text[SPAN]);
        to_hex(self.flags.into(), &mut text[FLAGS]);
        text
    }

    /// The header's value.
    pub(crate) fn header(self) -> Value {
        str::from_utf8(&self.written()).unwrap_or_default().into()
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.written()).unwrap_or_default())
    }
}

/// Where the parts of the header's value are.
const TRACE: Range<usize> = 3..35;
const SPAN: Range<usize> = 36..52;
const FLAGS: Range<usize> = 53..55;
/// How long it is.
const LENGTH: usize = 55;

/// The value of each hexadecimal digit, and [`NO_DIGIT`] for all else.
const DIGITS: [u8; 256] = {
    let (mut values, mut value) = ([NO_DIGIT; 256], 0);
    while value < 16 {
        values[b"0123456789abcdef"[value] as usize] = value as u8;
        values[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    values
};
const NO_DIGIT: u8 = 0x80;

/// At most 16 digits.
fn from_hex(digits: &[u8]) -> Option<u64> {
    let (mut number, mut seen) = (0, 0);
    for digit in digits {
        let value = DIGITS[usize::from(*digit)];
        seen |= value;
        number = number << 4 | u64::from(value & 15);
    }
    (seen & NO_DIGIT == 0).then_some(number)
}

fn to_hex(mut number: u64, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

fn new_span_id() -> u64 {
    fastrand::u64(1..)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_trace_is_read_as_it_is_written(trace_id in 1_u128.., span_id in 1_u64.., flags in any::<u8>()) {
            let trace = TraceContext { trace_id, span_id, flags };
            prop_assert_eq!(trace.to_string(), format!("00-{trace_id:032x}-{span_id:016x}-{flags:02x}"));
            prop_assert_eq!(trace.header(), Value::from(trace.to_string()));
            prop_assert_eq!(TraceContext::parse(&trace.to_string()), Some(trace));
        }

        #[test]
        fn any_text_is_a_trace_or_none(text in "\\PC{0,70}|[0-9a-f]{2}-[0-9a-fA-Fx]{32}-[0-9a-fg]{16}-[0-9a-f]{2}(-.*)?") {
            if let Some(trace) = TraceContext::parse(&text) {
                prop_assert_eq!(trace.to_string()[3..].to_owned(), text[3..LENGTH].to_lowercase());
            }
        }
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
