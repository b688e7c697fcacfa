//! Escapes text from other parties, so that it is safe in a terminal and in a table. Only this file does it.
//!
//! A key, an id or an error can contain line ends, which break a table, or control characters, which a terminal
//! executes.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::Write as _;

use serde_json::Value as Json;
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

/// Whether a terminal may act on the character or a reader may not see it: control characters, line ends, invisible
/// characters and those that change the direction of the text.
fn is_unsafe(character: char) -> bool {
    let turns_or_hides =
        matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    character.is_control() || turns_or_hides
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    let harms = |character: char| is_unsafe(character) && !is_kept(character);
    if !text.contains(harms) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if harms(character) {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

/// A text on one line. Unsafe characters are escaped, like `\n` and `\u{1b}`.
pub(super) fn one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// A text of several lines. Line ends and tabs stay.
pub(super) fn lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| matches!(character, '\n' | '\t'))
}

/// A text on one line, cut to the given number of characters; a cut text ends with `…`.
pub(super) fn cut(text: &str, most: usize) -> String {
    let text = one_line(text);
    if text.chars().count() <= most {
        return text.into_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// JSON on one line. JSON escapes ASCII control characters itself; this escapes the other unsafe ones too, and the
/// result is still JSON.
pub(super) fn json_line(value: &Json) -> String {
    escaped_json(&value.to_string())
}

/// JSON on several lines.
pub(super) fn json_lines(value: &Json) -> String {
    escaped_json(&format!("{value:#}"))
}

fn escaped_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for character in json.chars() {
        if is_unsafe(character) && character != '\n' {
            // All unsafe characters have at most four hexadecimal digits.
            let _ = write!(safe, "\\u{:04x}", u32::from(character));
        } else {
            safe.push(character);
        }
    }
    safe
}

/// Formats the fields of log lines, each on one line.
pub(super) struct SafeFields;

impl<'writer> FormatFields<'writer> for SafeFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> std::fmt::Result {
        let first = Cell::new(true);
        let format =
            debug_fn(move |writer: &mut Writer<'_>, field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
                let space = if first.take() { "" } else { " " };
                let value = format!("{value:?}");
                match field.name() {
                    "message" => write!(writer, "{space}{}", one_line(&value)),
                    name => write!(writer, "{space}{name}={}", one_line(&value)),
                }
            });
        format.format_fields(writer, fields)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_characters_are_shown_and_not_obeyed() {
        assert_eq!(one_line("a\n\u{1b}[31mb\u{9b}2J\u{202e}c\td"), "a\\n\\u{1b}[31mb\\u{9b}2J\\u{202e}c\\td");
        assert_eq!(lines("a\n\tb\r"), "a\n\tb\\r");
        assert_eq!(one_line("größer als 3 — 漢字"), "größer als 3 — 漢字");
        assert_eq!((cut("abc", 3), cut("abcd", 3)), ("abc".to_owned(), "ab…".to_owned()));
        assert_eq!(json_line(&serde_json::json!({ "k": "\u{9b}\n" })), r#"{"k":"\u009b\n"}"#);
    }

    #[derive(Clone, Default)]
    struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_line_is_one_line_whatever_strangers_wrote() {
        let log = Log::default();
        let writer = log.clone();
        let log_lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        let nasty = "a\n\u{1b}[31m\u{9b}b";
        tracing::subscriber::with_default(log_lines.fmt_fields(SafeFields).finish(), || {
            let span = tracing::info_span!("handle", key = %nasty);
            span.in_scope(|| tracing::error!(id = %nasty, number = 7, queue = nasty, "lost {nasty}"));
        });
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(!text.trim_end().chars().any(is_unsafe), "{text:?}");
        assert!(text.contains("lost a\\n\\u{1b}[31m") && text.contains("number=7"), "{text:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn any_text_is_one_line_that_no_terminal_obeys(text in any::<String>(), most in 1_usize..40) {
            prop_assert!(!one_line(&text).chars().any(is_unsafe));
            prop_assert!(!lines(&text).chars().any(|c| is_unsafe(c) && c != '\n' && c != '\t'));
            prop_assert!(cut(&text, most).chars().count() <= most);
            let json = json_line(&serde_json::json!({ &text: &text }));
            prop_assert!(!json.chars().any(is_unsafe));
            let read: Json = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(read[&text].as_str(), Some(&*text));
        }
    }
}
