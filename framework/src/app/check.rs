//! Finds mistakes that can be seen before anything starts, all at once.

use std::collections::HashMap;

use postrider_grammar::check_service;
use tokio::sync::watch;

use crate::app::builder::App;
use crate::app::config::Config;
use crate::app::entry::Entry;
use crate::app::read_config::nearest;
use crate::app::stores::store_problems;
use crate::handler::HandlerSpec;
use crate::inbound::CONTROL;
use crate::message::Kind;

/// All problems of an app.
pub(crate) fn check(app: &App, config: &Config) -> Vec<String> {
    let mut problems = app.problems.clone();
    if let Err(error) = check_service(&app.name) {
        problems.push(format!("app: {error}"));
    }
    problems.extend(
        app.needs.iter().filter_map(|service| check_service(service).err()).map(|error| format!("needs: {error}")),
    );
    for entry in &app.entries {
        check_entry(app, entry, config, &mut problems);
    }
    problems.extend(store_problems(app, config));
    check_strangers(app, config, &mut problems);
    check_keys(app, &mut problems);
    check_domains(app, &mut problems);
    check_queues(app, &mut problems);
    problems
}

/// Warns of settings for actors and services that are not in this process. That is fine where several processes share a
/// file or an environment.
pub(crate) fn warn_of_strangers(app: &App, config: &Config) {
    for Stranger { setting, here, .. } in strangers(app, config) {
        let set = config.origins.shown(&setting);
        tracing::warn!(%set, ?here, "the configuration speaks of somebody who is not in this process");
    }
}

/// Reports a variable for an unknown actor or service whose name is close to one in this process: it is a spelling
/// mistake. In a file it may be meant for another process.
fn check_strangers(app: &App, config: &Config, problems: &mut Vec<String>) {
    for Stranger { setting, group, name, here } in strangers(app, config) {
        let meant = nearest(&name, here.iter().map(String::as_str));
        // If the suggested service has settings too, both names are probably right.
        let meant = meant.filter(|meant| group != "service" || !config.services.contains_key(*meant));
        if let (Some(meant), Some(variable)) = (meant, config.origins.variable(&setting)) {
            let written = |name: &str| config.origins.written(&setting, &format!("{group}.{name}"));
            let meant = variable.replacen(&written(&name), &written(meant), 1);
            problems
                .push(format!("{variable}: there is no {group} {name:?} here, but {here:?}; did you mean {meant}?"));
        }
    }
}

struct Stranger {
    setting: String,
    group: &'static str,
    name: String,
    here: Vec<String>,
}

fn strangers(app: &App, config: &Config) -> Vec<Stranger> {
    let actors: Vec<String> = app.entries.iter().map(Entry::name).collect();
    let services: Vec<String> = app.services().into_iter().map(str::to_owned).collect();
    let of = |group, named: Vec<&String>, here: &[String]| -> Vec<Stranger> {
        let unknown = named.into_iter().filter(|name| !here.contains(name));
        let stranger = |name: &String| Stranger {
            setting: format!("{group}.{name}"),
            group,
            name: name.clone(),
            here: here.to_vec(),
        };
        unknown.map(stranger).collect()
    };
    let mut strangers = of("actor", config.actors.keys().collect(), &actors);
    strangers.extend(of("service", config.services.keys().collect(), &services));
    strangers
}

fn check_entry(app: &App, entry: &Entry, config: &Config, problems: &mut Vec<String>) {
    let attributes = &entry.attributes;
    for (first, second) in &entry.conflicts {
        problems.push(conflict(first, second));
    }
    problems.extend(entry.policies(config).err());
    let effective = entry.effective(config);
    let pace = entry.pace(config, watch::channel(effective.concurrency).1);
    let most = pace.most_prefetch(config.consumer_timeout);
    // For shared handlers the prefetch is only lowered: they almost never all take the full time.
    if pace.exclusive && effective.prefetch_is_explicit && effective.prefetch > most {
        let set = config.origins.origin(&format!("actor.{}.prefetch", entry.name()));
        let set = set.map_or_else(String::new, |origin| format!(" (set by {origin})"));
        problems.push(format!(
            "{}: {} deliveries held{set}, handled one after the other for up to {:?} each, take longer than the broker's consumer time-out of {:?}; set prefetch to {most} or less, or shorten the time-out",
            attributes.actor, effective.prefetch, effective.timeout, config.consumer_timeout
        ));
    }
    if attributes.ordered && entry.replicas > 1 {
        problems.push(format!(
            "{} is ordered, so that only one of its {} replicas would ever work; leave `replicas` out",
            attributes.actor, entry.replicas
        ));
    }
    let guarded = entry.handlers.iter().find(|listed| listed.spec.permission.is_some());
    if let Some(listed) = guarded.filter(|_| app.middleware.is_empty() && entry.middleware.is_empty()) {
        problems.push(format!(
            "{} asks for a permission, but no middleware checks it; add `.middleware(Authorization::new(…))`",
            listed.spec
        ));
    }
}

fn conflict(first: &HandlerSpec, second: &HandlerSpec) -> String {
    format!("two handlers for {} {:?}: {first} and {second}", first.kind, second.key)
}

/// A command or query key has one handler in an app; a channel has one per service.
fn check_keys(app: &App, problems: &mut Vec<String>) {
    let mut seen: HashMap<(Kind, &str, &str), (HandlerSpec, usize)> = HashMap::new();
    for (index, entry) in app.entries.iter().enumerate() {
        for listed in entry.handlers.iter().filter(|listed| listed.spec.kind != Kind::Event) {
            if listed.spec.kind == Kind::Channel && listed.spec.key == CONTROL {
                problems
                    .push(format!("{}: the channel {CONTROL:?} is Postrider's own; give it another name", listed.spec));
            }
            let service = if listed.spec.kind == Kind::Channel { entry.attributes.service } else { "" };
            let key = (listed.spec.kind, service, listed.spec.key);
            // The actor's own table reports conflicts within one actor.
            match seen.get(&key) {
                Some((other, at)) if *at != index => problems.push(conflict(other, &listed.spec)),
                Some(_) => {}
                None => {
                    seen.insert(key, (listed.spec, index));
                }
            }
        }
    }
}

fn check_domains(app: &App, problems: &mut Vec<String>) {
    let mut owners: HashMap<&str, &str> = HashMap::new();
    for entry in &app.entries {
        let service = entry.attributes.service;
        for &domain in entry.attributes.domains {
            let owner = *owners.entry(domain).or_insert(service);
            if owner != service {
                problems.push(format!(
                    "services {owner:?} and {service:?} both want to own the domain {domain:?}; only one can"
                ));
            }
        }
    }
}

fn check_queues(app: &App, problems: &mut Vec<String>) {
    for (index, entry) in app.entries.iter().enumerate() {
        if let Some(other) = app.entries[..index].iter().find(|other| other.name() == entry.name()) {
            problems.push(format!(
                "actors {} and {} use the same queue {:?}; give one of them `queue = \"…\"`",
                other.attributes.actor,
                entry.attributes.actor,
                entry.name()
            ));
        }
    }
}
