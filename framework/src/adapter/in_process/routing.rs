//! From an exchange to queues, through other exchanges.

use std::collections::{BTreeSet, HashMap};

use postrider_grammar::matches;

use crate::broker::{Destination, Exchange, ExchangeKind};

pub(super) struct ExchangeState {
    pub(super) declared: Exchange,
    pub(super) bindings: BTreeSet<(String, Destination)>,
}

/// The queues that take a message, each once.
pub(super) fn queues_for(exchanges: &HashMap<String, ExchangeState>, exchange: &str, key: &str) -> BTreeSet<String> {
    let mut queues = BTreeSet::new();
    let mut seen = BTreeSet::new();
    let mut open = vec![exchange.to_owned()];
    // Each exchange is visited once, so that a circle of exchanges ends.
    while let Some(name) = open.pop() {
        let Some(exchange) = exchanges.get(&name) else { continue };
        if !seen.insert(name) {
            continue;
        }
        let before = (queues.len(), open.len());
        for (pattern, destination) in &exchange.bindings {
            let takes = match exchange.declared.kind {
                ExchangeKind::Direct => pattern == key,
                ExchangeKind::Topic => matches(pattern, key),
                ExchangeKind::Fanout => true,
            };
            match destination {
                Destination::Queue(queue) if takes => {
                    queues.insert(queue.clone());
                }
                Destination::Exchange(exchange) if takes => open.push(exchange.clone()),
                Destination::Queue(_) | Destination::Exchange(_) => {}
            }
        }
        let alternate = exchange.declared.arguments.text("alternate-exchange");
        if let Some(alternate) = alternate.filter(|_| (queues.len(), open.len()) == before) {
            open.push(alternate.to_owned());
        }
    }
    queues
}
