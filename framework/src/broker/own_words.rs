//! A topology in one broker's own words, for people to read and for records.

use serde::{Deserialize, Serialize};

use crate::broker::{Source, Subscription, Target, Topology};
use crate::message::{Headers, Kind};

/// What a topology is at a broker, in the broker's own words.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OwnWords {
    /// Claims and sources.
    pub sources: Vec<OwnDeclaration>,
    /// Queues.
    pub queues: Vec<OwnDeclaration>,
    /// Subscriptions.
    pub subscriptions: Vec<OwnSubscription>,
}

/// A claim, a source or a queue at a broker.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnDeclaration {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Its other arguments.
    pub arguments: Headers,
}

/// A subscription at a broker.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnSubscription {
    /// As one line.
    pub line: String,
    /// As recorded, in JSON.
    pub json: String,
}

/// A recorded subscription of a broker without words of its own.
#[derive(Serialize, Deserialize)]
struct Recorded {
    source: String,
    pattern: String,
    /// Without a queue it leads to the taps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    queue: Option<String>,
}

impl OwnWords {
    /// A topology in the words of the port.
    #[must_use]
    pub fn of(topology: &Topology) -> Self {
        let claims = topology.claims.iter().map(|claim| (format!("{} of {}", claim.domain, claim.service), "claim"));
        let sources = topology.sources.iter().map(|source| (source.as_str().to_owned(), "source"));
        let declared = |(name, kind): (String, &'static str)| OwnDeclaration { name, kind, arguments: Headers::new() };
        let queues = topology.queues.iter().map(|queue| (queue.name.clone(), "queue"));
        let subscription = |subscription: &Subscription| {
            let (source, queue) = (subscription.source.as_str(), subscription.queue());
            let pattern = subscription.pattern.clone();
            let line = format!("{source} --{pattern}--> {}", queue.unwrap_or("taps"));
            let recorded = Recorded { source: source.to_owned(), pattern, queue: queue.map(str::to_owned) };
            // Texts can always be written as JSON.
            OwnSubscription { line, json: serde_json::to_string(&recorded).unwrap_or_default() }
        };
        Self {
            sources: claims.chain(sources).map(declared).collect(),
            queues: queues.map(declared).collect(),
            subscriptions: topology.subscriptions.iter().map(subscription).collect(),
        }
    }

    /// The subscription recorded in the port's words, if it is one.
    #[must_use]
    pub fn subscription(json: &serde_json::Value) -> Option<Subscription> {
        let Recorded { source, pattern, queue } = serde_json::from_value(json.clone()).ok()?;
        let others = [Source::Taps, Source::Delays, Source::Due];
        let known = Kind::ALL.into_iter().map(Source::Kind).chain(others).find(|known| known.as_str() == source);
        Some(Subscription { source: known?, pattern, target: queue.map_or(Target::Taps, Target::Queue) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_in_the_words_of_the_port_is_read_again() {
        let subscriptions = vec![
            Subscription::new(Kind::Event, "order.#", "postrider.invoice"),
            Subscription::to_taps(Kind::Command, "invoice.create"),
        ];
        let words = OwnWords::of(&Topology { subscriptions: subscriptions.clone(), ..Topology::default() });
        let read = words.subscriptions.iter().map(|one| serde_json::from_str(&one.json).unwrap());
        let read: Option<Vec<Subscription>> = read.map(|json| OwnWords::subscription(&json)).collect();
        assert_eq!(read, Some(subscriptions));
        assert_eq!(OwnWords::subscription(&serde_json::json!({ "source": "postrider.event" })), None);
    }
}
