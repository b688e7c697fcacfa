//! Runs apps under test on an in-process broker.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::adapter::in_process::InProcess;
use crate::app::{App, Running};
use crate::bus::explain::NOBODY;
use crate::bus::{Bus, RequestError, SendError, Stats};
use crate::codec::{self, Limits};
use crate::inbound::CONTROL;
use crate::message::{Command, Contract, Envelope, Event, Kind, MessageId, Request};

/// How long a cascade may take to become quiet, on the test's clock.
const QUIET_TIMEOUT: Duration = Duration::from_secs(120);
/// How long `settled` waits for the outboxes of stores, in real time.
const OUTBOX_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause between two looks into the outboxes.
const OUTBOX_PAUSE: Duration = Duration::from_millis(1);

/// Apps under test on one in-process broker. They run on the test's own thread, so that the clock can be paused.
/// Neither file nor environment is read.
///
/// Runs inside [`run`](crate::testing::run) or `#[postrider::test]`.
pub struct TestApp {
    broker: InProcess,
    running: Vec<Running>,
    log: Log,
}

/// All messages sent, in order: by the test, by handlers, as replies, as dead letters.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<Envelope>>>);

impl Log {
    /// All messages.
    #[must_use]
    pub fn all(&self) -> Vec<Envelope> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The keys of all commands, events, queries and channel messages.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let sent = self.all().into_iter().filter(|envelope| envelope.kind != Kind::Reply);
        sent.map(|envelope| envelope.key.to_string()).collect()
    }
}

impl TestApp {
    /// Starts an app.
    ///
    /// # Panics
    /// When it does not start; the text lists the problems.
    pub async fn start(app: App) -> Self {
        Self::start_all([app]).await
    }

    /// Starts several apps on the same broker, one after the other.
    ///
    /// # Panics
    /// When one does not start; the text lists the problems.
    pub async fn start_all(apps: impl IntoIterator<Item = App>) -> Self {
        let (broker, log) = (InProcess::new(), Log::default());
        let sink = log.clone();
        broker.observe(Arc::new(move |addressed| sink.add(addressed)));
        let mut running = Vec::new();
        for app in apps {
            match app.broker(broker.clone()).start_here().await {
                Ok(app) => running.push(app),
                Err(error) => panic!("the app under test does not start:\n{error}"),
            }
        }
        log.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
        Self { broker, running, log }
    }

    /// The bus of the first app.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        self.running[0].bus()
    }

    /// The apps, in their starting order.
    #[must_use]
    pub fn running(&self) -> &[Running] {
        &self.running
    }

    /// The broker.
    #[must_use]
    pub fn broker(&self) -> &InProcess {
        &self.broker
    }

    /// Sends a command.
    ///
    /// # Errors
    /// As [`Bus::send`].
    pub async fn send<M: Command + Serialize>(&self, command: &M) -> Result<MessageId, SendError> {
        self.bus().send(command).await
    }

    /// Publishes an event of any domain, whoever owns it.
    ///
    /// # Errors
    /// As [`Bus::publish`].
    pub async fn publish<M: Event + Serialize>(&self, event: &M) -> Result<MessageId, SendError> {
        self.bus().publish_with(event, crate::bus::Options::as_owner).await
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// As [`Bus::request`].
    pub async fn request<M>(&self, message: &M) -> Result<M::Reply, RequestError>
    where
        M: Request + Serialize,
        M::Reply: DeserializeOwned,
    {
        self.bus().request(message).await
    }

    /// The messages of one type that were sent, in order, whoever sent them.
    ///
    /// # Panics
    /// When a message with this type's key has another payload type.
    #[must_use]
    pub fn published<M: Contract + DeserializeOwned>(&self) -> Vec<M> {
        let of_type = |envelope: &Envelope| envelope.kind == M::KIND && envelope.key.as_str() == M::KEY;
        let decode = |envelope: Envelope| match codec::decode_content(&envelope, &Limits::default()) {
            Ok(message) => message,
            Err(error) => panic!("{} {:?} was sent with another payload: {error}", M::KIND, M::KEY),
        };
        self.log.all().into_iter().filter(of_type).map(decode).collect()
    }

    /// Everything sent since the apps started.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The dead letters, with the reason in `postrider-dead-…`.
    #[must_use]
    pub fn dead_letters(&self) -> Vec<Envelope> {
        let is_dead = |envelope: &Envelope| envelope.headers.get("postrider-dead-reason").is_some();
        self.log.all().into_iter().filter(is_dead).collect()
    }

    /// The counters of the first app; `running()` has the others.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.running[0].stats()
    }

    /// Waits until the whole cascade is quiet: every message is handled, and so is every message that it caused, also those that
    /// leave by the outbox of a store. It does not wait for delayed messages or attempts: let their time pass, which takes no real
    /// time with a paused clock; nor longer than 5 s for a message of an outbox that no service takes.
    ///
    /// # Panics
    /// When it is not quiet after two minutes on the test's clock.
    pub async fn settled(&self) {
        let begin = std::time::Instant::now();
        loop {
            let relayed = self.relayed();
            if tokio::time::timeout(QUIET_TIMEOUT, self.broker.quiet()).await.is_err() {
                panic!("not quiet after {QUIET_TIMEOUT:?}: {:?}; sent so far: {:?}", self.stats(), self.log.keys());
            }
            let is_over = !self.has_unsent().await && self.relayed() == relayed;
            if is_over || begin.elapsed() > OUTBOX_TIMEOUT {
                return;
            }
            tokio::time::sleep(OUTBOX_PAUSE).await;
        }
    }

    /// How many messages have left an outbox.
    fn relayed(&self) -> u64 {
        self.running.iter().map(|app| app.stats().relayed).sum()
    }

    async fn has_unsent(&self) -> bool {
        for app in &self.running {
            if app.health.has_unsent().await {
                return true;
            }
        }
        false
    }

    /// Pauses the clock: from now on time only passes when every task waits for it, and then immediately.
    pub fn pause_clock(&self) {
        tokio::time::pause();
    }

    /// Moves a paused clock forward.
    pub async fn advance(&self, time: Duration) {
        tokio::time::advance(time).await;
    }

    /// Stops the apps.
    pub async fn stop(self) {
        for app in &self.running {
            app.stop().await;
        }
    }
}

impl Log {
    fn add(&self, envelope: Envelope) {
        // Messages of the framework itself: those of `App::needs`, and the question that finds out why no service took
        // a message.
        let asks_for_owner = envelope.recipients.iter().any(|name| name.as_str() == NOBODY);
        if asks_for_owner || envelope.key.as_str() == CONTROL {
            return;
        }
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(envelope);
    }
}
