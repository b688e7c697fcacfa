//! Reads file and environment into a [`Config`] and reports all problems at once.

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

mod file;
pub(super) mod origin;
mod suggest;
mod variables;

pub(crate) use origin::Origins;
pub(crate) use suggest::nearest;
pub(crate) use variables::environment;

const PREFIX: &str = "POSTRIDER_";

/// Adds the settings of file and environment.
///
/// # Errors
/// All problems, each with the setting, where it was set, the value and what to write instead.
pub(crate) fn read(
    config: &mut Config,
    file: Option<&Path>,
    environment: &[(String, String)],
) -> Result<(), Vec<String>> {
    let (mut problems, mut origins) = (Vec::new(), Origins::default());
    let named = environment.iter().find(|(name, path)| name == "POSTRIDER_CONFIG" && !path.trim().is_empty());
    let file = file.or(named.map(|(_, path)| Path::new(path.as_str())));
    let table = file::read_file(file, &mut origins, &mut problems);
    in_table(config, table, environment, origins, problems)
}

/// Adds the environment's settings to the file's, then reads both.
fn in_table(
    config: &mut Config,
    mut table: Table,
    environment: &[(String, String)],
    mut origins: Origins,
    mut problems: Vec<String>,
) -> Result<(), Vec<String>> {
    variables::insert_all(&mut table, environment, &mut origins, &mut problems);
    let mut reader = Reader { problems, origins };
    for (name, value) in table {
        reader.setting(config, &name, value);
    }
    config.origins = reader.origins;
    if reader.problems.is_empty() { Ok(()) } else { Err(reader.problems) }
}

/// Merges newer settings into a table; newer values replace older ones.
pub(crate) fn merge(table: &mut Table, newer: Table) {
    for (name, value) in newer {
        match (table.get_mut(&name), value) {
            (Some(Value::Table(table)), Value::Table(newer)) => merge(table, newer),
            (_, value) => {
                table.insert(name, value);
            }
        }
    }
}

/// All settings by name, to suggest one for a misspelled name.
const SETTINGS: [&str; 43] = [
    "broker",
    "broker_ca",
    "namespace",
    "prefetch",
    "concurrency",
    "timeout",
    "consumer_timeout",
    "retry",
    "retry_pause",
    "breaker",
    "query_queue",
    "stall_after",
    "health",
    "skew_window",
    "skew_pause",
    "arbiters",
    "start_timeout",
    "needs_timeout",
    "stop_timeout",
    "confirm_timeout",
    "request_timeout",
    "max_open_requests",
    "max_payload_bytes",
    "max_decompressed_bytes",
    "max_nesting",
    "max_held_messages",
    "max_held_bytes",
    "run_messages",
    "run_time",
    "run_memory_mib",
    "run_idle",
    "run_first_failure",
    "store",
    "store_pooler",
    "lock_timeout",
    "publish_interval",
    "inbox_retention",
    "sent_retention",
    "outbox_alarm",
    "store_connections",
    "shared_commit",
    "actor",
    "service",
];

/// The settings of an actor that can be configured.
const OF_AN_ACTOR: [&str; 5] = ["prefetch", "concurrency", "timeout", "retry", "breaker"];

struct Reader {
    problems: Vec<String>,
    origins: Origins,
}

impl Reader {
    fn problem(&mut self, name: &str, text: impl Display) {
        self.problems.push(format!("{}: {text}", self.origins.shown(name)));
    }

    /// Whether there is a value. An empty value is a mistake and does not mean the default.
    fn has_value(&mut self, name: &str, value: &Value) -> bool {
        let is_empty = value.as_str().is_some_and(|text| text.trim().is_empty());
        if is_empty {
            self.problem(name, "is set and empty; give it a value or remove it");
        }
        !is_empty
    }

    fn unknown(&mut self, name: &str) {
        let two = |group: &str| name.strip_prefix(group).filter(|rest| rest.contains('_'));
        if let Some(variable) = self.origins.variable(name).filter(|_| two("actor_").or(two("service_")).is_some()) {
            let text = format!(
                "{variable}: no such setting; write two underscores between its parts, as in POSTRIDER_ACTOR__INVOICE__PREFETCH"
            );
            self.problems.push(text);
            return;
        }
        let others = variables::OTHERS.into_iter().filter(|_| self.origins.variable(name).is_some());
        let meant = nearest(name, SETTINGS.into_iter().chain(others)).map(|meant| self.origins.written(name, meant));
        let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
        self.problem(name, format!("no such setting{meant}; docs/configuration.md lists them all"));
    }

