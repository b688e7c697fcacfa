//! Messages that may end the process which handles them.
//!
//! The broker counts how often a message was delivered without being settled. It counts every message that a process held when it
//! died, and also those that an orderly stop gives back. So the count is only a suspicion. A suspect is handled alone in its
//! lane. Before it begins, a note is made of it: one more in the registry's count `{queue}.suspects.{id}`. The note is removed
//! when handling ends in any way except with the process. The whole count is forgotten when the message was handled. So the notes
//! that remain are processes that died, and only those condemn a message.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::broker::{Broker, BrokerError};
use crate::message::is_logged;

/// A message is a suspect after this number of deliveries without an outcome.
pub(super) const SUSPECTED_AFTER: u32 = 3;
/// A suspect that ended its process this many times while handled alone is given up.
const CONDEMNED_AFTER: u64 = 3;
/// How long unused notes of a suspect are kept: a week.
const UNUSED_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);
/// How long a suspect waits for another suspect of its process. Then it begins beside it, without a note.
const TURN_TIMEOUT: Duration = Duration::from_secs(60);
/// The first pauses between tries to remove a note. After them its message is settled all the same.
const FIRST_PAUSES: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(10)];
/// The pause between further tries, until the app stops: a note that stays counts as a death.
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// The suspects of one process. Of those that have ended a process before, only one is handled at a time, so that none is charged
/// with another's crash.
#[derive(Debug, Clone)]
pub struct Suspects(Arc<Semaphore>);

impl Default for Suspects {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

/// The notes about suspects of one queue.
#[derive(Clone)]
pub(super) struct Notes {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) suspects: Suspects,
    /// The queue that the suspects come from.
    pub(super) of: Arc<str>,
    /// Fires when nothing new is to be started. The removal of a note is then tried a few times, and no longer.
    pub(super) stopping: CancellationToken,
    /// Fires when the app drops running handlers. The removal of a note is then tried once more.
    pub(super) abandon: CancellationToken,
}

/// A suspect whose turn it is.
pub(super) struct Cleared {
    pub(super) run: AloneRun,
    /// Whether it has ended its process too often.
    pub(super) condemned: bool,
}

impl Notes {
    /// Notes that a suspect begins. A suspect that has ended a process before first waits until no other such suspect is handled
    /// here. A suspect begins even if its note cannot be written: no message is condemned without notes. `None` if the app stops
    /// before that. A note that is being written is waited for, so that it can be removed.
    pub(super) async fn begin(&self, suspect: &str) -> Option<Cleared> {
        let name = format!("{}.suspects.{suspect}", self.of);
        let before = async {
            let deaths = self.broker.registry().count(&name).await;
            let turn = match deaths {
                Ok(1..) => timeout(TURN_TIMEOUT, Arc::clone(&self.suspects.0).acquire_owned()).await,
                _ => return (deaths, None),
            };
            (deaths, turn.ok().and_then(Result::ok))
        };
        let (deaths, turn) = tokio::select! {
            biased;
            () = self.stopping.cancelled() => return None,
            before = before => before,
        };
        let condemned = deaths.as_ref().is_ok_and(|deaths| *deaths >= CONDEMNED_AFTER);
        // Beside another suspect it must not be charged with what that one does.
        let is_noted = !condemned && (turn.is_some() || matches!(deaths, Ok(0)));
        let noted = match deaths {
            Ok(_) if !is_noted => Ok(()),
            Ok(_) => self.broker.registry().count_one(&name, UNUSED_FOR).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &noted
            && is_logged("a suspected message cannot be noted", &self.of)
        {
            tracing::error!(
                note = name,
                %error,
                "a message may have ended the processes that handled it, and that it begins cannot be written down: it will not be given up"
            );
        }
        // A note is also removed if nobody knows whether it was written: too few notes condemn nothing.
        let may_be_noted = is_noted || noted.is_err();
        let run = AloneRun { notes: self.clone(), name, may_be_noted, turn };
        Some(Cleared { run, condemned })
    }
}

/// A suspect that is handled alone. If the process dies, its note stays.
pub(super) struct AloneRun {
    notes: Notes,
    name: String,
    may_be_noted: bool,
    /// Keeps other suspects of the process waiting.
    turn: Option<OwnedSemaphorePermit>,
}

impl AloneRun {
    /// The process lives, so the note is removed, however long that takes. A message that was handled to its end is no longer a
    /// suspect. `then` is called when the note is gone, or could not be removed for a while.
    pub(super) async fn end(mut self, handled: bool, then: impl FnOnce()) {
        if !handled && !self.may_be_noted {
            return then();
        }
        let (mut pauses, mut then) = (FIRST_PAUSES.into_iter(), Some(then));
        while let Err(error) = self.remove(handled).await {
            let pause = pauses.next();
            let stops = pause.is_none() && self.notes.stopping.is_cancelled();
            let gives_up = stops || self.notes.abandon.is_cancelled() || error.is_permanent();
            if (gives_up || pause.is_none())
                && let Some(then) = then.take()
            {
                tracing::warn!(
                    note = self.name,
                    %error,
                    "the note of a suspected message cannot be removed; if this process ends before, it counts as one that died with the message"
                );
                then();
                self.turn = None;
            }
            if gives_up {
                return;
            }
            tokio::select! {
                biased;
                () = self.notes.abandon.cancelled() => {}
                () = self.notes.stopping.cancelled(), if pause.is_none() => {}
                () = sleep(pause.unwrap_or(LAST_PAUSE)) => {}
            }
        }
        if let Some(then) = then {
            then();
        }
    }

