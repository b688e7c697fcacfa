//! Which dead letters are meant.

use std::time::{Duration, SystemTime};

use crate::operate::dead_letters::letter::DeadLetter;

/// Which dead letters are meant. Nothing said is all of them.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DeadFilter {
    /// Only those with these addresses or message ids. An id that several letters have means all of them.
    pub ids: Vec<String>,
    /// Only those of this service.
    pub service: Option<String>,
    /// Only those in this dead-letter queue.
    pub queue: Option<String>,
    /// Only keys that this pattern matches.
    pub key: Option<String>,
    /// Only those whose first or last error has this text.
    pub error: Option<String>,
    /// Only those with this reason.
    pub reason: Option<String>,
    /// Only those given up within this time. One that does not say when is not among them.
    pub newer_than: Option<Duration>,
    /// Only those given up longer ago than this. One that does not say when is not among them.
    pub older_than: Option<Duration>,
}

impl DeadFilter {
    /// All dead letters.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The dead letter with an address, or those with a message id.
    #[must_use]
    pub fn id(id: impl Into<String>) -> Self {
        Self { ids: vec![id.into()], ..Self::default() }
    }

    /// Those of one service.
    #[must_use]
    pub fn service(service: impl Into<String>) -> Self {
        Self { service: Some(service.into()), ..Self::default() }
    }

    /// Whether a letter is meant.
    #[must_use]
    pub fn takes(&self, letter: &DeadLetter) -> bool {
        // Without a time nobody knows how old it is.
        let age = letter.at().map(|at| SystemTime::now().duration_since(at).unwrap_or_default());
        let text = |wanted: &Option<String>, takes: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(takes);
        (self.ids.is_empty() || self.ids.iter().any(|id| letter.is(id)))
            && text(&self.key, &|pattern| {
                postrider_grammar::matches(pattern, letter.key())
                    || letter.key_of_service().is_some_and(|key| postrider_grammar::matches(pattern, key))
            })
            && text(&self.reason, &|reason| letter.reason() == reason)
            && text(&self.error, &|error| letter.error().contains(error) || letter.first_error().contains(error))
            && self.newer_than.is_none_or(|most| age.is_some_and(|age| age <= most))
            && self.older_than.is_none_or(|least| age.is_some_and(|age| age >= least))
    }
}
