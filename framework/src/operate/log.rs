//! The log of a program on the standard error, and a filter that keeps secrets out of it.

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

/// The broker's client and its libraries. Their trace contains user, password, payloads and tokens.
const CLIENT: [&str; 4] = ["lapin", "amq_protocol", "tcp_stream", "async_rs"];

/// Starts the log on the standard error. The log of the broker's client is left out; our own errors contain what
/// matters.
///
/// # Errors
/// When `POSTRIDER_LOG` cannot be parsed.
pub(super) fn start_log(common: &Common, quiet: &str) -> Result<(), String> {
    let level = match common.verbose {
        0 => quiet,
        1 => "info,postrider=debug,lapin=off",
        2 => "info,postrider=trace,lapin=off",
        _ => "trace,lapin=off",
    };
    let (filter, problem) = match std::env::var_os(VARIABLE) {
        // An empty value is reported with the other settings.
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
        // Any field may contain text from other parties.
        .fmt_fields(printable::SafeFields)
        // It would panic when the reader of the standard error is gone.
        .log_internal_errors(false);
    // A log that the program has already set up stays.
    let _ = tracing_subscriber::registry().with(without_secrets()).with(filter).with(lines).try_init();
    problem.map_or(Ok(()), Err)
}

/// Parses a filter. A misspelled level would count as the name of a part, and nothing would be logged.
fn filter(text: &str) -> Result<EnvFilter, String> {
    let says = "write a level (off, error, warn, info, debug, trace), or part=level; several separated by commas, as in info,postrider=debug";
    let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
    let is_part =
        |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b));
    let is_right = |word: &str| match word.split_once('=') {
        Some((part, level)) => is_part(part) && is_level(level),
        None => word.is_empty() || is_level(word),
    };
    // Filters on spans have a grammar of their own.
    let mut words = text.split(',').map(str::trim).filter(|_| !text.contains('['));
    if let Some(word) = words.find(|word| !is_right(word)) {
        return Err(format!("{VARIABLE}: {word:?} is no level of a log; {says}"));
    }
    EnvFilter::builder().parse(text).map_err(|error| format!("{VARIABLE}: {text:?} is no filter ({error}); {says}"))
}

/// A layer that removes the log lines of the broker's client, whatever the other filters allow: even its warnings
/// contain user and password, payloads and tokens. [`main`](crate::main) has it; a program with a log of its own adds
/// it.
///
/// ```
/// use tracing_subscriber::prelude::*;
///
/// tracing_subscriber::registry().with(postrider::operate::without_secrets()).with(tracing_subscriber::fmt::layer()).init();
/// ```
pub fn without_secrets<S: Subscriber>() -> impl Layer<S> {
    FilterFn::new(is_shown as fn(&Metadata<'_>) -> bool).with_max_level_hint(LevelFilter::TRACE)
}

/// Excludes the client: its warnings contain whole returned messages, and our own errors contain what matters.
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
