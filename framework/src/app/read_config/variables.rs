//! Settings from the environment: which variables are ours, and how they become settings.

use toml::{Table, Value};

use crate::app::read_config::PREFIX;
use crate::app::read_config::origin::Origins;

/// Variables that are read elsewhere: the file's name, the log filter, the doctor's management API.
const NOT_SETTINGS: [&str; 3] = ["POSTRIDER_CONFIG", "POSTRIDER_LOG", "POSTRIDER_MANAGEMENT"];
/// The same as names of settings.
pub(super) const OTHERS: [&str; 3] = ["config", "log", "management"];

/// The environment as text. A value that is not UTF-8 is converted lossily instead of causing a panic.
pub(crate) fn environment() -> Vec<(String, String)> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}

/// Adds the settings of the environment to those of the file.
pub(crate) fn insert_all(
    table: &mut Table,
    environment: &[(String, String)],
    origins: &mut Origins,
    problems: &mut Vec<String>,
) {
    for (name, value) in environment.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
        if is_service_link(name, value, environment) {
            continue;
        }
        if value.trim().is_empty() {
            problems.push(empty(name));
        } else if !NOT_SETTINGS.contains(&name.as_str()) {
            insert(table, name, value, origins, problems);
        }
    }
}

/// The variable was set on purpose, but its value is missing.
fn empty(name: &str) -> String {
    format!("{name}: is set and empty; give it a value or remove it")
}

/// Whether a container runtime set the variable to describe another service: Kubernetes for each Service
/// (<https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>), Docker for each link.
/// The name begins with the service's name, which can be anything, so only the end of the name and the value are
/// checked.
fn is_service_link(name: &str, value: &str, environment: &[(String, String)]) -> bool {
    // A service's own setting may have such a name.
    if is_setting_of_one(name) {
        return false;
    }
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_address = |text: &str| text.split_once("://").is_some_and(|(scheme, _)| is_protocol(scheme));
    if name.ends_with("_SERVICE_HOST") || name.contains("_SERVICE_PORT") && is_number(value) {
        return true;
    }
    if name.ends_with("_PORT") && is_address(value) {
        return true;
    }
    let of_port = name.rmatch_indices("_PORT_").any(|(at, word)| is_port(&name[at + word.len()..]));
    of_port || is_docker_link(name, value, environment)
}

/// `5672_TCP`, `5672_TCP_ADDR`, `…_PORT`, `…_PROTO`.
fn is_port(rest: &str) -> bool {
    let mut words = rest.split('_');
    let number = words.next().is_some_and(|word| word.parse::<u16>().is_ok());
    let protocol = words.next().is_some_and(is_protocol);
    let last = words.next();
    number && protocol && matches!(last, None | Some("ADDR" | "PORT" | "PROTO" | "START" | "END")) && words.count() <= 2
}

fn is_protocol(word: &str) -> bool {
    ["tcp", "udp", "sctp"].iter().any(|protocol| word.eq_ignore_ascii_case(protocol))
}

/// `{ALIAS}_NAME` and `{ALIAS}_ENV_{VARIABLE}` belong to a link if the link's `{ALIAS}_PORT` is set too.
fn is_docker_link(name: &str, value: &str, environment: &[(String, String)]) -> bool {
    let names = name.strip_suffix("_NAME").filter(|_| value.starts_with('/'));
    let alias = names.or_else(|| name.split_once("_ENV_").map(|(alias, _)| alias));
    let is_port_of = |alias: &str, other: &(String, String)| {
        other.0.strip_prefix(alias).is_some_and(|rest| rest.starts_with("_PORT"))
            && is_service_link(&other.0, &other.1, &[])
    };
    alias.is_some_and(|alias| environment.iter().any(|other| is_port_of(alias, other)))
}

/// `POSTRIDER_ACTOR__…__…` and `POSTRIDER_SERVICE__…__…`.
fn is_setting_of_one(name: &str) -> bool {
    let rest = name.strip_prefix(PREFIX).unwrap_or_default();
    ["ACTOR__", "SERVICE__"].iter().any(|group| rest.strip_prefix(group).is_some_and(|rest| rest.contains("__")))
}

