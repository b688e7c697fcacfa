use crate::message::Headers;

/// What stands for a topology at a broker, in the broker's own words, for people and for what is recorded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OwnWords {
    /// What claims and sources are.
    pub sources: Vec<OwnSource>,
    /// What queues are.
    pub queues: Vec<OwnQueue>,
    /// What subscriptions are.
    pub subscriptions: Vec<OwnSubscription>,
}

/// What a claim or a source is at a broker.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnSource {
    /// Its name.
    pub name: String,
    /// Of which kind it is.
    pub kind: &'static str,
    /// What else it was declared with.
    pub arguments: Headers,
}

/// What a queue is at a broker.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnQueue {
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
