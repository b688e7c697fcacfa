//! The second half of the books: how often each message ran, and which runs are not allowed.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postrider::operate::DeadLetter;

/// The reason of a dead letter that was given up because it was delivered too often without being settled.
const SUSPECTED: &str = "crash_suspected";
/// The most ids that a finding names.
const MOST_NAMED: usize = 10;

/// Why a message may run only once, at its first attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Once {
    /// Only orderly stops affected it.
    Stopped,
    /// Only the refusal of its handler's message affected it.
    SendRefused,
}

#[derive(Default)]
struct Book {
    /// How often a run began, by id and attempt.
    began: HashMap<String, BTreeMap<u32, u32>>,
    /// The runs under way, by process and id.
    under_way: HashSet<(u32, String)>,
    overlapping: BTreeSet<String>,
    once: BTreeMap<String, Once>,
    withdrawn: BTreeSet<String>,
}

/// All runs of all processes. Clones are the same book.
#[derive(Clone, Default)]
pub struct Runs(Arc<Mutex<Book>>);

impl Runs {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A process has begun to run a handler.
    pub fn began(&self, process: u32, id: &str, attempt: u32) {
        let mut book = self.book();
        *book.began.entry(id.to_owned()).or_default().entry(attempt).or_default() += 1;
        if !book.under_way.insert((process, id.to_owned())) {
            book.overlapping.insert(id.to_owned());
        }
    }

    /// A process has ended a run, with any outcome.
    pub fn ended(&self, process: u32, id: &str) {
        self.book().under_way.remove(&(process, id.to_owned()));
    }

    /// A process is gone, and its runs with it.
    pub fn gone(&self, process: u32) {
        self.book().under_way.retain(|(other, _)| *other != process);
    }

    /// From now on no fault may cost this message an attempt or a second run.
    pub fn expects_once(&self, id: &str, why: Once) {
        self.book().once.insert(id.to_owned(), why);
    }

    /// The sender of this message was told that it does not leave.
    pub fn withdraws(&self, id: &str) {
        self.book().withdrawn.insert(id.to_owned());
    }

    /// Whether a message has begun.
    pub fn has_begun(&self, id: &str) -> bool {
        self.book().began.contains_key(id)
    }

    /// The violations, each with its ids. Prints the number of each.
    pub fn findings(&self, letters: &[DeadLetter]) -> Vec<String> {
        let book = self.book();
        let attempts = |id: &String| book.began.get(id).cloned().unwrap_or_default();
        let once = |why: Once| book.once.iter().filter(move |(_, of)| **of == why).map(|(id, _)| id.clone());
        let suspected =
            letters.iter().filter(|letter| letter.reason() == SUSPECTED).map(|letter| letter.id().to_owned());
        let found: [(&str, Vec<String>); 5] = [
            ("overlapping", book.overlapping.iter().cloned().collect()),
            (
                "suspected of a crash without having begun",
                suspected.filter(|id| !book.began.contains_key(id)).collect(),
            ),
            (
                "with an attempt raised by an orderly stop",
                once(Once::Stopped).filter(|id| attempts(id).keys().any(|attempt| *attempt > 1)).collect(),
            ),
            (
                "run again over a send that was refused",
                once(Once::SendRefused).filter(|id| attempts(id).values().sum::<u32>() > 1).collect(),
            ),
            (
                "handled though cancelled before they left",
                book.withdrawn.iter().filter(|id| book.began.contains_key(*id)).cloned().collect(),
            ),
        ];
        let runs: u64 = book.began.values().flat_map(BTreeMap::values).map(|count| u64::from(*count)).sum();
        let counts: Vec<String> = found.iter().map(|(what, ids)| format!("{what} {}", ids.len())).collect();
        println!("runs {runs} of {} messages: {}", book.began.len(), counts.join(", "));
        let shown = |(what, ids): (&str, Vec<String>)| {
            let named: Vec<String> = ids.iter().take(MOST_NAMED).map(|id| format!("{id} {:?}", attempts(id))).collect();
            format!("{} messages {what}: {}", ids.len(), named.join(", "))
        };
        found.into_iter().filter(|(_, ids)| !ids.is_empty()).map(shown).collect()
    }
}
