//! A topology in the words of one broker, for people to read.

use serde::{Deserialize, Serialize};

use crate::broker::{Source, Subscription, Target, Topology};
use crate::message::{Headers, Kind};

/// What stands for a topology at a broker, in the broker's own words, for people and for what is recorded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OwnWords {
    /// What claims and sources are.
    pub sources: Vec<OwnDeclaration>,
    /// What queues are.
    pub queues: Vec<OwnDeclaration>,
    /// What subscriptions are.
    pub subscriptions: Vec<OwnSubscription>,
}

/// What a claim, a source or a queue is at a broker.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnDeclaration {
    /// Its name.
    pub name: String,
    /// Of which kind it is.
    pub kind: &'static str,
    /// What else it was declared with.
    pub arguments: Headers,
}

/// What a subscription is at a broker.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnSubscription {
    /// In one line.
    pub line: String,
    /// As it is recorded: JSON.
    pub json: String,
}

/// A subscription as it is recorded where the broker has no words of its own.
#[derive(Serialize, Deserialize)]
struct Recorded {
    source: String,
    pattern: String,
    /// None leads to the taps.
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
            // Texts alone always can.
            OwnSubscription { line, json: serde_json::to_string(&recorded).unwrap_or_default() }
        };
        Self {
            sources: claims.chain(sources).map(declared).collect(),
            queues: queues.map(declared).collect(),
            subscriptions: topology.subscriptions.iter().map(subscription).collect(),
        }
    }

    /// The subscription that was recorded in the words of the port, if it is one.
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