    async fn remove(&self, handled: bool) -> Result<(), BrokerError> {
        let registry = self.notes.broker.registry();
        if handled { registry.forget_count(&self.name).await } else { registry.uncount_one(&self.name).await }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::broker::double::Double;

    fn notes(double: &Arc<Double>) -> Notes {
        let broker = Arc::clone(double) as Arc<dyn Broker>;
        let [stopping, abandon] = [(); 2].map(|()| CancellationToken::new());
        Notes { broker, suspects: Suspects::default(), of: "postrider.alpha".into(), stopping, abandon }
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_who_may_not_declare_condemns_nobody() {
        let double = Double::new();
        double.forbids.store(true, Ordering::Release);
        for _ in 0..10 {
            let Some(cleared) = notes(&double).begin("it").await else { panic!("it does not begin") };
            assert!(!cleared.condemned, "nothing is known of it");
            cleared.run.end(false, || {}).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn three_notes_of_processes_that_died_condemn_a_message() {
        let double = Double::new();
        for (deaths, condemned) in [(0, false), (2, false), (3, true), (4, true)] {
            double.ready.store(deaths, Ordering::Release);
            let Some(cleared) = notes(&double).begin("it").await else { panic!("it does not begin") };
            assert_eq!(cleared.condemned, condemned, "after {deaths}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspect_that_begins_beside_another_one_is_not_charged_with_what_that_one_does() {
        let double = Double::new();
        double.ready.store(1, Ordering::Release);
        let notes = notes(&double);
        let Some(first) = notes.begin("first").await else { panic!("it does not begin") };
        assert_eq!(double.declares.load(Ordering::Acquire), 1, "its note");
        let began = tokio::time::Instant::now();
        let Some(second) = notes.begin("second").await else { panic!("it does not begin") };
        assert!(began.elapsed() >= TURN_TIMEOUT && !second.condemned);
        assert_eq!(double.declares.load(Ordering::Acquire), 1, "a note of the second one");
        drop(first);
        let Some(_third) = notes.begin("third").await else { panic!("it does not begin") };
        assert_eq!(double.declares.load(Ordering::Acquire), 2, "it is alone, so it has a note");
    }

    #[tokio::test(start_paused = true)]
    async fn a_note_is_removed_however_long_the_broker_is_away_and_its_message_is_settled_meanwhile() {
        let double = Double::new();
        let notes = notes(&double);
        let Some(cleared) = notes.begin("it").await else { panic!("it does not begin") };
        // It stands, and cannot be taken.
        double.ready.store(1, Ordering::Release);
        let (settle, settled) = tokio::sync::oneshot::channel();
        let ending = tokio::spawn(cleared.run.end(false, move || assert_eq!(settle.send(()), Ok(()))));
        assert_eq!(settled.await, Ok(()));
        sleep(Duration::from_secs(3_600)).await;
        assert!(!ending.is_finished(), "it gave up");
        double.ready.store(0, Ordering::Release);
        timeout(2 * LAST_PAUSE, ending).await.expect("it does not end").expect("it panicked");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_does_not_wait_for_a_note_that_could_not_be_removed_for_a_while() {
        let double = Double::new();
        let notes = notes(&double);
        let Some(cleared) = notes.begin("it").await else { panic!("it does not begin") };
        double.ready.store(1, Ordering::Release);
        let ending = tokio::spawn(cleared.run.end(false, || {}));
        sleep(Duration::from_secs(3_600)).await;
        assert!(!ending.is_finished(), "it gave up before the stop");
        notes.stopping.cancel();
        // One last try, which waits for the message that it cannot take.
        timeout(2 * LAST_PAUSE, ending).await.expect("the stop waits").expect("it panicked");
    }
}
