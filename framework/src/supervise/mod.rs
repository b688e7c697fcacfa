//! Tasks that live as long as the app. A task that panics is logged with its name, makes the app unready, and is started again.

mod backoff;

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{Instant, sleep};

pub(crate) use backoff::{Backoff, half_by_chance};

/// The first pause before a task is started again; it doubles up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause before a task is started again.
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// A task that has run this long since its last panic counts as healthy.
const HEALTHY_AFTER: Duration = Duration::from_secs(5);

/// The tasks of an app that have panicked and are not healthy again. Clones share one list.
#[derive(Debug, Clone, Default)]
pub struct Tasks(Arc<Mutex<Problems>>);

#[derive(Debug, Default)]
struct Problems {
    /// By a number, because several tasks may have the same name.
    by_task: BTreeMap<u64, String>,
    next: u64,
}

impl Tasks {
    /// The problems, one sentence for each task.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.lock().by_task.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Problems> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entry of one task in the list. It is removed when the task is healthy again or ends, however it ends.
struct Entry<'a> {
    tasks: &'a Tasks,
    number: Option<u64>,
}

impl Entry<'_> {
    fn set(&mut self, problem: String) {
        let mut problems = self.tasks.lock();
        let number = *self.number.get_or_insert_with(|| {
            problems.next += 1;
            problems.next
        });
        problems.by_task.insert(number, problem);
    }

    fn clear(&mut self) {
        if let Some(number) = self.number.take() {
            self.tasks.lock().by_task.remove(&number);
        }
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Runs a task until it ends by itself, and starts it again whenever it panics. If `ended` completes between two runs, the task
/// is not started again and the result is `None`.
pub async fn supervise<T>(
    tasks: Tasks,
    name: String,
    ended: impl Future<Output = ()>,
    mut run: impl AsyncFnMut() -> T,
) -> Option<T> {
    let mut entry = Entry { tasks: &tasks, number: None };
    let mut backoff = Backoff::new(FIRST_PAUSE, LAST_PAUSE);
    tokio::pin!(ended);
    loop {
        let began = Instant::now();
        let panic = match run_once(&mut run, &mut entry).await {
            Ok(done) => return Some(done),
            Err(panic) => panic_text(&*panic).to_owned(),
        };
        if began.elapsed() >= HEALTHY_AFTER {
            backoff.reset();
        }
        tracing::error!(task = name, panic, again_in = ?backoff.pause(), "a task of the framework panicked; it is started again");
        entry.set(format!("{name}: panicked and is started again: {panic}"));
        tokio::select! {
            () = &mut ended => return None,
            () = sleep(backoff.random()) => backoff.grow(),
        }
    }
}

/// One run, until it ends or panics. After [`HEALTHY_AFTER`] the panic before it is forgotten.
async fn run_once<T>(run: &mut impl AsyncFnMut() -> T, entry: &mut Entry<'_>) -> Result<T, Box<dyn Any + Send>> {
    let running = AssertUnwindSafe(run()).catch_unwind();
    tokio::pin!(running);
    if entry.number.is_some() {
        tokio::select! {
            biased;
            ended = &mut running => return ended,
            () = sleep(HEALTHY_AFTER) => entry.clear(),
        }
    }
    running.await
}

/// The text of a panic.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

#[cfg(test)]
mod tests;
