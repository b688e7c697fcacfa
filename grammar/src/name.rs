//! Words, service names, queue names and routing keys.

use std::fmt;

/// The most bytes a routing key may have. AMQP allows 255; the rest is room for `<service>:` in front.
pub const MAX_KEY_BYTES: usize = 200;

/// The most bytes a service or queue name may have. AMQP allows 255 for the whole queue name.
const MAX_WORD_BYTES: usize = 60;

/// Words that cannot name a queue, because the names of Postrider's own queues end in them.
pub const RESERVED_QUEUES: [&str; 9] =
    ["query", "dead", "due", "instance", "delay", "domain", "topology", "history", "migrating"];

/// Why a name was refused. The text names the value and says what to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameError(String);

impl NameError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NameError {}

pub(crate) fn is_word(word: &str) -> bool {
    let mut bytes = word.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Words that cannot name a service, because Postrider's own queues have these names.
pub const RESERVED_SERVICES: [&str; 5] = ["tap", "due", "delay", "domain", "topology"];

/// Checks the name of a service: one word `[a-z][a-z0-9-]*` of at most 60 bytes that is not reserved.
///
/// # Errors
/// When the name is not such a word, or one of [`RESERVED_SERVICES`]; the text says what to write.
pub fn check_service(name: &str) -> Result<(), NameError> {
    one_word("service name", name)?;
    if RESERVED_SERVICES.contains(&name) {
        return Err(NameError::new(format!(
            "service name {name:?} is reserved for Postrider's own queues; choose another word"
        )));
    }
    Ok(())
}

/// Checks any other single word: a domain, a namespace.
///
/// # Errors
/// When the text is not one word `[a-z][a-z0-9-]*` of at most 60 bytes; the error calls it `what`.
pub fn check_word(what: &str, word: &str) -> Result<(), NameError> {
    one_word(what, word)
}

/// Checks the name of an actor's additional queue: a word that is not reserved.
///
/// # Errors
/// When the name is not a word, too long, or one of [`RESERVED_QUEUES`].
pub fn check_queue(name: &str) -> Result<(), NameError> {
    one_word("queue name", name)?;
    if RESERVED_QUEUES.contains(&name) {
        return Err(NameError::new(format!(
            "queue name {name:?} is reserved for Postrider's own queues; choose another word"
        )));
    }
    Ok(())
}

fn one_word(what: &str, name: &str) -> Result<(), NameError> {
    if name.len() > MAX_WORD_BYTES {
        return Err(NameError::new(format!(
            "{what} {name:?} has {} bytes; at most {MAX_WORD_BYTES} are allowed",
            name.len()
        )));
    }
    if is_word(name) {
        return Ok(());
    }
    Err(NameError::new(format!(
        "{what} {name:?} is not one word of a-z, 0-9 and '-' that starts with a letter, such as \"invoice\""
    )))
}

/// Checks a routing key: words joined by dots, at most [`MAX_KEY_BYTES`] bytes.
///
/// # Errors
/// When a word is empty or has other characters, or the key is too long; the text says what to write.
pub fn check_key(key: &str) -> Result<(), NameError> {
    check_length("key", key)?;
    match key.split('.').find(|word| !is_word(word)) {
        None => Ok(()),
        Some(word @ ("*" | "#")) => Err(NameError::new(format!(
            "key {key:?} has the wildcard {word:?}; only event patterns may have wildcards"
        ))),
        Some(word) => Err(bad_word("key", key, word)),
    }
}

pub(crate) fn check_length(what: &str, text: &str) -> Result<(), NameError> {
    if text.len() > MAX_KEY_BYTES {
        return Err(NameError::new(format!(
            "{what} of {} bytes is too long; at most {MAX_KEY_BYTES} are allowed: {:?}…",
            text.len(),
            text.chars().take(40).collect::<String>()
        )));
    }
    Ok(())
}

pub(crate) fn bad_word(what: &str, text: &str, word: &str) -> NameError {
    if word.is_empty() {
        return NameError::new(format!(
            "{what} {text:?} has an empty word; write words joined by single dots, such as \"invoice.create\""
        ));
    }
    NameError::new(format!(
        "{what} {text:?}: {word:?} is not a word of a-z, 0-9 and '-' that starts with a letter; write it such as \"invoice.create\""
    ))
}

/// The domain of a key: its first segment, owned by one service.
#[must_use]
pub fn domain(key: &str) -> &str {
    key.split('.').next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rule, stated independently.
    fn follows_the_rule(word: &str) -> bool {
        word.chars().enumerate().all(|(place, c)| match c {
            'a'..='z' => true,
            '0'..='9' | '-' => place > 0,
            _ => false,
        }) && !word.is_empty()
    }

    fn near_names() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z][a-z0-9-]{0,20}(\\.[a-z][a-z0-9-]{0,20}){0,4}",
            "[a-c0-1.*#:_A é-]{0,12}",
            "[a-z.]{190,210}",
            "\\PC{0,80}",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn any_text_is_a_key_exactly_if_all_its_words_follow_the_rule(text in near_names()) {
            let expected = text.len() <= MAX_KEY_BYTES && text.split('.').all(follows_the_rule);
            let checked = check_key(&text);
            prop_assert_eq!(checked.is_ok(), expected, "{:?}", text);
            if let Err(error) = checked {
                prop_assert!(!error.to_string().is_empty());
            } else {
                prop_assert!(crate::check_pattern(&text).is_ok() && follows_the_rule(domain(&text)));
                prop_assert!(!crate::is_wildcard(&text) && crate::matches(&text, &text));
            }
        }

        #[test]
        fn any_text_is_a_service_or_queue_exactly_if_it_is_one_free_word(
            text in prop_oneof![
                near_names(),
                "[a-z]{55,65}",
                prop::sample::select(&RESERVED_QUEUES[..]).prop_map(str::to_owned),
                prop::sample::select(&RESERVED_SERVICES[..]).prop_map(str::to_owned),
            ]
        ) {
            let word = text.len() <= MAX_WORD_BYTES && follows_the_rule(&text);
            prop_assert_eq!(check_word("word", &text).is_ok(), word);
            prop_assert_eq!(check_service(&text).is_ok(), word && !RESERVED_SERVICES.contains(&text.as_str()));
            prop_assert_eq!(check_queue(&text).is_ok(), word && !RESERVED_QUEUES.contains(&text.as_str()));
        }
    }

    #[test]
    fn keys_of_200_bytes_pass_and_of_201_are_refused() {
        assert!(check_key(&"a".repeat(200)).is_ok());
        let error = check_key(&"a".repeat(201)).unwrap_err().to_string();
        assert!(error.contains("201 bytes"), "{error}");
    }

    #[test]
    fn malformed_keys_are_refused_with_the_value() {
        for key in ["", ".", "a.", ".a", "a..b", "Invoice.create", "1a", "a b", "a_b", "a.*", "#", "é"] {
            let error = check_key(key).expect_err(key).to_string();
            assert!(error.contains(&format!("{key:?}")), "{error}");
        }
    }

    #[test]
    fn reserved_words_do_not_name_a_queue() {
        assert!(check_queue("dead").is_err());
        assert!(check_queue("audit").is_ok());
        assert!(check_service("dead.letters").is_err());
    }

    #[test]
    fn the_domain_is_the_first_word() {
        assert_eq!(domain("invoice.create.now"), "invoice");
        assert_eq!(domain("invoice"), "invoice");
    }
}
