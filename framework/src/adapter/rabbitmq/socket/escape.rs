//! Escapes short strings that are not UTF-8. AMQP allows any bytes in a short string; the client takes only UTF-8, and otherwise
//! closes the whole connection. Such a string is escaped when it arrives, and becomes the same bytes again when it is sent.

use std::fmt::Write;

use crate::adapter::rabbitmq::properties::MAX_SHORT;

/// The character that stands for unreadable text everywhere. Here two hexadecimal digits follow it: the byte it stands for.
pub(super) const MARK: &str = "\u{fffd}";

/// Whether a short string must be escaped: it is not UTF-8, or it would be taken for an escaped one. A cut string is neither, so it
/// stays the same however often it is received and sent.
pub(super) fn needs_escape(bytes: &[u8]) -> bool {
    !bytes.is_ascii()
        && std::str::from_utf8(bytes).map_or(true, |text| text.contains(MARK) && unescape(bytes).is_some())
}

/// The string with [`MARK`] and two hexadecimal digits for each byte that is not UTF-8. All other text stays, so that `noise.\xff`
/// still begins with `noise.`. If the result does not fit into a short string, it is cut off and ends with a bare mark.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            if MARK.contains(letter) { put_bytes(&mut text, MARK.as_bytes()) } else { text.push(letter) }
        }
        put_bytes(&mut text, chunk.invalid());
    }
    if text.len() > MAX_SHORT {
        let room = MAX_SHORT - MARK.len();
        // Do not cut within an escaped byte.
        let cut = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= room).last().unwrap_or_default();
        let begun = (cut.saturating_sub(4)..cut).find(|at| text.is_char_boundary(*at) && text[*at..].starts_with(MARK));
        text.truncate(begun.filter(|at| at + 5 > cut).unwrap_or(cut));
        text.push_str(MARK);
    }
    text
}

fn put_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{MARK}{byte:02x}");
    }
}

/// The bytes that were escaped; `None` if [`escape`] did not make this text, or cut it.
pub(super) fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match rest.strip_prefix(MARK.as_bytes()) {
            Some([high, low, after @ ..]) => {
                bytes.push(digit(*high)? << 4 | digit(*low)?);
                after
            }
            Some(_) => return None,
            None => {
                bytes.push(byte);
                after
            }
        };
    }
    // If these bytes need no escape, the text is a sender's own.
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
        fn what_was_escaped_becomes_the_same_bytes_again(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
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
            prop_assert!(!needs_escape(&bytes) || unescape(escaped.as_bytes()) == Some(bytes) || escaped.ends_with(MARK));
            prop_assert!(!escaped.ends_with(MARK) || unescape(escaped.as_bytes()).is_none());
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_comes_back_as_the_same_text(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let shown = |bytes: &[u8]| if needs_escape(bytes) { escape(bytes).into_bytes() } else { bytes.to_vec() };
            let first = shown(&bytes);
            let sent = unescape(&first).unwrap_or_else(|| first.clone());
            prop_assert_eq!(shown(&sent), first);
        }
    }

    #[test]
    fn an_escaped_string_can_be_read() {
        assert_eq!(escape(b"order.\xff\xfe.made"), "order.\u{fffd}ff\u{fffd}fe.made");
        assert!(!needs_escape("a\u{fffd}, b".as_bytes()) && needs_escape("a\u{fffd}ff".as_bytes()));
        assert_eq!(escape("a\u{fffd}ff".as_bytes()), "a\u{fffd}ef\u{fffd}bf\u{fffd}bdff");
    }
}
