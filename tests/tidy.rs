//! The house rules, as far as a program can check them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[path = "tidy/circles.rs"]
mod circles;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The parts of the framework in reading order; each imports only from those before it.
const READING_ORDER: [&str; 12] = [
    "supervise",
    "message",
    "codec",
    "broker",
    "store",
    "bus",
    "handler",
    "host",
    "inbound",
    "history",
    "app",
    "operate",
];
/// What adapters may import.
const FOR_ADAPTERS: [&str; 6] = ["supervise", "message", "codec", "broker", "store", "history"];
const MAX_FILE_LINES: usize = 400;
const MAX_FUNCTION_LINES: usize = 70;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace").to_path_buf()
}

/// All files below a folder with one of the endings, without what is built.
fn files(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![root().join(folder)]);
    while let Some(path) = open.pop() {
        for entry in std::fs::read_dir(&path).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && name != ".git" {
                open.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn none(problems: &[String]) {
    assert!(problems.is_empty(), "\n{}", problems.join("\n"));
}

/// The part of the framework a file belongs to.
fn part(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("framework/src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_string_lossy().into_owned();
    (!first.ends_with(".rs")).then_some(first)
}

/// The parts that a line of code names by `crate::part`.
fn imports(line: &str) -> Vec<String> {
    let words = line.split("crate::").skip(1);
    words.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
}

#[test]
fn each_part_imports_only_from_those_before_it() {
    let mut problems = Vec::new();
    for path in files("framework/src", &[".rs"]) {
        let Some(part) = part(&path) else { continue };
        let allowed = |other: &str| match part.as_str() {
            "adapter" => FOR_ADAPTERS.contains(&other) || other == "adapter",
            "testing" => READING_ORDER.contains(&other) || other == "adapter" || other == "testing",
            "bin" => true,
            part => {
                let rank = |name: &str| READING_ORDER.iter().position(|known| *known == name);
                let earlier = rank(other).zip(rank(part)).is_some_and(|(other, part)| other <= part);
                earlier || ["app", "operate"].contains(&part) && other == "adapter"
            }
        };
        for (number, line) in text(&path).lines().enumerate() {
            let code = line.trim_start();
            if code.starts_with("//") {
                continue;
            }
            for other in imports(code).into_iter().filter(|other| !allowed(other)) {
                problems.push(format!("{}:{}: {part} must not import {other}", shown(&path), number + 1));
            }
        }
    }
    none(&problems);
}

#[test]
fn only_its_adapter_names_the_client_library() {
    let elsewhere =
        files("framework/src", &[".rs"]).into_iter().filter(|path| !shown(path).contains("adapter/rabbitmq/"));
    let names = |path: &PathBuf| {
        text(path).lines().any(|line| !line.trim_start().starts_with("//") && line.contains("lapin::"))
    };
    let problems: Vec<String> = elsewhere.filter(names).map(|path| format!("{}: names lapin", shown(&path))).collect();
    none(&problems);
}

#[test]
fn the_words_of_amqp_are_spoken_in_the_adapters_alone() {
    let rooms = ["message", "codec", "broker", "bus", "handler", "host", "inbound", "app", "operate"];
    let words = ["Exchange", "ExchangeKind", "Binding", "RoutingKey", "routing_key"];
    // What people read of RabbitMQ says its words, in texts.
    let in_texts_too = ["exchange", "\"x-dead-letter", "\"x-queue", "\"x-max", "\"x-overflow", "\"x-single"];
    let mut problems = Vec::new();
    for room in rooms {
        for path in files(&format!("framework/src/{room}"), &[".rs"]) {
            let spoken = !["inbound", "app", "operate"].contains(&room);
            for (number, line) in text(&path).lines().enumerate() {
                let code = line.trim_start();
                let is_word =
                    |word: &&str| code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|it| it == *word);
                let said = words.iter().any(is_word) || spoken && in_texts_too.iter().any(|it| code.contains(it));
                if said && !code.starts_with("//") && !shown(&path).ends_with("broker/any.rs") {
                    problems.push(format!("{}:{}: speaks of RabbitMQ's routing", shown(&path), number + 1));
                }
            }
        }
    }
    none(&problems);
}

/// Test values and test brokers, which are no tests.
const NO_TESTS: [&str; 3] = ["any", "double", "model"];

#[test]
fn each_file_begins_by_saying_what_it_is_for() {
    let first = |text: &str| text.lines().find(|line| !line.is_empty() && !line.starts_with("#!")).map(str::to_owned);
    let mut problems = Vec::new();
    for folder in ["framework", "macros", "grammar", "services", "examples", "tests", "benches", "xtask"] {
        let compiled = files(folder, &[".rs"]).into_iter().filter(|path| !shown(path).contains("/ui/"));
        for path in compiled {
            if !first(&text(&path)).is_some_and(|line| line.starts_with("//!")) {
                problems.push(format!("{}: begin it with `//!` and one sentence: what is here", shown(&path)));
            }
        }
    }
    none(&problems);
}

#[test]
fn a_file_of_tests_says_so_by_its_name() {
    let mut problems = Vec::new();
    for path in files("framework/src", &[".rs"]) {
        let text = text(&path);
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        for pair in lines.windows(2).filter(|pair| pair[0] == "#[cfg(test)]") {
            let Some(name) = pair[1].strip_suffix(';').and_then(|code| code.rsplit_once("mod ")) else { continue };
            let is_told = name.1 == "tests" || name.1.ends_with("_tests") || NO_TESTS.contains(&name.1);
            if !is_told {
                problems.push(format!("{}: the tests in {:?} are called tests, or …_tests", shown(&path), name.1));
            }
        }
    }
    none(&problems);
}

#[test]
fn files_and_functions_are_short() {
    let mut problems = Vec::new();
    for folder in ["framework", "macros", "grammar", "services", "examples", "xtask", "tests", "benches"] {
        for path in files(folder, &[".rs"]).into_iter().filter(|path| !shown(path).starts_with("tests/ui/")) {
            let text = text(&path);
            let lines: Vec<&str> = text.lines().collect();
            // A suite is one list of facts.
            let is_suite = ["tests/once/", "tests/suites/", "tests/surroundings/"]
                .iter()
                .any(|folder| shown(&path).starts_with(folder));
            if lines.len() > MAX_FILE_LINES && !is_suite {
                problems.push(format!("{}: {} lines; move a wall", shown(&path), lines.len()));
            }
            problems.extend(long_functions(&lines).into_iter().map(|problem| format!("{}{problem}", shown(&path))));
        }
    }
    none(&problems);
}

/// In formatted code a function ends at the first closing brace with its own indentation.
fn long_functions(lines: &[&str]) -> Vec<String> {
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let is_function = ["fn ", "pub fn ", "async fn ", "pub async fn ", "const fn ", "pub const fn "]
            .iter()
            .any(|word| code.starts_with(word))
            || code.starts_with("pub(") && code.contains(" fn ");
        // A trait may only declare it.
        if !is_function || code.ends_with('}') || code.ends_with(';') {
            continue;
        }
        let closing = format!("{}}}", " ".repeat(line.len() - code.len()));
        let body = lines[start..]
            .iter()
            .position(|line| **line == closing || line.trim_end().ends_with("}") && line.len() == closing.len());
        if let Some(length) = body.filter(|length| *length + 1 > MAX_FUNCTION_LINES) {
            long.push(format!(":{}: a function of {} lines", start + 1, length + 1));
        }
    }
    long
}

#[test]
fn features_are_asked_for_on_mod_lines_only() {
    let mut problems = Vec::new();
    for path in files("framework/src", &[".rs"]) {
        let text = text(&path);
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let asks = !line.trim_start().starts_with("//")
                && (line.contains("cfg(feature") || line.contains("cfg(not(feature") || line.contains("cfg!(feature"));
            let next = lines.get(number + 1).copied().unwrap_or_default().trim_start();
            if asks
                && !["mod ", "pub mod ", "pub(crate) mod ", "#[path", "pub use adapter"]
                    .iter()
                    .any(|it| next.starts_with(it))
            {
                problems.push(format!("{}:{}: cfg(feature) beside a mod line", shown(&path), number + 1));
            }
        }
    }
    none(&problems);
}

