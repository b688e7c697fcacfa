//! The addresses whose messages are not taken right now, and when each is tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::message::is_logged;
use crate::supervise::Backoff;

/// How long a message may find no queue before its row is put aside. Its receiver may not have started yet.
const UNROUTABLE_FOR: Duration = Duration::from_secs(600);
/// The first pause before an address is tried again. Each pause doubles, up to `LAST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause before an address is tried again.
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// The most addresses that are held up at once; beyond that everything waits.
const MOST: usize = 1_000;

/// The addresses whose messages are not taken right now.
#[derive(Default)]
pub(super) struct HeldUp(BTreeMap<String, Address>);

struct Address {
    /// Since when each try found no queue.
    unroutable_since: Option<Instant>,
    next: Instant,
    backoff: Backoff,
}

impl HeldUp {
    /// Whether an address is held up, be it that it is to be tried again now.
    pub(super) fn has(&self, address: &str) -> bool {
        self.0.contains_key(address)
    }

    /// The addresses that are not to be tried yet.
    pub(super) fn waiting(&self, now: Instant) -> impl Iterator<Item = String> {
        self.0.iter().filter(move |(_, held)| held.next > now).map(|(address, _)| address.clone())
    }

    /// Whether there are so many that everything waits.
    pub(super) fn are_too_many(&self) -> bool {
        self.0.len() >= MOST
    }

    /// Of the addresses that were to be tried at this time, keeps those that still have messages.
    pub(super) fn keep(&mut self, now: Instant, has_messages: impl Fn(&str) -> bool) {
        self.0.retain(|address, held| held.next > now || has_messages(address));
    }

    /// Forgets all, since another process sends now or nothing is left.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// A message of the address was taken.
    pub(super) fn taken(&mut self, address: &str) {
        self.0.remove(address);
    }

    /// A message of the address found no queue. Returns whether that has lasted too long.
    pub(super) fn unroutable(&mut self, address: &str, reason: &str) -> bool {
        let held = self.try_later(address, reason);
        let since = *held.unroutable_since.get_or_insert_with(Instant::now);
        let is_over = since.elapsed() >= UNROUTABLE_FOR;
        if is_over {
            self.0.remove(address);
        }
        is_over
    }

    /// A message of the address was not taken, though its queue may be there.
    pub(super) fn not_taken(&mut self, address: &str, reason: &str) {
        self.try_later(address, reason).unroutable_since = None;
    }

    /// Tries the address again later. Later messages of the address wait behind the first.
    fn try_later(&mut self, address: &str, reason: &str) -> &mut Address {
        let now = Instant::now();
        let fresh = || Address { unroutable_since: None, next: now, backoff: Backoff::new(FIRST_PAUSE, LAST_PAUSE) };
        let held = self.0.entry(address.to_owned()).or_insert_with(fresh);
        // Several messages of one page may have failed together; that is one try.
        if held.next <= now {
            held.next = now + held.backoff.random();
            held.backoff.grow();
        }
        if is_logged("a message of the outbox is not taken", address) {
            tracing::warn!(address, reason, "a message of the outbox is not taken; those of its address wait");
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, pause};

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.map(|runtime| runtime.block_on(test)).unwrap_or_default();
    }

    #[test]
    fn a_message_is_given_up_after_it_found_no_queue_for_ten_minutes_on_end() {
        run(async {
            pause();
            let mut held = HeldUp::default();
            assert!(!held.unroutable("a", "none"));
            advance(UNROUTABLE_FOR - Duration::from_secs(1)).await;
            assert!(!held.unroutable("a", "none"));
            held.not_taken("a", "its queue was there and full");
            advance(Duration::from_secs(2)).await;
            assert!(!held.unroutable("a", "none"), "the ten minutes begin again");
            advance(UNROUTABLE_FOR).await;
            assert!(held.unroutable("a", "none"));
            assert!(!held.has("a"));
        });
    }

    #[test]
    fn an_address_without_messages_is_forgotten_and_one_that_waits_is_not() {
        run(async {
            pause();
            let mut held = HeldUp::default();
            held.not_taken("gone", "full");
            advance(LAST_PAUSE).await;
            held.not_taken("waits", "full");
            held.keep(Instant::now(), |_| false);
            assert!(held.has("waits") && !held.has("gone"));
            assert_eq!(held.waiting(Instant::now()).collect::<Vec<_>>(), ["waits"]);
        });
    }
}
