//! Properties of every command line about dead letters.

use clap::Parser;
use proptest::prelude::*;

use super::*;
use crate::broker::any;
use crate::operate::cli::property_tests::{arguments, line};

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: DeadCommand,
}

const WORDS: [&str; 19] = [
    "list",
    "show",
    "replay",
    "edit",
    "delete",
    "export",
    "--count",
    "--payload",
    "--all",
    "--rate",
    "--canary",
    "--text",
    "--service",
    "--queue",
    "--key",
    "--error",
    "--reason",
    "--newer-than",
    "--older-than",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_command_line_about_dead_letters_is_a_filter_or_answered(
        words in arguments(&WORDS), delivery in any::delivery(any::receipt)
    ) {
        let letter = DeadLetter::of("postrider.invoice.dead", &delivery);
        match Cli::try_parse_from(line(&words)) {
            Ok(Cli { command: DeadCommand::List { which, .. } | DeadCommand::Export { which, .. } }) => {
                if let Ok(filter) = which.filter() {
                    let _ = filter.takes(&letter);
                }
            }
            Ok(Cli { command: DeadCommand::Replay { which, all, .. } | DeadCommand::Delete { which, all } }) => {
                let nothing_said = which.ids.is_empty() && which.service.is_none() && which.key.is_none();
                if let Ok(filter) = which.meant(all) {
                    // A command without a filter must not select everything.
                    let says = filter.queue.is_some() || filter.error.is_some() || filter.reason.is_some()
                        || filter.newer_than.is_some() || filter.older_than.is_some() || !nothing_said;
                    prop_assert!(says != all);
                }
            }
            Ok(Cli { command: DeadCommand::Edit { json, text, file: None, .. } }) => {
                if let Err(problem) = edited(&letter, json, text, None) {
                    prop_assert!(!problem.is_empty());
                }
            }
            Ok(_) => {}
            Err(answer) => prop_assert!(!answer.to_string().is_empty()),
        }
    }

    #[test]
    fn any_edited_payload_is_what_the_media_type_says(json in "[\\[\\]{}\":,0-9a-z ]{0,12}|[0-9]{1,5}|\"[a-z]{0,3}\"", delivery in any::delivery(any::receipt)) {
        let letter = DeadLetter::of("postrider.invoice.dead", &delivery);
        if let Ok(payload) = edited(&letter, Some(json.clone()), None, None) {
            let said: serde_json::Value = serde_json::from_str(&json).unwrap();
            let mut edited = letter;
            (edited.envelope.payload, edited.envelope.content_encoding) = (payload, None);
            prop_assert_eq!(edited.payload_as_json(), said);
        }
    }

    #[test]
    fn any_age_is_short(seconds in any::<u64>()) {
        let shown = print::age(Duration::from_secs(seconds));
        prop_assert!(shown.ends_with(['s', 'm', 'h', 'd']) && (seconds >= 365_000 * 86_400 || shown.len() <= 7));
    }
}
