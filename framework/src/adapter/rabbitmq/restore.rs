//! Finds exchanges that were deleted on the broker, and declares the topology again.

use std::collections::BTreeMap;

use futures::future::join_all;
use lapin::Connection;

use crate::adapter::amqp::{Binding, Declaration, Destination, Exchange};
use crate::adapter::rabbitmq::declare;
use crate::adapter::rabbitmq::errors::{code, on_channel};
use crate::broker::BrokerError;

/// The names of those exchanges that do not exist.
pub(super) async fn missing(connection: &Connection, exchanges: &[Exchange]) -> Result<Vec<String>, BrokerError> {
    let channel = declare::channel(connection).await?;
    // Nearly always all exist, so all are asked for at once.
    let looks = join_all(exchanges.iter().map(|exchange| declare::look_at_exchange(&channel, &exchange.name))).await;
    declare::done(&channel).await;
    let mut all_stand = true;
    for look in looks {
        if let Err(error) = look? {
            all_stand = false;
            // One absent exchange closes the channel, so that the other questions fail too. Any code but 404 is a real error.
            if code(&error).is_some_and(|code| code != 404) {
                return Err(on_channel(&error));
            }
        }
    }
    let mut missing = Vec::new();
    for exchange in exchanges.iter().filter(|_| !all_stand) {
        if !declare::exchange_stands(connection, &exchange.name).await? {
            missing.push(exchange.name.clone());
        }
    }
    Ok(missing)
}

/// Declares exchanges and bindings again. Goes on past those that fail, and returns the first error.
pub(super) async fn restore(connection: &Connection, topology: &Declaration) -> Result<(), BrokerError> {
    let lasting = Declaration { queues: Vec::new(), ..topology.clone() };
    let Err(error) = declare::declare(connection, &lasting).await else { return Ok(()) };
    if matches!(error, BrokerError::Lost { .. } | BrokerError::TimedOut { .. } | BrokerError::Stopped) {
        return Err(error);
    }
    let mut first = None;
    let mut note = |result: Result<(), BrokerError>| {
        let failed = result.is_err();
        first = first.take().or(result.err());
        failed
    };
    for exchange in &topology.exchanges {
        let one = Declaration { exchanges: vec![exchange.clone()], ..Declaration::default() };
        note(declare::declare(connection, &one).await);
    }
    let mut by_destination: BTreeMap<&Destination, Vec<Binding>> = BTreeMap::new();
    for binding in &topology.bindings {
        by_destination.entry(&binding.destination).or_default().push(binding.clone());
    }
    for (destination, bindings) in by_destination {
        let bound = Declaration { bindings, ..Declaration::default() };
        let result = match declare::declare(connection, &bound).await {
            // The queue is gone too. A queue that is consumed is declared by its lane.
            Err(absent @ BrokerError::Absent { .. }) => {
                let is_it = |name: &str| matches!(destination, Destination::Queue(queue) if queue == name);
                let queues: Vec<_> = topology.queues.iter().filter(|queue| is_it(&queue.name)).cloned().collect();
                if queues.is_empty() {
                    Err(absent)
                } else {
                    declare::declare(connection, &Declaration { queues, ..bound }).await
                }
            }
            other => other,
        };
        note(result);
    }
    first.map_or(Ok(()), Err)
}
