//! Tests of reading the configuration and of the messages about mistakes in it.

use super::*;

fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_environment_sets_single_actors_and_services() {
    let mut config = Config::default();
    let variables = environment(&[
        ("POSTRIDER_BROKER", "amqp://u:hunter2@h"),
        ("POSTRIDER_ACTOR__ORDER_DESK__PREFETCH", "8"),
        ("POSTRIDER_ACTOR__INVOICE__AUDIT__TIMEOUT", "2m"),
        ("POSTRIDER_SERVICE__CLIENT__ORDERS", "5"),
        ("OTHER", "x"),
    ]);
    read(&mut config, None, &variables).unwrap();
    assert_eq!(config.actors["order-desk"].prefetch, Some(8));
    assert_eq!(config.actors["invoice.audit"].timeout, Some(Duration::from_secs(120)));
    assert_eq!(config.services["client"]["orders"].as_str(), Some("5"));
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn all_problems_are_reported_at_once() {
    let mut config = Config::default();
    let variables = environment(&[
        ("POSTRIDER_PREFETCH", "none"),
        ("POSTRIDER_TIMEOUT", "30"),
        ("POSTRIDER_NAMESPACE", "A B"),
        ("POSTRIDER_COLOUR", "red"),
        ("POSTRIDER_ACTOR__X__GUARANTEE", "at_most_once"),
    ]);
    let problems = read(&mut config, None, &variables).unwrap_err();
    assert_eq!(problems.len(), 5, "{problems:#?}");
}

fn problems_of(pairs: &[(&str, &str)]) -> String {
    read(&mut Config::default(), None, &environment(pairs)).err().unwrap_or_default().join("\n")
}

#[test]
fn a_misspelt_setting_is_told_by_its_variable_and_what_was_meant() {
    let text = problems_of(&[("POSTRIDER_BROKR", "amqp://u:hunter2@h")]);
    assert!(text.contains("POSTRIDER_BROKR (brokr): no such setting; did you mean POSTRIDER_BROKER?"), "{text}");
    let text = problems_of(&[("POSTRIDER_ACTOR__LOANS__PREFECTH", "8")]);
    assert!(text.contains("did you mean POSTRIDER_ACTOR__LOANS__PREFETCH?"), "{text}");
    let text = problems_of(&[("POSTRIDER_ACTOR_LOANS_PREFETCH", "8")]);
    assert!(text.contains("two underscores"), "{text}");
    let text = problems_of(&[("POSTRIDER_ACTORS__LOANS__PREFETCH", "8"), ("POSTRIDER_BROKER__X__Y", "8")]);
    assert!(text.contains("POSTRIDER_ACTORS__LOANS__PREFETCH") && text.contains("POSTRIDER_BROKER__X__Y"), "{text}");
}

#[test]
fn a_problem_says_whether_file_or_environment_set_the_value() {
    let (mut problems, mut origins) = (Vec::new(), Origins::default());
    let text = "namespace = \"a\"\nprefetch = 0\nbroker = \"\"\n[actor.loans]\ntimeout = 3\nprefetch = 99999999999999999999999999\n";
    let table = file::parsed(Path::new("some.toml"), text, &mut origins, &mut problems);
    let variables = environment(&[("POSTRIDER_CONCURRENCY", "0")]);
    let problems = in_table(&mut Config::default(), table, &variables, origins, problems).unwrap_err();
    for expected in [
        "some.toml, line 2 (prefetch): 0 is not a whole number from 1 to 65535",
        "some.toml, line 3 (broker): is set and empty",
        "some.toml, line 5 (actor.loans.timeout): 3 is not a duration",
        "some.toml, line 6 (actor.loans.prefetch): \"99999999999999999999999999\" is not a whole number",
        "POSTRIDER_CONCURRENCY (concurrency): \"0\" is not a whole number from 1 to 10000",
    ] {
        assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{expected}: {problems:#?}");
    }
    assert_eq!(problems.len(), 5, "{problems:#?}");
}

#[test]
fn the_list_of_settings_for_mistakes_is_the_list_of_settings() {
    for name in SETTINGS {
        let problems = problems_of(&[(&format!("POSTRIDER_{}", name.to_uppercase()), "\u{1}")]);
        assert!(!problems.contains("no such setting"), "{problems}");
    }
}

#[test]
fn every_setting_of_the_documentation_is_known_to_the_list() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let table = std::fs::read_to_string(path).unwrap();
    let documented: Vec<&str> = table
        .lines()
        .filter(|line| line.starts_with("| `") && line.contains("| `POSTRIDER_"))
        .filter_map(|line| line.split('`').nth(1))
        .collect();
    let unknown: Vec<&&str> =
        documented.iter().filter(|name| !SETTINGS.contains(&name.split(['.', '<']).next().unwrap_or(name))).collect();
    assert!(documented.len() > 20 && unknown.is_empty(), "{unknown:?} of {}", documented.len());
}

#[test]
fn file_and_environment_are_added_to_what_the_code_says() {
    let mut config = Config::default();
    config.services.insert("loans".into(), "days = 3\nfine = 5".parse().unwrap());
    read(&mut config, None, &environment(&[("POSTRIDER_SERVICE__LOANS__DAYS", "7")])).unwrap();
    assert_eq!(config.services["loans"]["days"].as_str(), Some("7"));
    assert_eq!(config.services["loans"]["fine"].as_integer(), Some(5));
}
