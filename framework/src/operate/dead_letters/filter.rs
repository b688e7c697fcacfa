//! Selects dead letters.

use std::time::{Duration, SystemTime};

use crate::operate::dead_letters::letter::DeadLetter;

/// Which dead letters to select. An empty filter selects all.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DeadFilter {
    /// Only letters with these addresses or message ids. An id that several letters share selects all of them.
    pub ids: Vec<String>,
    /// Only letters of this service.
    pub service: Option<String>,
    /// Only letters in this dead-letter queue.
    pub queue: Option<String>,
    /// Only letters whose key matches this pattern.
    pub key: Option<String>,
    /// Only letters whose first or last error contains this text.
    pub error: Option<String>,
    /// Only letters with this reason.
    pub reason: Option<String>,
    /// Only letters given up within this time. Excludes letters without a time.
    pub newer_than: Option<Duration>,
    /// Only letters given up longer ago than this. Excludes letters without a time.
    pub older_than: Option<Duration>,
}

impl DeadFilter {
    /// All dead letters.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// The dead letter with this address, or all with this message id.
    #[must_use]
    pub fn id(id: impl Into<String>) -> Self {
        Self { ids: vec![id.into()], ..Self::default() }
    }

    /// The letters of one service.
    #[must_use]
    pub fn service(service: impl Into<String>) -> Self {
        Self { service: Some(service.into()), ..Self::default() }
    }

    /// Whether the filter selects a letter.
    #[must_use]
    pub fn takes(&self, letter: &DeadLetter) -> bool {
        // Without a time the age is unknown.
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
