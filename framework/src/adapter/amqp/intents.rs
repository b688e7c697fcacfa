//! Translates the port's topology into RabbitMQ's declarations, and bindings back into subscriptions. Pure.

use crate::adapter::amqp::declaration::{Binding, Declaration, DeclaredQueue, Destination, Exchange, ExchangeKind};
use crate::adapter::amqp::levels::{delay_levels, return_key};
use crate::broker::{Claim, Names, Source, Subscription, Target, Topology, due_topology};
use crate::message::Kind;

impl Declaration {
    /// RabbitMQ's declaration of a topology.
    pub(crate) fn of(topology: &Topology, names: &Names) -> Self {
        let mut declaration = Self {
            exchanges: topology.claims.iter().map(|claim| claiming(claim, names)).collect(),
            queues: topology.queues.iter().map(DeclaredQueue::of).collect(),
            bindings: Vec::new(),
        };
        for source in &topology.sources {
            match source {
                Source::Delays => {
                    declaration.extend(Self::of(&due_topology(names), names));
                    declaration.extend(delay_levels(names));
                }
                source => declaration.exchanges.push(exchange(*source, names)),
            }
        }
        declaration.bindings.extend(topology.subscriptions.iter().map(|subscription| binding(subscription, names)));
        declaration
    }
}

/// The exchange that claims a domain. Only the owner can declare it, because its arguments name the owner.
fn claiming(claim: &Claim, names: &Names) -> Exchange {
    Exchange::new(names.domain(&claim.domain), ExchangeKind::Fanout)
        .with("alternate-exchange", names.owner(&claim.service))
}

/// The exchange that subscriptions take messages from.
fn exchange(source: Source, names: &Names) -> Exchange {
    let name = source_name(source, names);
    match source {
        Source::Kind(Kind::Event) | Source::Taps | Source::Delays => Exchange::new(name, ExchangeKind::Topic),
        Source::Kind(_) => Exchange::new(name, ExchangeKind::Direct),
        Source::Due => Exchange::new(name, ExchangeKind::Fanout),
    }
}

fn source_name(source: Source, names: &Names) -> String {
    match source {
        Source::Kind(kind) => names.exchange(kind).to_string(),
        Source::Taps => names.tap(),
        Source::Delays => names.delay_out(),
        Source::Due => names.due(),
    }
}

/// RabbitMQ's binding for a subscription.
pub(crate) fn binding(subscription: &Subscription, names: &Names) -> Binding {
    let routing_key = match subscription.source {
        Source::Delays => return_key(names, &subscription.pattern),
        _ => subscription.pattern.clone(),
    };
    let destination = match &subscription.target {
        Target::Queue(queue) => Destination::Queue(queue.clone()),
        Target::Taps => Destination::Exchange(names.tap()),
    };
    Binding { source: source_name(subscription.source, names), routing_key, destination }
}

/// The subscription that a binding stands for; `None` if it stands for none.
pub(crate) fn subscription(binding: &Binding, names: &Names) -> Option<Subscription> {
    let source = match names.kind_of(&binding.source) {
        Some(kind) => Source::Kind(kind),
        None if binding.source == names.tap() => Source::Taps,
        None if binding.source == names.due() => Source::Due,
        None => return None,
    };
    let target = match &binding.destination {
        Destination::Queue(queue) => Target::Queue(queue.clone()),
        Destination::Exchange(exchange) if *exchange == names.tap() => Target::Taps,
        Destination::Exchange(_) => return None,
    };
    Some(Subscription { source, pattern: binding.routing_key.clone(), target })
}
