//! Properties that hold for every configuration file and environment.

use proptest::prelude::*;

use super::*;

/// Names of settings, and names that are nearly right.
fn name() -> impl Strategy<Value = String> {
    let known = vec![
        "broker",
        "namespace",
        "prefetch",
        "concurrency",
        "timeout",
        "consumer_timeout",
        "retry",
        "retry_pause",
        "breaker",
        "stall_after",
        "health",
        "skew_pause",
        "arbiters",
        "max_nesting",
        "max_payload_bytes",
        "run_messages",
        "run_first_failure",
        "actor",
        "service",
        "port",
        "service_port_x",
        "config",
        "log",
    ];
    prop_oneof![8 => prop::sample::select(known).prop_map(str::to_owned), 1 => "[a-z_]{0,12}", 1 => ".{0,6}"]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "\\PC{0,20}",
        "[0-9]{1,21}(ms|s|m|h|d|)",
        prop::sample::select(vec![
            "3 then 1s, 10s",
            "50% of 20 in 30s, pause 1m",
            "0.0.0.0:8080",
            "[::]:0",
            "amqp://u:p@h",
            "true",
            "postrider",
            "0",
            "-1",
            "",
        ])
        .prop_map(str::to_owned),
    ]
}

fn variable() -> impl Strategy<Value = (String, String)> {
    let path = prop::collection::vec(name(), 1..5).prop_map(|words| words.join("__"));
    let name = prop_oneof![
        6 => path.prop_map(|path| format!("POSTRIDER_{}", path.to_uppercase())),
        1 => Just("POSTRIDER_".to_owned()),
        1 => ".{0,12}",
    ];
    (name.prop_filter("a file of this machine", |name| name != "POSTRIDER_CONFIG"), text())
}

/// A file that is nearly a valid configuration.
fn file() -> impl Strategy<Value = String> {
    let value = prop_oneof![
        text().prop_map(|text| format!("{text:?}")),
        text(),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| n.to_string()),
        Just("[1, 'a', {}]".to_owned()),
        Just("{ prefetch = 1, x = {} }".to_owned()),
        Just("2020-01-01".to_owned()),
    ];
    let line = prop_oneof![
        6 => (name(), value).prop_map(|(name, value)| format!("{name} = {value}")),
        2 => (name(), "[a-z.\"]{0,8}").prop_map(|(name, rest)| format!("[{name}.{rest}]")),
        1 => "\\PC{0,20}",
    ];
    prop::collection::vec(line, 0..6).prop_map(|lines| lines.join("\n"))
}

/// What every accepted configuration guarantees.
fn makes_sense(config: &Config) -> bool {
    let times = [config.timeout, config.consumer_timeout, config.stall_after, config.skew.pause, config.start_timeout];
    config.prefetch > 0
        && config.concurrency > 0
        && config.arbiters > 0
        && (1..=DEEPEST).contains(&config.limits.max_nesting)
        && times.iter().all(|time| !time.is_zero())
        && config.broker.as_ref().is_none_or(|broker| !broker.reveal().is_empty())
        && config.retry.most_attempts() <= 200
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn any_environment_is_read_or_every_problem_is_named(variables in prop::collection::vec(variable(), 0..6)) {
        let mut config = Config::default();
        match in_table(&mut config, Table::new(), &variables, Origins::default(), Vec::new()) {
            Ok(()) => prop_assert!(makes_sense(&config)),
            Err(problems) => prop_assert!(!problems.is_empty() && problems.iter().all(|problem| problem.contains(": "))),
        }
    }

    #[test]
    fn any_file_is_read_or_every_problem_is_named(text in file(), variables in prop::collection::vec(variable(), 0..2)) {
        let (mut config, mut problems) = (Config::default(), Vec::new());
        let table = file::parsed(Path::new("postrider.toml"), &text, &mut Origins::default(), &mut problems);
        let unreadable = problems.len();
        match in_table(&mut config, table, &variables, Origins::default(), problems) {
            Ok(()) => prop_assert!(makes_sense(&config) && unreadable == 0),
            Err(problems) => prop_assert!(!problems.is_empty() && problems.iter().all(|problem| problem.contains(": "))),
        }
    }

    #[test]
    fn no_password_is_in_a_problem_or_in_what_is_shown(
        before in "(broker|broker_ca|x) ?=? ?['\"]?(amqp://u:)?", after in "(@h)?['\"]?[\\]} \n]{0,2}", lines in 0..4_usize, variable in any::<bool>()
    ) {
        let (mut config, mut problems) = (Config::default(), Vec::new());
        let text = format!("{}{before}hunter2{after}", "timeout = '1s'\n".repeat(lines.min(1)) + &"\n".repeat(lines));
        let table = if variable { Table::new() } else { file::parsed(Path::new("postrider.toml"), &text, &mut Origins::default(), &mut problems) };
        let name = if before.contains("ca") { "POSTRIDER_BROKER__X__Y" } else { "POSTRIDER_BROKER" };
        let variables = [(name.to_owned(), "amqp://u:hunter2@h".to_owned())];
        let variables = if variable { &variables[..] } else { &[] };
        let problems = in_table(&mut config, table, variables, Origins::default(), problems).err().unwrap_or_default().join("\n");
        prop_assert!(!problems.contains("hunter2"), "{}", problems);
        let shown = format!("{config:?}");
        // A file's name is not secret.
        prop_assert!(before.contains("ca") || !shown.contains("hunter2"), "{}", shown);
    }

    #[test]
    fn a_mistake_in_a_file_is_looked_for_in_its_line(good in 0..5_usize, indent in 0..3_usize, bad in "\\]|= 1|a = |é") {
        let mut problems = Vec::new();
        let lines: String = (0..good).map(|n| format!("x{n} = 1\n")).collect();
        file::parsed(Path::new("postrider.toml"), &format!("{lines}{}{bad}\ny = 1\n", " ".repeat(indent)), &mut Origins::default(), &mut problems);
        prop_assert!(problems[0].contains(&format!("line {}:", good + 1)), "{:?}", problems);
    }
}

#[test]
fn a_file_that_is_nested_without_end_is_refused() {
    for text in [format!("a = {}", "[".repeat(100_000)), format!("a = {}", "{x=".repeat(100_000)), "a.".repeat(50_000)]
    {
        let mut problems = Vec::new();
        file::parsed(Path::new("postrider.toml"), &text, &mut Origins::default(), &mut problems);
        assert!(problems.len() == 1 && problems[0].len() < 500, "{:?}", problems.len());
    }
}
