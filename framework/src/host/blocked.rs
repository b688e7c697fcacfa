//! Logs the handler that blocks an arbiter. Blocking code cannot be interrupted, but it can be named.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::handler::HandlerSpec;
use crate::message::tell_what_was_left_out;

/// How long an arbiter may be silent before it counts as blocked.
const BLOCKED_AFTER: Duration = Duration::from_secs(1);
/// How often an arbiter shows that it is alive.
const BEAT: Duration = Duration::from_millis(200);

/// Where a handler is defined.
#[derive(Clone, Copy)]
struct Place {
    method: &'static str,
    file: &'static str,
    line: u32,
}

/// One arbiter thread as seen from outside.
pub struct ArbiterWatch {
    name: String,
    started: Instant,
    /// The last sign of life, in milliseconds since `started`.
    last_beat: AtomicU64,
    running: Mutex<Option<Place>>,
    reported: AtomicBool,
}

impl ArbiterWatch {
    /// A watch on the arbiter of this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            started: Instant::now(),
            last_beat: AtomicU64::new(0),
            running: Mutex::new(None),
            reported: AtomicBool::new(false),
        })
    }

    /// Shows signs of life until it is dropped; runs on the arbiter.
    pub async fn beat(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(BEAT);
        loop {
            ticks.tick().await;
            let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
            self.last_beat.store(now, Ordering::Relaxed);
            self.reported.store(false, Ordering::Relaxed);
        }
    }

    /// Records the handler while its future is polled.
    pub(super) fn watched<F: Future + Unpin>(&self, spec: &HandlerSpec, future: F) -> Watched<'_, F> {
        let HandlerSpec { method, file, line, .. } = *spec;
        Watched { watch: self, place: Place { method, file, line }, future }
    }

    fn set_running(&self, place: Option<Place>) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }

    fn report_if_blocked(&self) {
        let silent =
            self.started.elapsed().saturating_sub(Duration::from_millis(self.last_beat.load(Ordering::Relaxed)));
        if silent < BLOCKED_AFTER || self.reported.swap(true, Ordering::Relaxed) {
            return;
        }
        let running = *self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let shown = |Place { method, file, line }: Place| format!("{method} ({file}:{line})");
        let handler = running.map_or_else(|| "no handler".to_owned(), shown);
        tracing::warn!(arbiter = %self.name, %handler, silent_ms = silent.as_millis() as u64,
            "an arbiter is blocked: nothing else on this thread runs; move blocking work to `tokio::task::spawn_blocking`");
    }
}

/// A handler's future. The watch knows the handler while it is polled.
pub(super) struct Watched<'a, F> {
    watch: &'a ArbiterWatch,
    place: Place,
    future: F,
}

impl<F: Future + Unpin> Future for Watched<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.watch.set_running(Some(self.place));
        let polled = Pin::new(&mut self.future).poll(cx);
        self.watch.set_running(None);
        polled
    }
}

/// The thread that watches all arbiters of an app. Dropping this ends it.
pub struct Watchdog {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts watching.
    ///
    /// # Errors
    /// When the system cannot start a thread.
    pub fn start(watches: Vec<Arc<ArbiterWatch>>) -> std::io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("postrider-watchdog".into()).spawn(move || {
            while !stopped.load(Ordering::Acquire) {
                watches.iter().for_each(|watch| watch.report_if_blocked());
                tell_what_was_left_out();
                std::thread::park_timeout(BEAT);
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // The thread runs no foreign code that could have panicked, and holds no lock.
            let _ = thread.join();
        }
    }
}
