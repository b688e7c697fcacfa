//! Properties of every command line.

use proptest::prelude::*;

use super::*;

const ANYWHERE: [&str; 12] =
    ["--broker", "--config", "-v", "-vvv", "--json", "--help", "-h", "--version", "--", "-", "--x", ""];

/// Words of command lines, valid and invalid. All programs share it.
pub(in crate::operate) fn arguments(words: &'static [&'static str]) -> impl Strategy<Value = Vec<String>> {
    let value = prop_oneof![
        prop::sample::select(vec![
            "5s",
            "0s",
            "99999999999999999999d",
            "7",
            "-1",
            "1e999",
            "nan",
            "{}",
            "[1",
            "a=b",
            "=",
            "a.b",
            "#"
        ])
        .prop_map(str::to_owned),
        "\\PC{0,10}",
        "[0-9]{1,22}(ms|s|d|)",
    ];
    let word = prop_oneof![
        6 => prop::sample::select(words).prop_map(str::to_owned),
        2 => prop::sample::select(&ANYWHERE[..]).prop_map(str::to_owned),
        4 => value.clone(),
        2 => (prop::sample::select(words), value).prop_map(|(word, value)| format!("{word}={value}")),
    ];
    prop::collection::vec(word, 0..10)
}

/// The same words after the program's name.
pub(in crate::operate) fn line(words: &[String]) -> impl Iterator<Item = &str> {
    std::iter::once("program").chain(words.iter().map(String::as_str))
}

const WORDS: [&str; 14] = [
    "run",
    "list",
    "topology",
    "show",
    "apply",
    "diff",
    "gc",
    "--apply",
    "--messages",
    "--time",
    "--memory",
    "--idle",
    "--first-failure",
    "invoice",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_command_line_of_a_service_is_read_or_answered(words in arguments(&WORDS)) {
        match Cli::try_parse_from(line(&words)) {
            Ok(cli) => {
                let mut limits = crate::app::config::RunLimits::default();
                cli.limits.apply(&mut limits);
                prop_assert!(limits.time.is_none_or(|time| !time.is_zero()));
            }
            Err(answer) => prop_assert!(!answer.to_string().is_empty()),
        }
    }
}

#[test]
fn the_command_line_of_a_service_is_put_together_right() {
    use clap::CommandFactory as _;
    Cli::command().debug_assert();
}
