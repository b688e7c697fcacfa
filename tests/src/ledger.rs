//! The books of a failure scenario: published, confirmed and handled messages.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::world::PATIENCE;
use tokio::time::Instant;

#[derive(Default)]
struct Entry {
    attempted: bool,
    confirmed: bool,
    handled: u32,
    dead: u32,
}

/// Every id that was published, confirmed, handled. Clones are the same ledger.
#[derive(Clone, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<String, Entry>>>);

/// The balance. `lost` and `unexpected` must be 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    /// Ids that were published.
    pub attempted: usize,
    /// Ids that the broker confirmed.
    pub confirmed: usize,
    /// Ids that a handler saw, or that are in a dead-letter queue.
    pub handled: usize,
    /// Runs beyond the first.
    pub duplicated: usize,
    /// Confirmed ids that no handler saw.
    pub lost: usize,
    /// Ids that were seen and never published.
    pub unexpected: usize,
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempted, confirmed, handled, duplicated, lost, unexpected } = self;
        write!(
            f,
            "attempted {attempted} confirmed {confirmed} handled {handled} duplicated {duplicated} lost {lost} unexpected {unexpected}"
        )
    }
}

impl Ledger {
    fn books(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An id is about to be published.
    pub fn attempts(&self, id: &str) {
        self.books().entry(id.to_owned()).or_default().attempted = true;
    }

    /// The broker has confirmed an id.
    pub fn confirms(&self, id: &str) {
        self.books().entry(id.to_owned()).or_default().confirmed = true;
    }

    /// A handler has seen an id.
    pub fn handles(&self, id: &str) {
        self.books().entry(id.to_owned()).or_default().handled += 1;
    }

    /// An id is in a dead-letter queue.
    pub fn buries(&self, id: &str) {
        self.books().entry(id.to_owned()).or_default().dead += 1;
    }

    /// The balance so far.
    #[must_use]
    pub fn balance(&self) -> Balance {
        let mut balance = Balance::default();
        for entry in self.books().values() {
            let seen = entry.handled > 0 || entry.dead > 0;
            balance.attempted += usize::from(entry.attempted);
            balance.confirmed += usize::from(entry.confirmed);
            balance.handled += usize::from(seen);
            balance.duplicated += entry.handled.saturating_sub(1) as usize;
            balance.lost += usize::from(entry.confirmed && !seen);
            balance.unexpected += usize::from(seen && !entry.attempted);
        }
        balance
    }

    /// Waits until no confirmed message is missing, and prints the balance.
    ///
    /// # Panics
    /// When a message stays missing, or one was seen that was never published; the text has the ids.
    pub async fn balanced(&self, scenario: &str) -> Balance {
        let start = Instant::now();
        while self.balance().lost > 0 && start.elapsed() < 2 * PATIENCE {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let balance = self.balance();
        println!("{scenario}: {balance}");
        if balance.lost > 0 || balance.unexpected > 0 {
            let books = self.books();
            let seen = |entry: &Entry| entry.handled > 0 || entry.dead > 0;
            let lost: Vec<&String> =
                books.iter().filter(|(_, entry)| entry.confirmed && !seen(entry)).map(|(id, _)| id).take(20).collect();
            let unexpected: Vec<&String> =
                books.iter().filter(|(_, entry)| !entry.attempted).map(|(id, _)| id).take(20).collect();
            panic!("{scenario}: {balance}; lost {lost:?}; unexpected {unexpected:?}");
        }
        balance
    }
}