#[test]
fn nothing_is_unbounded() {
    let mut problems = Vec::new();
    for path in files("framework/src", &[".rs"]) {
        let text = text(&path);
        let lines: Vec<&str> = text.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            if !code.starts_with("//") && (code.contains("unbounded_channel") || code.contains("::unbounded(")) {
                problems.push(format!("{}:{}: an unbounded channel", shown(&path), number + 1));
            }
            if code.starts_with("loop {") {
                let closing = format!("{}}}", " ".repeat(line.len() - code.len()));
                let body = lines[number + 1..].iter().take_while(|line| !line.starts_with(&closing));
                if !body.clone().any(|line| line.contains("await") || line.contains("select!")) {
                    problems.push(format!("{}:{}: a loop that never waits", shown(&path), number + 1));
                }
            }
        }
    }
    none(&problems);
}

/// `println!` panics when nobody reads the output any more.
#[test]
fn all_output_goes_through_one_place() {
    let mut problems = Vec::new();
    for path in [files("framework/src", &[".rs"]), files("services", &[".rs"]), files("examples", &[".rs"])].concat() {
        let text = text(&path);
        for (number, line) in text.lines().enumerate().take_while(|(_, line)| !line.starts_with("#[cfg(test)]")) {
            let code = line.trim_start();
            let prints = ["println!", "print!", "eprintln!", "eprint!"].iter().any(|word| code.contains(word));
            if prints && !code.starts_with("//") {
                problems.push(format!("{}:{}: prints; use print_line or app/output.rs", shown(&path), number + 1));
            }
        }
    }
    none(&problems);
}