/// `POSTRIDER_ACTOR__INVOICE__PREFETCH=8` is `actor.invoice.prefetch = 8`.
fn insert(table: &mut Table, variable: &str, value: &str, origins: &mut Origins, problems: &mut Vec<String>) {
    let path: Vec<String> = variable[PREFIX.len()..].to_ascii_lowercase().split("__").map(str::to_owned).collect();
    let value = Value::String(value.to_owned());
    let (group, name, field) = match &path[..] {
        [setting] => {
            origins.insert(setting, variable.to_owned());
            table.insert(setting.clone(), value);
            return;
        }
        [group, name, field] if is_setting_of_one(variable) => (group, name.replace('_', "-"), field),
        [group, name, queue, field] if group == "actor" && is_setting_of_one(variable) => {
            (group, format!("{}.{}", name.replace('_', "-"), queue.replace('_', "-")), field)
        }
        _ => {
            problems.push(format!("{variable}: no such setting; write POSTRIDER_SETTING, POSTRIDER_ACTOR__SERVICE__SETTING or POSTRIDER_SERVICE__NAME__SETTING"));
            return;
        }
    };
    origins.insert(&format!("{group}.{name}"), variable.to_owned());
    origins.insert(&format!("{group}.{name}.{field}"), variable.to_owned());
    let group = table.entry(group.clone()).or_insert_with(|| Value::Table(Table::new()));
    let entry = group.as_table_mut().map(|group| group.entry(name).or_insert_with(|| Value::Table(Table::new())));
    if let Some(Value::Table(entry)) = entry {
        entry.insert(field.clone(), value);
    } else {
        problems.push(format!("{variable}: the file has something else than a table there"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Table, Vec<String>) {
        let environment: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (mut table, mut problems) = (Table::new(), Vec::new());
        insert_all(&mut table, &environment, &mut Origins::default(), &mut problems);
        (table, problems)
    }

    #[test]
    fn what_kubernetes_says_about_any_service_is_no_setting_of_ours() {
        for service in [
            "",
            "_RABBITMQ",
            "_BROKER",
            "_HEALTH",
            "_CONFIG",
            "_LOG",
            "_SERVICE",
            "_ACTOR",
            "_SERVICE_PORT",
            "_PORT_80",
            "_A__B",
        ] {
            for (end, value) in [
                ("SERVICE_HOST", "10.0.0.7"),
                ("SERVICE_PORT", "5672"),
                ("SERVICE_PORT_AMQP", "5672"),
                ("SERVICE_PORT_AMQP_TLS", "5671"),
                ("PORT", "tcp://10.0.0.7:5672"),
                ("PORT_5672_TCP", "tcp://10.0.0.7:5672"),
                ("PORT_5672_TCP_ADDR", "10.0.0.7"),
                ("PORT_5672_TCP_PORT", "5672"),
                ("PORT_5672_TCP_PROTO", "tcp"),
                ("PORT_53_UDP", "udp://10.0.0.7:53"),
                ("PORT_53_UDP_PROTO", "udp"),
            ] {
                let name = format!("POSTRIDER{service}_{end}");
                assert_eq!(read(&[(&name, value)]), (Table::new(), Vec::new()), "{name}");
            }
        }
    }

    #[test]
    fn what_docker_says_about_a_link_is_no_setting_of_ours() {
        let link = [
            ("POSTRIDER_BROKER_PORT", "tcp://172.17.0.5:5672"),
            ("POSTRIDER_BROKER_NAME", "/web/postrider-broker"),
            ("POSTRIDER_BROKER_ENV_RABBITMQ_DEFAULT_USER", "u"),
            ("POSTRIDER_BROKER_ENV_EMPTY", ""),
        ];
        assert_eq!(read(&link), (Table::new(), Vec::new()));
        assert_eq!(read(&link[1..]).0.len(), 2, "without its port it is no link");
    }

    #[test]
    fn what_looks_like_a_link_and_is_none_is_no_secret_hole() {
        for (name, value) in
            [("POSTRIDER_HEALTH_PORT", "8080"), ("POSTRIDER_PORT", "8080"), ("POSTRIDER_BROKER_HOST", "h")]
        {
            assert_eq!(read(&[(name, value)]).0.len(), 1, "{name}");
        }
        let own = read(&[
            ("POSTRIDER_SERVICE__MAIL__SMTP_PORT", "tcp://h:25"),
            ("POSTRIDER_SERVICE__MAIL__PORT_25_TCP", "1"),
        ]);
        assert_eq!(own.0["service"]["mail"]["smtp_port"].as_str(), Some("tcp://h:25"));
        assert_eq!(own.0["service"]["mail"].as_table().map(Table::len), Some(2));
    }

    #[test]
    fn set_and_empty_is_a_mistake_whatever_the_variable() {
        for name in [
            "POSTRIDER_BROKER",
            "POSTRIDER_LOG",
            "POSTRIDER_CONFIG",
            "POSTRIDER_SERVICE__LOANS__DAYS",
            "POSTRIDER_BROKR",
        ] {
            for value in ["", "  "] {
                let (table, problems) = read(&[(name, value)]);
                assert!(table.is_empty() && problems.len() == 1 && problems[0].contains(name), "{problems:?}");
            }
        }
    }
}
