//! Durations as texts: `500ms`, `30s`, `2m`.

use std::time::Duration;

/// Reads a duration above zero with its unit: `500ms`, `30s`, `2m`, `1h`, `7d`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit = match unit.trim() {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit).filter(|ms| *ms > 0).map(Duration::from_millis)
}

/// Writes a duration as [`parse_duration`] reads it, in its largest whole unit.
#[must_use]
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    match units.into_iter().find(|(_, size)| millis > 0 && millis.is_multiple_of(*size)) {
        Some((unit, size)) => format!("{}{unit}", millis / size),
        None => format!("{millis}ms"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn any_duration_of_whole_milliseconds_is_read_as_it_is_written(
            millis in prop_oneof![1..10_000_u64, 1..=u64::MAX, (1..10_000_u64).prop_map(|n| n * 60_000)]
        ) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }

        #[test]
        fn any_text_is_a_duration_above_zero_or_none(
            text in prop_oneof![
                "\\PC{0,40}",
                "[ \t]{0,2}[0-9]{0,25}[ \t]{0,2}(ms|s|m|min|h|d|µs|y|)[ \t]{0,2}",
                ".{0,10}[0-9]{1,4}.{0,10}",
            ]
        ) {
            if let Some(duration) = parse_duration(&text) {
                prop_assert!(duration > Duration::ZERO, "{:?}", text);
                prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
            }
        }
    }

    #[test]
    fn durations_have_a_unit_and_are_written_as_they_are_read() {
        for text in ["500ms", "30s", "2m", "1h", "7d", "90s"] {
            assert_eq!(show_duration(parse_duration(text).unwrap()), text);
        }
        for text in ["", "30", "0s", "-1s", "1.5s", "1y", "99999999999999999999h", "18446744073709551615d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
