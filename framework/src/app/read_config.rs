//! Reads file and environment into a [`Config`]. Every problem is reported at once.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use postrider_grammar::{Retry, parse_duration};
use toml::{Table, Value};

use crate::app::config::{ActorOverrides, Config};
use crate::broker::Names;
use crate::codec::DEEPEST;
use crate::message::Secret;

/// The file that is read when nobody names another one, if it is there.
const DEFAULT_FILE: &str = "postrider.toml";
const PREFIX: &str = "POSTRIDER_";

/// Variables that other parts read: the file's name here, the log by the process.
const NOT_SETTINGS: [&str; 2] = ["POSTRIDER_CONFIG", "POSTRIDER_LOG"];

/// The environment as texts. What is no text, in whatever variable, is no reason to end.
pub(super) fn environment() -> Vec<(String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

/// Adds what file and environment say.
///
/// # Errors
/// All problems, each naming the setting, the value and what to write.
pub(super) fn read(
    config: &mut Config,
    file: Option<&Path>,
    environment: &[(String, String)],
) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    let table = read_file(file, environment, &mut problems);
    in_table(config, table, environment, problems)
}

/// Adds what the environment says to what the file says, and reads both.
fn in_table(
    config: &mut Config,
    mut table: Table,
    environment: &[(String, String)],
    mut problems: Vec<String>,
) -> Result<(), Vec<String>> {
    let ours = |name: &str| name.starts_with(PREFIX) && !NOT_SETTINGS.contains(&name) && !is_service_link(name);
    for (name, value) in environment.iter().filter(|(name, _)| ours(name)) {
        insert(&mut table, name, value, &mut problems);
    }
    let mut reader = Reader { problems };
    for (name, value) in table {
        reader.setting(config, &name, value);
    }
    if reader.problems.is_empty() { Ok(()) } else { Err(reader.problems) }
}

fn read_file(file: Option<&Path>, environment: &[(String, String)], problems: &mut Vec<String>) -> Table {
    let named =
        environment.iter().find(|(name, _)| name == "POSTRIDER_CONFIG").map(|(_, path)| Path::new(path.as_str()));
    let path = file.or(named);
    if path.is_none() && !Path::new(DEFAULT_FILE).exists() {
        return Table::new();
    }
    let path = path.unwrap_or(Path::new(DEFAULT_FILE));
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            problems.push(format!("configuration file {}: {error}", path.display()));
            return Table::new();
        }
    };
    parsed(path, &text, problems)
}

fn parsed(path: &Path, text: &str, problems: &mut Vec<String>) -> Table {
    text.parse().unwrap_or_else(|error: toml::de::Error| {
        // The error's own text quotes the line, which may hold a password.
        let start = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
        problems.push(format!("configuration file {}, line {line}: {}", path.display(), error.message()));
        Table::new()
    })
}

/// What Kubernetes puts into the environment for a Service named `postrider`
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>).
fn is_service_link(name: &str) -> bool {
    let rest = &name[PREFIX.len()..];
    rest == "PORT" || rest.starts_with("PORT_") || rest == "SERVICE_HOST" || rest.starts_with("SERVICE_PORT")
}

/// `POSTRIDER_ACTOR__INVOICE__PREFETCH=8` is `actor.invoice.prefetch = 8`.
fn insert(table: &mut Table, variable: &str, value: &str, problems: &mut Vec<String>) {
    let path: Vec<String> = variable[PREFIX.len()..].to_ascii_lowercase().split("__").map(str::to_owned).collect();
    let value = Value::String(value.to_owned());
    let (group, name, field) = match &path[..] {
        [setting] => {
            table.insert(setting.clone(), value);
            return;
        }
        [group, name, field] => (group, name.replace('_', "-"), field),
        [group, name, queue, field] => {
            (group, format!("{}.{}", name.replace('_', "-"), queue.replace('_', "-")), field)
        }
        _ => {
            problems.push(format!("{variable}: write POSTRIDER_SETTING, POSTRIDER_ACTOR__SERVICE__SETTING or POSTRIDER_SERVICE__NAME__SETTING"));
            return;
        }
    };
    let group = table.entry(group.clone()).or_insert_with(|| Value::Table(Table::new()));
    let entry = group.as_table_mut().map(|group| group.entry(name).or_insert_with(|| Value::Table(Table::new())));
    if let Some(Value::Table(entry)) = entry {
        entry.insert(field.clone(), value);
    } else {
        problems.push(format!("{variable}: the file has something else than a table there"));
    }
}

