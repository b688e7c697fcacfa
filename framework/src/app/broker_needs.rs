//! Compares what the actors need with what the broker can do.

use crate::app::builder::App;
use crate::app::config::Config;
use crate::app::entry::Entry;
use crate::broker::{Capabilities, Need};
use crate::handler::Lane;
use crate::message::Kind;

/// The capabilities that the broker lacks for these actors, one line each with actor, handler, capability and broker.
pub(super) fn lacking(app: &App, config: &Config, capabilities: &Capabilities, broker: &str) -> Vec<String> {
    let needs = app.entries.iter().flat_map(|entry| needs(entry, config));
    let unmet = needs.filter(|needed| !capabilities.meet(needed.need));
    unmet
        .map(|Needed { whose, need }| format!("{whose} needs {need}, which the broker at {broker} does not have"))
        .collect()
}

struct Needed {
    /// The actor, or one of its handlers.
    whose: String,
    need: Need,
}

fn needs(entry: &Entry, config: &Config) -> Vec<Needed> {
    let attributes = &entry.attributes;
    let of_actor = |need| Needed { whose: format!("{} ({})", attributes.actor, entry.name()), need };
    // What no handler of this build takes waits for one that does.
    let mut needs = vec![of_actor(Need::SettleEach), of_actor(Need::Delays(config.skew.pause))];
    needs.extend(attributes.ordered.then(|| of_actor(Need::OneActiveConsumer)));
    needs.extend((!attributes.domains.is_empty()).then(|| of_actor(Need::Claims)));
    // `check` reports a plan that cannot be parsed.
    let policies = entry.policies(config).ok().map(|policies| policies.of_handlers).unwrap_or_default();
    for (index, listed) in entry.handlers.iter().enumerate() {
        let spec = &listed.spec;
        let of_handler = |need| Needed { whose: format!("{}::{spec}", attributes.actor), need };
        needs.extend((spec.kind == Kind::Query).then(|| of_handler(Need::Replies)));
        needs.extend((spec.lane() == Lane::Instance).then(|| of_handler(Need::InstanceQueues)));
        let is_pattern = spec.kind == Kind::Event && spec.key.contains(['*', '#']);
        needs.extend(is_pattern.then(|| of_handler(Need::Patterns)));
        // A failed query is answered at once and never retried.
        let retry = policies.get(index).map(|policy| &policy.retry).filter(|_| spec.kind != Kind::Query);
        needs.extend(retry.and_then(|retry| retry.delays.longest()).map(|longest| of_handler(Need::Delays(longest))));
    }
    needs
}
