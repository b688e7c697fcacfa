//! The log of a program on the standard error: what of it is shown, and what never is.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::operate::cli::Common;
use crate::operate::printable;

const VARIABLE: &str = "POSTRIDER_LOG";

/// The client of the broker, whose trace holds user, password, payloads and tokens, and what it is made of.
const CLIENT: [&str; 4] = ["lapin", "amq_protocol", "tcp_stream", "async_rs"];

/// Starts the log on the standard error. What the broker's client logs by itself is in our own errors already.
///
/// # Errors
/// When `POSTRIDER_LOG` makes no sense.
pub(super) fn start_log(common: &Common, quiet: &str) -> Result<(), String> {
    let level = match common.verbose {
        0 => quiet,
        1 => "info,postrider=debug,lapin=off",
        2 => "info,postrider=trace,lapin=off",
        _ => "trace,lapin=off",
    };
    let (filter, problem) = match std::env::var_os(VARIABLE) {
        // What is empty is named with the other settings.
        Some(text) if !text.to_string_lossy().trim().is_empty() => match filter(&text.to_string_lossy()) {
            Ok(filter) => (filter, None),
            Err(problem) => (EnvFilter::new(level), Some(problem)),
        },
        _ => (EnvFilter::new(level), None),
    };
    let stderr = std::io::stderr();
    let colour = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(colour)
        // Texts of strangers may be in any field.
        .fmt_fields(printable::SafeFields)
        // It would panic when nobody reads the standard error.
        .log_internal_errors(false);
    // A program that has a log already keeps it.
    let _ = tracing_subscriber::registry().with(without_secrets()).with(filter).with(lines).try_init();
    problem.map_or(Ok(()), Err)
}

/// Reads a filter. A word that is no level would be taken for the name of a part, and nothing be logged at all.
fn filter(text: &str) -> Result<EnvFilter, String> {
    let says = "write a level (off, error, warn, info, debug, trace), or part=level; several separated by commas, as in info,postrider=debug";
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let is_part =
        |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b));
    let is_right = |word: &str| match word.split_once('=') {
        Some((part, level)) => is_part(part) && is_level(level),
        None => word.is_empty() || is_level(word),
    };
    // What is said about single spans has a grammar of its own.
    let mut words = text.split(',').map(str::trim).filter(|_| !text.contains('['));
    if let Some(word) = words.find(|word| !is_right(word)) {
        return Err(format!("{VARIABLE}: {word:?} is no level of a log; {says}"));
    }
    EnvFilter::builder().parse(text).map_err(|error| format!("{VARIABLE}: {text:?} is no filter ({error}); {says}"))
}

/// A layer that keeps what the broker's client says out of a log, whatever its other filters say: it holds user and password,
/// payloads and tokens, also in warnings. [`main`](crate::main) has it; a program with a log of its own adds it.
///
/// ```
/// use tracing_subscriber::prelude::*;
///
/// tracing_subscriber::registry().with(postrider::operate::without_secrets()).with(tracing_subscriber::fmt::layer()).init();
/// ```
pub fn without_secrets<S: Subscriber>() -> impl Layer<S> {
    FilterFn::new(is_shown as fn(&Metadata<'_>) -> bool).with_max_level_hint(LevelFilter::TRACE)
}

/// Nothing of the client: its warnings hold whole messages that came back, and all that matters is in our own errors.
fn is_shown(metadata: &Metadata<'_>) -> bool {
    !CLIENT.iter().any(|name| metadata.target().starts_with(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_would_silently_log_nothing_is_refused() {
        for wrong in ["inof", "info,postrider=debgu", "info;postrider=debug", "=", "info,warm", "a=b=c"] {
            let text = filter(wrong).map(|_| ()).unwrap_err();
            assert!(text.starts_with("POSTRIDER_LOG: ") && text.contains("info,postrider=debug"), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
        for right in
            ["info", "off", "INFO,postrider=debug", "postrider::host=trace", "warn,[handle{key=\"a\"}]=debug", "3"]
        {
            assert!(filter(right).is_ok(), "{right}");
        }
    }
}
