//! Replays dead letters: rate, canary, confirms.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::Instant;

use crate::broker::Receipt;
use crate::bus::RequestError;
use crate::inbound::is_migrating;
use crate::message::Value;
use crate::operate::dead_letters::error::DeadError;
use crate::operate::dead_letters::filter::DeadFilter;
use crate::operate::dead_letters::letter::DeadLetter;
use crate::operate::dead_letters::queues::{DeadLetters, not_moved};
use crate::operate::dead_letters::walk::Walk;
use crate::operate::migrate::POLL_INTERVAL;

/// The attempt number of a message that must not be retried.
const LAST_ATTEMPT: u32 = 1_000_000;
/// How long a failed canary's letter may take to come back.
const RETURN_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the last letter of a window may wait for its turn, well within RabbitMQ's consumer timeout of 30 minutes.
const LONGEST_WINDOW: Duration = Duration::from_secs(600);
/// The most letters that wait for confirms at once.
const BATCH: usize = 64;
/// About how many bytes of letters wait for confirms at once.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// The lowest rate, about one letter a year. The clock can still count it.
const SLOWEST: f64 = 1.0 / (366.0 * 86_400.0);

/// How dead letters are replayed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Replay {
    /// The most letters per second. Default: no limit.
    pub rate: Option<f64>,
    /// Whether one letter is replayed first, and the others only if it succeeds. Default: no.
    pub canary: bool,
    /// How long the first one may take to be handled, its wait in the queue included. Default: 60 s.
    pub canary_timeout: Duration,
}

impl Default for Replay {
    fn default() -> Self {
        Self { rate: None, canary: false, canary_timeout: Duration::from_secs(60) }
    }
}

/// The result of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Replayed {
    /// How many letters went back to the queues of their actors.
    pub replayed: u64,
    /// How many letters the broker took back because they were held longer than its consumer timeout; they stay.
    pub taken_back: u64,
    /// How many letters were there at the beginning and were not read, because another tool took them or holds them.
    pub not_reached: u64,
    /// Why the first one failed; the others were not touched.
    pub canary_failed: Option<String>,
}

/// The time between two letters at this rate per second; `None` if the rate is invalid.
fn pause_for(rate: f64) -> Option<Duration> {
    let pause = Duration::try_from_secs_f64(1.0 / rate.max(SLOWEST));
    pause.ok().filter(|_| rate > 0.0)
}

/// A selected letter with its receipt.
type Meant = (DeadLetter, Receipt);

/// A replay in progress.
struct Going<'a> {
    letters: &'a DeadLetters,
    filter: &'a DeadFilter,
    how: &'a Replay,
    done: Replayed,
    /// Whether one letter must still be tried before the others.
    canary: bool,
    pause: Option<Duration>,
    next: Instant,
    looked: Instant,
    batch: Vec<Meant>,
}

impl DeadLetters {
    /// Sends letters back to the queues of the actors that gave them up, with the same id, as first attempts. Each is
    /// removed once the broker has confirmed its copy. Letters that arrive meanwhile are not touched.
    ///
    /// # Errors
    /// When the broker cannot be reached, or an actor's queue does not exist; the letters stay.
    pub async fn replay(&self, filter: &DeadFilter, how: &Replay) -> Result<Replayed, DeadError> {
        let now = Instant::now();
        let pause = how.rate.and_then(pause_for);
        let (done, batch) = (Replayed::default(), Vec::new());
        let canary = how.canary;
        let mut going = Going { letters: self, filter, how, done, canary, pause, next: now, looked: now, batch };
        for queue in self.queues_for(filter).await? {
            self.refuse_migrating(&queue).await?;
            let mut walk = Walk::begin(self, &queue).await?;
            walk.slow(going.most_in_time());
            let result = going.walk(&mut walk).await;
            if result.is_ok() && going.done.canary_failed.is_some() {
                walk.stop().await?;
                break;
            }
            let not_reached = walk.left().filter(|_| result.is_ok());
            match (walk.end(result, going.done.replayed).await, not_reached) {
                (Err(DeadError::NotReached { .. }), Some((left, _))) => going.done.not_reached += left,
                (ended, _) => ended?,
            }
        }
        Ok(going.done)
    }

    /// Refuses a queue that is being migrated: it is about to be removed.
    async fn refuse_migrating(&self, queue: &str) -> Result<(), DeadError> {
        for queue in [queue, queue.strip_suffix(".dead").unwrap_or(queue)] {
            if is_migrating(&*self.bus.broker, queue).await? {
                return Err(DeadError::Migrating { queue: queue.to_owned() });
            }
        }
        Ok(())
    }
}

