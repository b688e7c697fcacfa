//! Event patterns with the wildcards of a topic exchange: `*` is exactly one word, `#` any number of words.

use crate::name::{NameError, bad_word, check_length, is_word};

/// Whether the text has a wildcard word.
#[must_use]
pub fn is_wildcard(pattern: &str) -> bool {
    pattern.split('.').any(|word| word == "*" || word == "#")
}

/// Checks an event pattern: words, `*` and `#`, joined by dots, at most 200 bytes.
///
/// # Errors
/// When a segment is neither a word nor a wildcard, or the pattern is too long.
pub fn check_pattern(pattern: &str) -> Result<(), NameError> {
    check_length("pattern", pattern)?;
    match pattern.split('.').find(|word| !(is_word(word) || *word == "*" || *word == "#")) {
        None => Ok(()),
        Some(word) => Err(bad_word("pattern", pattern, word)),
    }
}

/// Whether a topic exchange would route `key` to a binding with `pattern`. Any text is accepted on both
/// sides, as a broker accepts it: an empty segment is a word of its own, and the empty key has no words.
#[must_use]
pub fn matches(pattern: &str, key: &str) -> bool {
    let pattern = words(pattern);
    let key = words(key);
    // `row[j]`: the pattern read so far matches the first j words of the key.
    let mut row = vec![false; key.len() + 1];
    row[0] = true;
    for segment in pattern {
        if segment == "#" {
            for j in 1..row.len() {
                row[j] |= row[j - 1];
            }
            continue;
        }
        for j in (1..row.len()).rev() {
            row[j] = row[j - 1] && (segment == "*" || segment == key[j - 1]);
        }
        row[0] = false;
    }
    row[key.len()]
}

/// Whether some key is matched by both patterns.
#[must_use]
pub fn patterns_overlap(a: &str, b: &str) -> bool {
    let (a, b) = (words(a), words(b));
    // `row[j]`: some text is matched by the part of `a` read so far and by the first j segments of `b`.
    let mut row = vec![false; b.len() + 1];
    row[0] = true;
    for j in 1..row.len() {
        row[j] = row[j - 1] && b[j - 1] == "#";
    }
    for segment in a {
        let mut next = vec![false; b.len() + 1];
        next[0] = row[0] && segment == "#";
        for j in 1..next.len() {
            let other = b[j - 1];
            next[j] = match (segment, other) {
                // A `#` is either empty or takes the other side's segment.
                ("#", _) | (_, "#") => row[j] || next[j - 1],
                (x, y) => row[j - 1] && (x == "*" || y == "*" || x == y),
            };
        }
        row = next;
    }
    row[b.len()]
}

fn words(text: &str) -> Vec<&str> {
    if text.is_empty() { Vec::new() } else { text.split('.').collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wildcards_match_as_a_topic_exchange_does() {
        for (pattern, key, expected) in [
            ("a.b", "a.b", true),
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("a.#", "a", true),
            ("a.#", "a.b.c", true),
            ("#", "", true),
            ("*", "", false),
            ("#.c", "a.b.c", true),
            ("#.c", "c", true),
            ("a.#.c", "a.c", true),
            ("a.#.c", "a.b.b.c", true),
            ("a.#.c", "a.b", false),
            ("*.*", "a.b", true),
            ("#.#", "a", true),
            ("#.*.#", "", false),
            ("a.*.c", "a..c", true),
        ] {
            assert_eq!(matches(pattern, key), expected, "{pattern} against {key}");
        }
    }

    #[test]
    fn patterns_that_share_a_key_overlap() {
        for (a, b, expected) in [
            ("a.*", "a.b", true),
            ("a.*", "*.b", true),
            ("a.#", "a", true),
            ("a.#", "#.b", true),
            ("a.*", "b.*", false),
            ("a.*", "a.*.c", false),
            ("#", "x.y", true),
            ("a.b.#", "a.c.#", false),
            ("a.#.c", "a.b", false),
            ("*.b.#", "a.#.c", true),
            ("#.x", "#.y", false),
        ] {
            assert_eq!(patterns_overlap(a, b), expected, "{a} with {b}");
            assert_eq!(patterns_overlap(b, a), expected, "{b} with {a}");
        }
    }

    fn segments(choices: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(choices), 1..=most).prop_map(|words| words.join("."))
    }

    /// The definition of a wildcard match, written for clarity and not for speed.
    fn naive(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern, key) {
            ([], []) => true,
            (["#", rest @ ..], _) => (0..=key.len()).any(|taken| naive(rest, &key[taken..])),
            (["*", pattern @ ..], [_, key @ ..]) => naive(pattern, key),
            ([segment, pattern @ ..], [word, key @ ..]) if segment == word => naive(pattern, key),
            _ => false,
        }
    }

    #[test]
    fn many_wildcards_take_no_endless_time() {
        let (pattern, key) = (["#", "a"].repeat(500).join("."), ["b"].repeat(1_000).join("."));
        assert!(!matches(&pattern, &key));
        assert!(patterns_overlap(&pattern, &pattern));
    }

    /// Every key of up to six words over the alphabet: enough for patterns of up to four segments.
    fn all_keys() -> Vec<String> {
        let mut keys: Vec<String> = vec![];
        let mut last = vec![String::new()];
        for _ in 0..6 {
            let mut next = vec![];
            for prefix in &last {
                for word in ["a", "b", "c"] {
                    next.push(if prefix.is_empty() { word.to_string() } else { format!("{prefix}.{word}") });
                }
            }
            keys.extend(next.iter().cloned());
            last = next;
        }
        keys
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn overlap_is_the_existence_of_a_common_key(
            a in segments(&["a", "b", "*", "#"], 3), b in segments(&["a", "b", "*", "#"], 3)
        ) {
            let common = all_keys().into_iter().find(|key| matches(&a, key) && matches(&b, key));
            // `#` alone also matches the empty key, which is not a valid key, but then it matches others too.
            prop_assert_eq!(patterns_overlap(&a, &b), common.is_some(), "{} with {}: {:?}", a, b, common);
        }

        #[test]
        fn a_key_matches_itself_and_only_itself(a in segments(&["a", "b"], 4), b in segments(&["a", "b"], 4)) {
            prop_assert!(matches(&a, &a));
            prop_assert_eq!(matches(&a, &b), a == b);
        }

        #[test]
        fn any_pattern_matches_as_a_naive_matcher_says(
            pattern in segments(&["a", "b", "*", "#", ""], 6), key in segments(&["a", "b", ""], 6)
        ) {
            prop_assert_eq!(matches(&pattern, &key), naive(&words(&pattern), &words(&key)), "{} against {}", pattern, key);
        }

        #[test]
        fn patterns_that_match_one_key_overlap_in_either_order(
            a in segments(&["a", "b", "*", "#", ""], 6), b in segments(&["a", "b", "*", "#", ""], 6),
            key in segments(&["a", "b", ""], 5)
        ) {
            prop_assert_eq!(patterns_overlap(&a, &b), patterns_overlap(&b, &a));
            prop_assert!(!(matches(&a, &key) && matches(&b, &key)) || patterns_overlap(&a, &b), "{} with {}", a, b);
            prop_assert_eq!(patterns_overlap(&a, &key), matches(&a, &key), "a key overlaps with what matches it");
            prop_assert!(patterns_overlap(&a, &a) && patterns_overlap(&a, "#"));
        }

        #[test]
        fn no_text_makes_the_checks_panic(text in ".{0,300}", other in ".{0,40}") {
            let _ = (crate::check_key(&text), check_pattern(&text), matches(&text, &other));
            let _ = patterns_overlap(&text, &other);
        }
    }
}
