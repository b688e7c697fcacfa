//! Counts handled messages, and measures from the first to the last.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::measured::{Latency, Measured, Meter};
use crate::work::Work;

/// What a consumer has handled. All handlers call it from one thread, so its lock is never contended.
#[derive(Debug)]
pub struct Tally {
    expected: u64,
    timed: bool,
    seen: Mutex<Seen>,
    all: Notify,
}

#[derive(Debug, Default)]
struct Seen {
    handled: u64,
    meter: Option<Meter>,
    ages: Vec<u64>,
    measured: Option<Measured>,
}

impl Tally {
    /// Ends after this many messages. With `timed` it records how long each took to arrive.
    #[must_use]
    pub fn new(expected: u64, timed: bool) -> Self {
        Self { expected, timed, seen: Mutex::default(), all: Notify::new() }
    }

    /// Counts a message.
    pub fn count(&self, work: &Work) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.handled += 1;
        // The first tenth is not timed: it includes the time that a queue takes to wake up.
        if self.timed && seen.handled > self.expected / 10 {
            seen.ages.push(work.age());
        }
        if seen.meter.is_none() {
            seen.meter = Some(Meter::start());
        }
        if seen.handled == self.expected {
            let latency = Latency::of(std::mem::take(&mut seen.ages));
            // The first message only starts the meter and is not counted.
            seen.measured = seen.meter.as_ref().map(|meter| meter.stop(self.expected - 1, latency));
            self.all.notify_one();
        }
    }

    /// Waits for the last message.
    pub async fn measured(&self) -> Measured {
        loop {
            let told = self.all.notified();
            if let Some(measured) = self.seen.lock().unwrap_or_else(PoisonError::into_inner).measured.take() {
                return measured;
            }
            told.await;
        }
    }
}