    fn setting(&mut self, config: &mut Config, name: &str, value: Value) {
        if !self.has_value(name, &value) {
            return;
        }
        match name {
            "broker" => config.broker = self.text(name, value).map(Secret::new),
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
            "store" => config.store = self.text(name, value).map(Secret::new),
            "store_pooler" => config.store_pooler = self.text(name, value).map(Secret::new),
            "lock_timeout" => self.duration(name, &value, |d| config.store_settings.lock_timeout = d),
            "publish_interval" => self.duration(name, &value, |d| config.store_settings.publish_interval = d),
            "inbox_retention" => self.duration(name, &value, |d| config.store_settings.inbox_retention = d),
            "sent_retention" => self.duration(name, &value, |d| config.store_settings.sent_retention = Some(d)),
            "outbox_alarm" => self.duration(name, &value, |d| config.store_settings.outbox_alarm = d),
            "store_connections" => self.number(name, &value, 1_000, |n| config.store_settings.connections = n as usize),
            "shared_commit" => self.number(name, &value, 32, |n| config.store_settings.shared_commit = n as usize),
            "service" => self.group(name, value, |reader, service, mut table| {
                for (name, addresses) in [("store", &mut config.stores), ("store_pooler", &mut config.store_poolers)] {
                    let setting = format!("service.{service}.{name}");
                    let address = table.remove(name).filter(|value| reader.has_value(&setting, value));
                    if let Some(address) = address.and_then(|value| reader.text(&setting, value)) {
                        addresses.insert(service.to_owned(), Secret::new(address));
                    }
                }
                merge(config.services.entry(service.to_owned()).or_default(), table);
            }),
            _ => self.unknown(name),
        }
    }

    fn namespace(&mut self, config: &mut Config, name: &str, value: Value) {
        let Some(text) = self.text(name, value) else { return };
        match Names::new(&text) {
            Ok(names) => config.namespace = names,
            Err(error) => self.problem(name, error),
        }
    }

    fn group(&mut self, name: &str, value: Value, mut each: impl FnMut(&mut Self, &str, Table)) {
        let Value::Table(table) = value else {
            self.problem(name, format!("write a table for each: [{name}.invoice]"));
            return;
        };
        for (entry, value) in table {
            match value {
                Value::Table(table) => each(self, &entry, table),
                _ => {
                    self.problem(&format!("{name}.{entry}"), format!("write a table: [{name}.{entry}]"));
                }
            }
        }
    }

    fn actor(&mut self, config: &mut Config, actor: &str, table: Table) {
        let mut overrides = ActorOverrides::default();
        for (field, value) in table {
            let name = format!("actor.{actor}.{field}");
            if !self.has_value(&name, &value) {
                continue;
            }
            match field.as_str() {
                "prefetch" => self.number(&name, &value, u16::MAX.into(), |n| overrides.prefetch = Some(n as u16)),
                "concurrency" => self.number(&name, &value, 10_000, |n| overrides.concurrency = Some(n as usize)),
                "timeout" => self.duration(&name, &value, |d| overrides.timeout = Some(d)),
                "retry" => self.retry(&name, value, |retry| overrides.retry = Some(retry)),
                "breaker" => self.parsed(&name, value, |breaker| overrides.breaker = Some(breaker)),
                "guarantee" | "ordered" => {
                    self.problem(&name, "a promise is made in the code, in #[distributed(…)], and cannot be configured")
                }
                _ if value.is_table() => {
                    self.problem(&name, format!("write the name in quotes: [actor.\"{actor}.{field}\"]"));
                }
                _ => {
                    let meant = nearest(field.as_str(), OF_AN_ACTOR);
                    let meant = meant.map(|meant| self.origins.written(&name, &format!("actor.{actor}.{meant}")));
                    let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
                    self.problem(&name, format!("an actor has {}{meant}", OF_AN_ACTOR.join(", ")));
                }
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
                self.problem(name, format!("{text:?} is no address with a port, such as \"0.0.0.0:8080\""));
            }
        }
    }

    fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str, value: Value, set: impl FnOnce(T)) {
        match self.text(name, value).map(|text| text.parse()) {
            Some(Ok(parsed)) => set(parsed),
            Some(Err(error)) => self.problem(name, error),
            None => {}
        }
    }

    fn text(&mut self, name: &str, value: Value) -> Option<String> {
        if let Value::String(text) = value {
            return Some(text);
        }
        self.problem(name, "write a text in quotes");
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
            None => self.problem(name, format!("{value} is not a whole number from 1 to {most}")),
        }
    }

    fn flag(&mut self, name: &str, value: &Value, set: impl FnOnce(bool)) {
        match value {
            Value::Boolean(flag) => set(*flag),
            Value::String(text) if text == "true" || text == "1" => set(true),
            Value::String(text) if text == "false" || text == "0" => set(false),
            _ => self.problem(name, format!("{value} is neither true nor false")),
        }
    }

    fn duration(&mut self, name: &str, value: &Value, set: impl FnOnce(Duration)) {
        match value.as_str().and_then(parse_duration) {
            Some(duration) => set(duration),
            None => self.problem(
                name,
                format!("{value} is not a duration above zero with a unit, such as \"500ms\", \"30s\", \"2m\", \"1h\""),
            ),
        }
    }
}

#[cfg(test)]
mod property_tests;

#[cfg(test)]
mod tests;