#[test]
fn names_say_what_a_thing_is() {
    let mut problems = Vec::new();
    for folder in ["framework", "macros", "grammar", "services", "examples", "xtask", "tests", "benches"] {
        for path in files(folder, &[".rs"]) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            if ["util", "utils", "helper", "helpers", "common", "manager", "misc"].contains(&name.as_str()) {
                problems.push(format!("{}: a name for anything is a name for nothing", shown(&path)));
            }
        }
    }
    none(&problems);
}

#[test]
fn nothing_is_left_to_do_and_no_machine_is_named() {
    // Spelt in two halves, so that this file does not find itself.
    let marks = [
        ["TO", "DO"],
        ["FIX", "ME"],
        ["todo", "!("],
        ["unimplemented", "!("],
        ["/wo", "rk/"],
        ["/ro", "ot/"],
        ["/ho", "me/"],
    ]
    .map(|mark| mark.concat());
    let mut problems = Vec::new();
    for path in files("", &[".rs", ".md", ".toml", ".yml", ".py", "Dockerfile", "run"]) {
        for (number, line) in text(&path).lines().enumerate() {
            for mark in marks.iter().filter(|mark| line.contains(mark.as_str())) {
                problems.push(format!("{}:{}: {mark}", shown(&path), number + 1));
            }
        }
    }
    none(&problems);
}

#[test]
fn services_depend_on_the_framework_and_the_contracts_only() {
    let mut problems = Vec::new();
    for path in files("services", &["Cargo.toml"]) {
        let manifest = text(&path);
        let own = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let section = manifest
            .split("[dependencies]")
            .nth(1)
            .unwrap_or_default()
            .split("\n[")
            .next()
            .unwrap_or_default()
            .to_owned();
        for name in
            section.lines().filter_map(|line| line.split(['.', ' ', '=']).next()).filter(|name| !name.is_empty())
        {
            let wiring = own == "delivery" && root().join("services").join(name).is_dir();
            let shapes = own == "contracts" && name == "serde";
            if !["postrider", "contracts"].contains(&name) && !wiring && !shapes {
                problems.push(format!("{}: depends on {name}", shown(&path)));
            }
        }
    }
    none(&problems);
}

#[test]
fn every_capability_is_listed_once_with_its_proof() {
    let table = text(&root().join("docs/capabilities.md"));
    let mut rows: BTreeMap<&str, usize> = BTreeMap::new();
    for line in table.lines().filter(|line| line.starts_with("| S")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        *rows.entry(cells[1]).or_default() += 1;
        assert!(cells.len() >= 5 && !cells[2].is_empty() && !cells[3].is_empty(), "{line}");
    }
    let range = |prefix: &str, from: u32, to: u32| (from..=to).map(|n| format!("{prefix}.{n}")).collect::<Vec<_>>();
    let mut expected =
        [range("S0", 1, 37), range("S1", 1, 29), range("S2", 1, 7), range("S2", 22, 22), range("S3", 1, 34)].concat();
    expected.extend(range("S4", 1, 46));
    let problems: Vec<String> = expected
        .iter()
        .filter(|id| rows.get(id.as_str()) != Some(&1))
        .map(|id| format!("{id} is not listed exactly once"))
        .collect();
    none(&problems);
}

/// A proof that does not exist is none.
#[test]
fn every_test_that_the_docs_name_exists() {
    let sources: String = ["tests", "framework/src", "grammar/src", "services", "examples"]
        .iter()
        .flat_map(|folder| files(folder, &[".rs"]))
        .map(|path| text(&path))
        .collect();
    let mut missing = Vec::new();
    for doc in files("docs", &[".md"]) {
        let text = text(&doc);
        let named = text.split('`').filter(|word| {
            let letters = word.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit());
            letters && word.matches('_').count() > 2
        });
        let unknown = named.filter(|name| !sources.contains(&format!("fn {name}")));
        missing.extend(unknown.map(|name| format!("{} names {name}, which is no test", shown(&doc))));
    }
    none(&missing);
}
