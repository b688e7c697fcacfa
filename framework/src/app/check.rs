//! What can be known to be wrong before anything is started. All problems at once.

use std::collections::HashMap;

use postrider_grammar::check_service;
use tokio::sync::watch;

use crate::app::builder::App;
use crate::app::config::Config;
use crate::app::entry::Entry;
use crate::handler::{Guarantee, HandlerSpec};
use crate::inbound::CONTROL;
use crate::message::Kind;

/// All problems of an app.
pub(super) fn check(app: &App, config: &Config) -> Vec<String> {
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
    check_keys(app, &mut problems);
    check_domains(app, &mut problems);
    check_queues(app, &mut problems);
    problems
}

/// Settings of actors that are not in this process: fine where several processes share one file, a slip of the pen
/// otherwise.
pub(super) fn warn_of_strangers(app: &App, config: &Config) {
    let names: Vec<String> = app.entries.iter().map(Entry::name).collect();
    for name in config.actors.keys().filter(|name| !names.contains(name)) {
        tracing::warn!(actor = %name, here = ?names, "the configuration speaks of an actor that is not in this process");
    }
}

fn check_entry(app: &App, entry: &Entry, config: &Config, problems: &mut Vec<String>) {
    let attributes = &entry.attributes;
    for (first, second) in &entry.conflicts {
        problems.push(conflict(first, second));
    }
    if attributes.guarantee == Guarantee::EffectivelyOnce {
        problems.push(format!(
            "{} promises effectively_once, which needs a store for its inbox; this version has none, so use at_least_once",
            attributes.actor
        ));
    }
    problems.extend(entry.policies(config).err());
    let effective = entry.effective(config);
    let pace = entry.pace(config, watch::channel(effective.concurrency).1);
    let most = pace.most_prefetch(config.consumer_timeout);
    // Of shared handlers, which nearly never all take the whole time, it is only lowered.
    if pace.exclusive && effective.prefetch_is_explicit && effective.prefetch > most {
        problems.push(format!(
            "{}: {} deliveries held, handled one after the other for up to {:?} each, take longer than the broker's consumer time-out of {:?}; set prefetch to {most} or less, or shorten the time-out",
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

/// One command or query key has one handler in an app; so has a channel of a service.
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
            // Within one actor the table reports it.
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
