use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::app::dead::letter::{DeadFilter, DeadLetter};
use crate::app::dead::letters::{DeadError, DeadLetters, Held, not_moved};
use crate::app::migrate::{LOOK, is_migrating};
use crate::broker::{ATTEMPT, Receipt};
use crate::bus::RequestError;
use crate::message::Value;

/// The attempt of a message that is not to be tried again.
const LAST_ATTEMPT: i64 = 1_000_000;
/// How long the letter of a canary that failed may take to come back.
const RETURN_PATIENCE: Duration = Duration::from_secs(5);

/// The fewest letters per second: about one a year, which the clock can count.
const SLOWEST: f64 = 1.0 / (366.0 * 86_400.0);

/// How dead letters are replayed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Replay {
    /// The most letters per second. Default: no limit.
    pub rate: Option<f64>,
    /// Whether one is replayed first, and the others only if it succeeds. Default: no.
    pub canary: bool,
    /// How long the first one may take to be handled. Default: 60 s.
    pub canary_timeout: Duration,
}

impl Default for Replay {
    fn default() -> Self {
        Self { rate: None, canary: false, canary_timeout: Duration::from_secs(60) }
    }
}

/// What became of a replay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Replayed {
    /// How many letters went back to the queues of their actors.
    pub replayed: u64,
    /// How many letters the broker took back, because they were held for longer than its consumer time-out; they stay.
    pub taken_back: u64,
    /// Why the first one failed; the others were left alone.
    pub canary_failed: Option<String>,
}

/// The time between two letters at so many per second; none for what is no rate.
fn pause_for(rate: f64) -> Option<Duration> {
    let pause = Duration::try_from_secs_f64(1.0 / rate.max(SLOWEST));
    pause.ok().filter(|_| rate > 0.0)
}

impl DeadLetters {
    /// Sends letters back to the queues of the actors that gave them up, with the same id, as first attempts. Each is
    /// removed when the broker has confirmed its copy. Letters that come back meanwhile are left alone.
    ///
    /// # Errors
    /// When the broker cannot be reached, or an actor's queue does not stand; the letters stay.
    pub async fn replay(&self, filter: &DeadFilter, how: &Replay) -> Result<Replayed, DeadError> {
        let mut done = Replayed::default();
        let mut canary = how.canary;
        for queue in self.queues_for(filter).await? {
            self.refuse_migrating(&queue).await?;
            let before = self.bus.broker.inspect(&queue).await?.map_or(0, |state| state.ready);
            let mut looked_at = 0;
            // Bounded by what was there at the beginning, so that letters that come back go round once only.
            while looked_at < before {
                let mut held = self.hold(&queue, filter).await?;
                let meant = std::mem::take(&mut held.meant);
                let (more, count) = (held.more, meant.len() as u64);
                looked_at += count.max(1);
                let result = self.replay_held(&mut held, meant, how, &mut canary, &mut done).await;
                self.put_back(held).await?;
                result?;
                if done.canary_failed.is_some() {
                    return Ok(done);
                }
                if count == 0 || !more {
                    break;
                }
            }
        }
        Ok(done)
    }

    /// A queue that is being migrated is about to be removed.
    async fn refuse_migrating(&self, queue: &str) -> Result<(), DeadError> {
        for queue in [queue, queue.strip_suffix(".dead").unwrap_or(queue)] {
            if is_migrating(&*self.bus.broker, queue).await? {
                return Err(DeadError::Migrating { queue: queue.to_owned() });
            }
        }
        Ok(())
    }

    async fn replay_held(
        &self,
        held: &mut Held,
        meant: Vec<(DeadLetter, Receipt)>,
        how: &Replay,
        canary: &mut bool,
        done: &mut Replayed,
    ) -> Result<(), DeadError> {
        let pause = how.rate.and_then(pause_for);
        let (mut next, mut looked) = (Instant::now(), Instant::now());
        for (letter, receipt) in meant {
            if looked.elapsed() >= LOOK {
                self.refuse_migrating(&letter.queue).await?;
                looked = Instant::now();
            }
            // What is only published again has no handler that could tell how it went.
            let has_handler = letter.queue != self.names().dead_queue(&self.names().due());
            if !receipt.is_live() {
                // Held for so long that the broker took it back: it is still there, for the next replay.
                done.taken_back += 1;
                continue;
            }
            if has_handler && std::mem::take(canary) {
                if let Some(problem) = self.try_first(held, &letter, receipt, how).await? {
                    done.canary_failed = Some(problem);
                    return Ok(());
                }
            } else {
                self.forward(&letter, letter.revived()).await?;
                receipt.ack();
            }
            done.replayed += 1;
            if let Some(pause) = pause {
                next += pause;
                tokio::time::sleep_until(next).await;
            }
        }
        Ok(())
    }

    /// Replays one letter and waits for what becomes of it; why it failed.
    async fn try_first(
        &self,
        held: &mut Held,
        letter: &DeadLetter,
        receipt: Receipt,
        how: &Replay,
    ) -> Result<Option<String>, DeadError> {
        let mut addressed = letter.revived();
        Arc::make_mut(&mut addressed.properties).headers.set(ATTEMPT, LAST_ATTEMPT);
        let asked = self.bus.outlet.ask(addressed, letter.id(), letter.key(), how.canary_timeout).await;
        let problem = match asked {
            Ok(_) => {
                receipt.ack();
                return Ok(None);
            }
            Err(RequestError::Send(error)) => return Err(not_moved(letter, error)),
            // It is in the actor's queue for certain; whoever comes handles it.
            Err(RequestError::TimedOut { after, .. }) => {
                receipt.ack();
                return Ok(Some(format!(
                    "{} was not handled within {after:?}; it waits in {:?}",
                    letter.id(),
                    letter.home()
                )));
            }
            Err(error) => error.to_string(),
        };
        // It failed, and perhaps its copy was given up in turn: then the copy goes, and the original stays.
        let deadline = Instant::now() + RETURN_PATIENCE;
        while let Ok(Some(Ok(delivery))) = timeout_at(deadline, held.consumer.next()).await {
            let copy = DeadLetter::of(&held.queue, &delivery, self.names());
            if copy.id() == letter.id()
                && copy.properties.headers.get("postrider-dead-attempts") == Some(&Value::from(LAST_ATTEMPT))
            {
                delivery.receipt.ack();
                break;
            }
            held.others.push((copy, delivery.receipt));
        }
        drop(receipt);
        Ok(Some(format!("{} failed again and stays: {problem}", letter.id())))
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