struct Reader {
    problems: Vec<String>,
}

impl Reader {
    fn setting(&mut self, config: &mut Config, name: &str, value: Value) {
        match name {
            "broker" => config.broker = self.text(name, value).map(Secret::new).filter(|url| !url.reveal().is_empty()),
            "broker_ca" => config.broker_ca = self.text(name, value).map(Into::into),
            "namespace" => self.namespace(config, name, value),
            "prefetch" => self.number(name, &value, u16::MAX.into(), |n| config.prefetch = n as u16),
            "concurrency" => self.number(name, &value, 10_000, |n| config.concurrency = n as usize),
            "timeout" => self.duration(name, &value, |d| config.timeout = d),
            "consumer_timeout" => self.duration(name, &value, |d| config.consumer_timeout = d),
            "retry" => self.retry(name, value, |retry| config.retry = Retry { pause: config.retry.pause, ..retry }),
            "retry_pause" => self.duration(name, &value, |d| config.retry.pause = d),
            "breaker" => self.parsed(name, value, |breaker| config.breaker = Some(breaker)),
            "query_queue" => self.parsed(name, value, |kind| config.query_queue = kind),
            "stall_after" => self.duration(name, &value, |d| config.stall_after = d),
            "health" => self.address(name, value, |address| config.health = Some(address)),
            "skew_window" => self.duration(name, &value, |d| config.skew.window = d),
            "skew_pause" => self.duration(name, &value, |d| config.skew.pause = d),
            "arbiters" => self.number(name, &value, 1_024, |n| config.arbiters = n as usize),
            "start_timeout" => self.duration(name, &value, |d| config.start_timeout = d),
            "needs_timeout" => self.duration(name, &value, |d| config.needs_timeout = d),
            "stop_timeout" => self.duration(name, &value, |d| config.stop_timeout = d),
            "confirm_timeout" => self.duration(name, &value, |d| config.publish.confirm_timeout = d),
            "request_timeout" => self.duration(name, &value, |d| config.publish.request_timeout = d),
            "max_open_requests" => {
                self.number(name, &value, 1_000_000, |n| config.publish.max_open_requests = n as usize)
            }
            "max_payload_bytes" => {
                self.number(name, &value, 128 * 1024 * 1024, |n| config.limits.max_payload_bytes = n as usize)
            }
            "max_decompressed_bytes" => {
                self.number(name, &value, 1 << 30, |n| config.limits.max_decompressed_bytes = n as usize)
            }
            "max_nesting" => self.number(name, &value, DEEPEST as u64, |n| config.limits.max_nesting = n as usize),
            "max_held_messages" => self.number(name, &value, 1_000_000, |n| config.held.messages = n as usize),
            "max_held_bytes" => self.number(name, &value, 1 << 30, |n| config.held.bytes = n as usize),
            "run_messages" => self.number(name, &value, u64::MAX, |n| config.run.messages = Some(n)),
            "run_time" => self.duration(name, &value, |d| config.run.time = Some(d)),
            "run_memory_mib" => self.number(name, &value, u64::MAX, |n| config.run.memory_mib = Some(n)),
            "run_idle" => self.duration(name, &value, |d| config.run.idle = Some(d)),
            "run_first_failure" => self.flag(name, &value, |flag| config.run.first_failure = flag),
            "actor" => self.group(name, value, |reader, actor, table| reader.actor(config, actor, table)),
            "service" => self.group(name, value, |_, service, table| {
                config.services.insert(service.to_owned(), table);
            }),
            _ => self.problems.push(format!("{name}: no such setting; docs/configuration.md lists them all")),
        }
    }

