//! Values written into the text of a statement. Several statements in one text take one round trip, and such a text has no parameters.

use std::fmt::Write as _;

/// Text as a literal, whatever `standard_conforming_strings` says. PostgreSQL's text has no zero bytes; they are replaced.
pub(super) fn literal(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 4);
    literal.push_str("E'");
    for letter in text.chars() {
        match letter {
            '\'' => literal.push_str("''"),
            '\\' => literal.push_str("\\\\"),
            '\0' => literal.push('\u{fffd}'),
            other => literal.push(other),
        }
    }
    literal.push('\'');
    literal
}

/// Bytes as a literal.
pub(super) fn bytes(bytes: &[u8]) -> String {
    let mut literal = String::with_capacity(2 * bytes.len() + 16);
    literal.push_str("E'\\\\x");
    for byte in bytes {
        let _ = write!(literal, "{byte:02x}");
    }
    literal.push_str("'::bytea");
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_ends_where_its_text_ends() {
        assert_eq!(literal("command a.b"), "E'command a.b'");
        assert_eq!(literal("'; DROP TABLE x; --\\"), "E'''; DROP TABLE x; --\\\\'");
        assert_eq!(literal("a\0b"), "E'a\u{fffd}b'");
        assert_eq!(bytes(&[0, 255, 39]), "E'\\\\x00ff27'::bytea");
    }
}
