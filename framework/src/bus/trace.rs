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
        let trace_id = from_hex(bytes.get(TRACE)?).filter(|id| *id != 0)?;
        let span_id = from_hex(bytes.get(SPAN)?).filter(|id| *id != 0)?;
        let flags = from_hex(bytes.get(FLAGS)?)?;
        Some(Self { trace_id, span_id: span_id as u64, flags: flags as u8 })
    }

    fn written(self) -> [u8; LENGTH] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        to_hex(self.trace_id, &mut text[TRACE]);
        to_hex(self.span_id.into(), &mut text[SPAN]);
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

/// At most as many digits as fit.
fn from_hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | u128::from(char::from(*digit).to_digit(16)?)))
}

fn to_hex(mut number: u128, digits: &mut [u8]) {
    for digit in digits.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

fn new_span_id() -> u64 {
    fastrand::u64(1..)
}
