//! Finds the queues for a message, from its exchange and through other exchanges.

use std::collections::BTreeSet;

use foldhash::HashMap;
use postrider_grammar::matches;

use crate::adapter::amqp::{Destination, Exchange, ExchangeKind};

/// Exchanges by name.
pub(super) type Exchanges = HashMap<String, ExchangeState>;

pub(super) struct ExchangeState {
    pub(super) declared: Exchange,
    pub(super) bindings: BTreeSet<(String, Destination)>,
}

/// The queues that take a message, sorted and without duplicates.
pub(super) fn queues_for<'a>(exchanges: &'a Exchanges, exchange: &'a str, key: &str) -> Vec<&'a str> {
    let mut queues = Vec::new();
    // Each exchange is visited once, so that a circle of exchanges ends.
    let (mut known, mut visited) = (vec![exchange], 0);
    while let Some(name) = known.get(visited).copied() {
        visited += 1;
        let Some(exchange) = exchanges.get(name) else { continue };
        let mut taken = false;
        for (pattern, destination) in &exchange.bindings {
            let takes = match exchange.declared.kind {
                ExchangeKind::Direct => pattern == key,
                ExchangeKind::Topic => matches(pattern, key),
                ExchangeKind::Fanout => true,
            };
            taken |= takes;
            match destination {
                Destination::Queue(queue) if takes => queues.push(queue.as_str()),
                Destination::Exchange(next) if takes && !known.contains(&next.as_str()) => known.push(next),
                Destination::Queue(_) | Destination::Exchange(_) => {}
            }
        }
        let alternate = exchange.declared.arguments.text("alternate-exchange");
        if let Some(alternate) = alternate.filter(|alternate| !taken && !known.contains(alternate)) {
            known.push(alternate);
        }
    }
    queues.sort_unstable();
    queues.dedup();
    queues
}
