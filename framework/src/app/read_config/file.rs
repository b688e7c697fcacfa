//! The configuration file as a table, and the line of each setting.

use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::app::read_config::origin::Origins;

/// The file that is read, if it exists, when no other file is named.
const DEFAULT_FILE: &str = "postrider.toml";

/// Reads the named file, or the default file if it exists.
pub(super) fn read_file(named: Option<&Path>, origins: &mut Origins, problems: &mut Vec<String>) -> Table {
    if named.is_none() && !Path::new(DEFAULT_FILE).exists() {
        return Table::new();
    }
    let path = named.unwrap_or(Path::new(DEFAULT_FILE));
    match std::fs::read_to_string(path) {
        Ok(text) => parsed(path, &text, origins, problems),
        Err(error) => {
            problems.push(format!("configuration file {}: {error}", path.display()));
            Table::new()
        }
    }
}

pub(super) fn parsed(path: &Path, text: &str, origins: &mut Origins, problems: &mut Vec<String>) -> Table {
    let line_of = |start: usize| 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
    match DeTable::parse(text) {
        Ok(table) => {
            let mut origin = |setting: &str, start| {
                origins.insert(setting, format!("{}, line {}", path.display(), line_of(start)));
            };
            table_of("", table.get_ref(), &mut origin)
        }
        Err(error) => {
            // The error's own text quotes the line, which may contain a password.
            let line = line_of(error.span().map_or(0, |span| span.start));
            problems.push(format!("configuration file {}, line {line}: {}", path.display(), error.message()));
            Table::new()
        }
    }
}

fn table_of(within: &str, table: &DeTable<'_>, origin: &mut impl FnMut(&str, usize)) -> Table {
    let entries = table.iter().map(|(name, value)| {
        let setting =
            if within.is_empty() { name.get_ref().to_string() } else { format!("{within}.{}", name.get_ref()) };
        origin(&setting, name.span().start);
        (name.get_ref().to_string(), value_of(&setting, value.get_ref(), origin))
    });
    entries.collect()
}

fn value_of(within: &str, value: &DeValue<'_>, origin: &mut impl FnMut(&str, usize)) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        // A number out of range stays a text, so that the setting reports it together with all other problems.
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::String(number.as_str().to_owned()), Value::Integer),
        DeValue::Float(number) => {
            number.as_str().parse().map_or_else(|_| Value::String(number.as_str().to_owned()), Value::Float)
        }
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(time) => Value::Datetime(*time),
        DeValue::Array(values) => {
            Value::Array(values.iter().map(|value| value_of(within, value.get_ref(), origin)).collect())
        }
        DeValue::Table(table) => Value::Table(table_of(within, table, origin)),
    }
}