impl Going<'_> {
    /// How many letters can be replayed before the broker would take the last of them back.
    fn most_in_time(&self) -> u16 {
        let turns = self.pause.map_or(u128::MAX, |pause| LONGEST_WINDOW.as_nanos() / pause.as_nanos().max(1));
        u16::try_from(turns).unwrap_or(u16::MAX)
    }

    async fn walk(&mut self, walk: &mut Walk<'_>) -> Result<(), DeadError> {
        // Delayed messages are only published again; no handler could report the result.
        let has_handler = walk.queue != self.letters.names().dead_queue(&self.letters.names().due());
        let mut bytes = 0;
        while let Some((letter, receipt)) = walk.next().await? {
            walk.tell(self.done.replayed);
            if !self.filter.takes(&letter) {
                walk.keep(&letter, receipt).await?;
                continue;
            }
            if !receipt.is_live() {
                // Held so long that the broker took it back. It is still there for the next replay.
                self.done.taken_back += 1;
                continue;
            }
            if has_handler && std::mem::take(&mut self.canary) {
                if let Some(problem) = self.try_first(walk, letter, receipt).await? {
                    self.done.canary_failed = Some(problem);
                    return Ok(());
                }
                self.done.replayed += 1;
                continue;
            }
            bytes += letter.size();
            self.batch.push((letter, receipt));
            if self.pause.is_some() || self.batch.len() >= BATCH || bytes >= BATCH_BYTES {
                bytes = 0;
                self.send(walk).await?;
            }
        }
        self.send(walk).await
    }

    /// Sends the waiting letters in order and removes those whose copies are confirmed.
    async fn send(&mut self, walk: &mut Walk<'_>) -> Result<(), DeadError> {
        let batch = std::mem::take(&mut self.batch);
        if let Some(pause) = self.pause.filter(|_| !batch.is_empty()) {
            tokio::time::sleep_until(self.next).await;
            self.next += pause;
        }
        let mut result = Ok(());
        if self.looked.elapsed() >= POLL_INTERVAL {
            result = self.letters.refuse_migrating(&walk.queue).await;
            self.looked = Instant::now();
        }
        let mut sent = Vec::new();
        if result.is_ok() {
            sent = join_all(batch.iter().map(|(letter, _)| self.letters.forward(letter, letter.revived()))).await;
        }
        let mut sent = sent.into_iter();
        for (letter, receipt) in batch {
            match sent.next() {
                Some(Ok(())) => {
                    walk.done(&letter, receipt);
                    self.done.replayed += 1;
                }
                other => {
                    walk.keep(&letter, receipt).await?;
                    result = result.and(other.unwrap_or(Ok(())));
                }
            }
        }
        walk.flush();
        walk.close_empty().await;
        result
    }

    /// Replays one letter and waits for the result. Returns why it failed.
    async fn try_first(
        &self,
        walk: &mut Walk<'_>,
        letter: DeadLetter,
        receipt: Receipt,
    ) -> Result<Option<String>, DeadError> {
        let mut addressed = letter.revived();
        let envelope = Arc::make_mut(&mut addressed.envelope);
        envelope.attempt = LAST_ATTEMPT;
        let id = envelope.id.clone();
        let (outlet, name) = (&self.letters.bus.outlet, letter.name().to_owned());
        let problem = match outlet.ask(addressed, id.as_str(), letter.key(), self.how.canary_timeout).await {
            Ok(_) => {
                walk.done(&letter, receipt);
                walk.flush();
                return Ok(None);
            }
            Err(RequestError::Send(error)) => {
                walk.keep(&letter, receipt).await?;
                return Err(not_moved(&letter, error));
            }
            // It is in the actor's queue, for the next consumer.
            Err(RequestError::TimedOut { after, .. }) => {
                walk.done(&letter, receipt);
                return Ok(Some(format!("{name} was not handled within {after:?}; it waits in {:?}", letter.home())));
            }
            Err(error) => error.to_string(),
        };
        walk.keep(&letter, receipt).await?;
        // It failed, and its copy may have been given up too, behind all other letters. Then the copy is removed and
        // the original stays.
        let mut until = None;
        loop {
            let patience = if walk.is_through() {
                until.get_or_insert(Instant::now() + RETURN_TIMEOUT).duration_since(Instant::now())
            } else {
                RETURN_TIMEOUT
            };
            let Some((copy, receipt)) = walk.pull(patience).await? else { break };
            let attempts = copy.envelope.headers.get("postrider-dead-attempts");
            if copy.id() == id.as_str() && attempts == Some(&Value::from(i64::from(LAST_ATTEMPT))) {
                walk.done(&copy, receipt);
                break;
            }
            walk.keep(&copy, receipt).await?;
        }
        Ok(Some(format!("{name} failed again and stays: {problem}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn any_rate_is_a_pause_that_the_clock_can_wait(
            rate in prop_oneof![any::<f64>(), 0.001..100_000.0, Just(0.0), Just(f64::MIN_POSITIVE), Just(f64::INFINITY)]
        ) {
            let pause = pause_for(rate);
            prop_assert_eq!(pause.is_some(), rate > 0.0);
            prop_assert!(pause.is_none_or(|pause| pause <= Duration::from_secs(366 * 86_400)));
            if (0.001..100_000.0).contains(&rate) {
                prop_assert!((pause.unwrap_or_default().as_secs_f64() * rate - 1.0).abs() < 0.01);
            }
        }
    }
}
