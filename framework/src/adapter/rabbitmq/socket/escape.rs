//! Short strings that are no UTF-8. AMQP lets a short string hold any bytes; the client takes UTF-8 only and ends the whole
//! connection otherwise. Such a string is escaped when it arrives and becomes the same bytes again when it is sent.

use std::fmt::Write;

/// What an escaped string begins with: the sign that stands for unreadable text everywhere.
pub(super) const MARK: &str = "\u{fffd}";
/// The most bytes of a short string.
const MAX_SHORT: usize = 255;
/// What an escaped string ends with that had to be cut, because it was longer than a short string may be.
const CUT: &str = "\u{2026}";

/// Whether a short string must be escaped: it is no UTF-8, or it looks like an escaped one.
pub(super) fn needs_escape(bytes: &[u8]) -> bool {
    bytes.starts_with(MARK.as_bytes()) || std::str::from_utf8(bytes).is_err()
}

/// The string with every byte that is no printable ASCII character as `\xNN`, behind [`MARK`]. What does not fit into a short
/// string is cut off.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut text = String::from(MARK);
    for &byte in bytes {
        let before = text.len();
        match byte {
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(text, "\\x{byte:02x}")),
        }
        if text.len() > MAX_SHORT {
            text.truncate(before);
            while text.len() + CUT.len() > MAX_SHORT {
                text.pop();
            }
            text.push_str(CUT);
            break;
        }
    }
    text
}

/// The bytes that were escaped; nothing if this is not what [`escape`] makes, or if it was cut.
pub(super) fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut rest = text.strip_prefix(MARK.as_bytes())?;
    let mut bytes = Vec::with_capacity(rest.len());
    while let Some((&byte, after)) = rest.split_first() {
        rest = match (byte, after) {
            (b'\\', [b'\\', after @ ..]) => {
                bytes.push(b'\\');
                after
            }
            (b'\\', [b'x', high, low, after @ ..]) => {
                bytes.push(digit(*high)? << 4 | digit(*low)?);
                after
            }
            (b'\\', _) => return None,
            (b' '..=b'~', after) => {
                bytes.push(byte);
                after
            }
            _ => return None,
        };
    }
    // What would not have been escaped is somebody's own text.
    needs_escape(&bytes).then_some(bytes)
}

fn digit(letter: u8) -> Option<u8> {
    match letter {
        b'0'..=b'9' => Some(letter - b'0'),
        b'a'..=b'f' => Some(letter - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_escaped_becomes_the_same_bytes_again(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let escaped = escape(&bytes);
            prop_assert!(escaped.len() <= MAX_SHORT);
            if needs_escape(&bytes) {
                prop_assert!(needs_escape(escaped.as_bytes()));
                prop_assert_eq!(unescape(escaped.as_bytes()), Some(bytes));
            }
        }

        #[test]
        fn text_that_was_never_escaped_stays(text in ".{0,60}") {
            if let Some(bytes) = unescape(text.as_bytes()) {
                prop_assert!(needs_escape(&bytes));
            }
        }

        #[test]
        fn a_string_of_any_length_fits_into_a_short_string(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let escaped = escape(&bytes);
            prop_assert!(escaped.len() <= MAX_SHORT, "{}", escaped.len());
            if escaped.ends_with(CUT) {
                prop_assert_eq!(unescape(escaped.as_bytes()), None);
            }
        }
    }

    #[test]
    fn an_escaped_string_can_be_read() {
        assert_eq!(escape(b"order \xff\xfe\x00\r"), "\u{fffd}order \\xff\\xfe\\x00\\x0d");
    }
}