    fn namespace(&mut self, config: &mut Config, name: &str, value: Value) {
        let Some(text) = self.text(name, value) else { return };
        match Names::new(&text) {
            Ok(names) => config.namespace = names,
            Err(error) => self.problems.push(format!("{name}: {error}")),
        }
    }

    fn group(&mut self, name: &str, value: Value, mut each: impl FnMut(&mut Self, &str, Table)) {
        let Value::Table(table) = value else {
            self.problems.push(format!("{name}: write a table for each: [{name}.invoice]"));
            return;
        };
        for (entry, value) in table {
            match value {
                Value::Table(table) => each(self, &entry, table),
                _ => self.problems.push(format!("{name}.{entry}: write a table: [{name}.{entry}]")),
            }
        }
    }

    fn actor(&mut self, config: &mut Config, actor: &str, table: Table) {
        let mut overrides = ActorOverrides::default();
        for (field, value) in table {
            let name = format!("actor.{actor}.{field}");
            match field.as_str() {
                "prefetch" => self.number(&name, &value, u16::MAX.into(), |n| overrides.prefetch = Some(n as u16)),
                "concurrency" => self.number(&name, &value, 10_000, |n| overrides.concurrency = Some(n as usize)),
                "timeout" => self.duration(&name, &value, |d| overrides.timeout = Some(d)),
                "retry" => self.retry(&name, value, |retry| overrides.retry = Some(retry)),
                "breaker" => self.parsed(&name, value, |breaker| overrides.breaker = Some(breaker)),
                "guarantee" | "ordered" => self.problems.push(format!(
                    "{name}: a promise is made in the code, in #[distributed(…)], and cannot be configured"
                )),
                _ => self
                    .problems
                    .push(format!("{name}: an actor has prefetch, concurrency, timeout, retry and breaker")),
            }
        }
        config.actors.insert(actor.to_owned(), overrides);
    }

    fn retry(&mut self, name: &str, value: Value, set: impl FnOnce(Retry)) {
        let value = if let Value::Integer(attempts) = value { Value::String(attempts.to_string()) } else { value };
        self.parsed(name, value, set);
    }

    fn address(&mut self, name: &str, value: Value, set: impl FnOnce(SocketAddr)) {
        let Some(text) = self.text(name, value) else { return };
        match text.parse() {
            Ok(address) => set(address),
            Err(_) => {
                self.problems.push(format!("{name}: {text:?} is no address with a port, such as \"0.0.0.0:8080\""));
            }
        }
    }

    fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str, value: Value, set: impl FnOnce(T)) {
        match self.text(name, value).map(|text| text.parse()) {
            Some(Ok(parsed)) => set(parsed),
            Some(Err(error)) => self.problems.push(format!("{name}: {error}")),
            None => {}
        }
    }

    fn text(&mut self, name: &str, value: Value) -> Option<String> {
        if let Value::String(text) = value {
            return Some(text);
        }
        self.problems.push(format!("{name}: write a text in quotes"));
        None
    }

    fn number(&mut self, name: &str, value: &Value, most: u64, set: impl FnOnce(u64)) {
        let read = match value {
            Value::Integer(number) => u64::try_from(*number).ok(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        match read.filter(|number| (1..=most).contains(number)) {
            Some(number) => set(number),
            None => self.problems.push(format!("{name}: {value} is not a whole number from 1 to {most}")),
        }
    }

    fn flag(&mut self, name: &str, value: &Value, set: impl FnOnce(bool)) {
        match value {
            Value::Boolean(flag) => set(*flag),
            Value::String(text) if text == "true" || text == "1" => set(true),
            Value::String(text) if text == "false" || text == "0" => set(false),
            _ => self.problems.push(format!("{name}: {value} is neither true nor false")),
        }
    }

    fn duration(&mut self, name: &str, value: &Value, set: impl FnOnce(Duration)) {
        match value.as_str().and_then(parse_duration) {
            Some(duration) => set(duration),
            None => self.problems.push(format!(
                "{name}: {value} is not a duration above zero with a unit, such as \"500ms\", \"30s\", \"2m\", \"1h\""
            )),
        }
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
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
}
