//! The relay: sends the messages of committed transactions from the outbox, in their order, and removes each once it is confirmed.
//!
//! Of all processes one sends at a time: the holder of a lease in the store. If it is frozen for longer than its lease, another one
//! sends the same messages again, with the same ids.

mod held_up;
mod page;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::broker::ConnectionState;
use crate::bus::relay::held_up::HeldUp;
use crate::bus::relay::page::{PageSend, Sent};
use crate::bus::{Counters, Outlet};
use crate::message::is_logged;
use crate::store::{FaultPoint, News, Outbox, Page, StoreError, StoreHandle, StoredRow, reach};
use crate::supervise::Backoff;

/// The name of the right to send.
const LEASE_NAME: &str = "relay";
/// How long the right to send lasts, by the database's clock.
const LEASE: Duration = Duration::from_secs(10);
/// How long before its end the right to send is prolonged.
const RENEW_BEFORE: Duration = Duration::from_secs(6);
/// The most rows that are read and sent together.
const ROWS: usize = 1_000;
/// The most bytes that are read and sent together.
const BYTES: usize = 4 * 1024 * 1024;
/// The shortest time between two looks that find rows. Under load a look takes many rows, since each look costs as much for one.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// How often confirmed rows are removed while others of their page wait for their confirms.
const REMOVE_EVERY: Duration = Duration::from_millis(100);
/// The first pause before the relay tries again. Each pause doubles, up to `LAST_PAUSE`.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause before the relay tries again.
const LAST_PAUSE: Duration = Duration::from_secs(10);
/// How often the age of the oldest row is asked for while rows wait.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// What the relay of a store needs.
pub struct RelaySettings {
    /// The store.
    pub store: StoreHandle,
    /// What it sends through: a confirm channel of its own.
    pub outlet: Arc<Outlet>,
    /// Whether the broker is there.
    pub connection: watch::Receiver<ConnectionState>,
    /// The name of this process among those that use the store.
    pub holder: String,
    /// How often it looks into the outbox although nobody has woken it. Default: 1 s.
    pub interval: Duration,
    /// How old the oldest message of the outbox may be before the process is not ready. Default: 5 min.
    pub alarm: Duration,
    /// Whether messages are kept for a while after they were sent. Default: no.
    pub keeps_sent: bool,
    /// Counts what it does.
    pub counters: Arc<Counters>,
    /// Fires when the process stops.
    pub stopping: CancellationToken,
}

/// What the relay knows between two looks.
#[derive(Default)]
struct Relay {
    outbox: Option<Box<dyn Outbox>>,
    news: Option<Box<dyn News>>,
    leased_until: Option<Instant>,
    /// When to look again at the earliest.
    next_look: Option<Instant>,
    /// When the age of the oldest row was last asked for.
    asked: Option<Instant>,
    held_up: HeldUp,
}

/// Sends what stands in the outbox until the process stops.
pub async fn run_relay(settings: RelaySettings) {
    let (mut relay, mut backoff) = (Relay::default(), Backoff::new(FIRST_PAUSE, LAST_PAUSE));
    let (mut last, mut own_rows) = (false, false);
    while !last {
        tokio::select! {
            biased;
            () = settings.stopping.cancelled() => last = true,
            () = settings.store.woken() => own_rows = true,
            () = relay.hear() => {}
            () = sleep(settings.interval) => {}
        };
        if let Some(next_look) = relay.next_look.take().filter(|_| !last) {
            tokio::select! {
                () = settings.stopping.cancelled() => last = true,
                () = sleep_until(next_look) => {}
            }
        }
        match relay.look(&settings, std::mem::take(&mut own_rows)).await {
            Ok(true) => backoff.reset(),
            Ok(false) => {
                // The broker is away: nothing is read again and again meanwhile.
                tokio::select! {
                    () = settings.stopping.cancelled() => {}
                    () = sleep(backoff.random()) => backoff.grow(),
                }
            }
            Err(error) => {
                relay.outbox = None;
                settings.store.note(Some(&error));
                if is_logged("the outbox cannot be read", settings.store.store().describe()) {
                    tracing::warn!(%error, pause = ?backoff.pause(), "the outbox cannot be read; its messages wait");
                }
                tokio::select! {
                    () = settings.stopping.cancelled() => {}
                    () = sleep(backoff.random()) => backoff.grow(),
                }
            }
        }
    }
    relay.give_up(&settings).await;
}

impl Relay {
    async fn open<'a>(&'a mut self, settings: &RelaySettings) -> Result<&'a mut Box<dyn Outbox>, StoreError> {
        let outbox = match self.outbox.take() {
            Some(outbox) => outbox,
            None => {
                let outbox = settings.store.store().outbox().await?;
                settings.store.note(None);
                outbox
            }
        };
        Ok(self.outbox.insert(outbox))
    }

    /// Waits until another process has told of rows. Without news it waits for ever, and the relay looks by itself.
    async fn hear(&mut self) {
        let Some(news) = &mut self.news else { return std::future::pending().await };
        if news.next().await.is_err() {
            self.news = None;
        }
    }

    /// Sends all that waits and may be sent. If another process has the right to send, it is told of rows that this one has committed.
    /// Returns whether the broker took part.
    async fn look(&mut self, settings: &RelaySettings, own_rows: bool) -> Result<bool, StoreError> {
        if self.news.is_none() {
            self.news = settings.store.store().news().await.ok();
        }
        if !self.open(settings).await?.has_rows().await? {
            if self.asked.take().is_some() {
                settings.store.note_outbox(None);
            }
            self.held_up.forget();
            return Ok(true);
        }
        self.next_look = Some(Instant::now() + LOOK_PAUSE);
        self.ask_for_age(settings).await?;
        // At the last look, when the process stops, one page is sent.
        let mut is_last = false;
        while !is_last {
            is_last = settings.stopping.is_cancelled();
            if !self.has_lease(settings).await? {
                if own_rows {
                    self.open(settings).await?.tell_others().await?;
                }
                self.held_up.forget();
                return Ok(true);
            }
            let parked = self.open(settings).await?.parked_addresses().await?;
            let now = Instant::now();
            let without: Vec<String> = self.held_up.waiting(now).chain(parked).collect();
            let page = Page { without: &without, rows: ROWS, bytes: BYTES };
            let rows = self.open(settings).await?.page(&page).await?;
            // If the page is not full, it has all that may be tried.
            if rows.len() < ROWS && rows.iter().map(|row| row.row.envelope.len()).sum::<usize>() < BYTES {
                self.held_up.keep(now, |address| rows.iter().any(|row| row.row.address == address));
            }
            if rows.is_empty() {
                break;
            }
            reach(FaultPoint::Read);
            if !self.send(settings, rows).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Notes if the oldest row waits for too long.
    async fn ask_for_age(&mut self, settings: &RelaySettings) -> Result<(), StoreError> {
        if self.asked.is_some_and(|asked| asked.elapsed() < ASK_EVERY.min(settings.alarm)) {
            return Ok(());
        }
        self.asked = Some(Instant::now());
        let oldest = self.open(settings).await?.status().await?.oldest;
        let old = oldest.filter(|oldest| *oldest > settings.alarm);
        settings.store.note_outbox(old.map(|oldest| {
            let store = settings.store.store().describe();
            format!("store {store}: the oldest message of the outbox waits since {} s; `postrider store outbox list` shows it", oldest.as_secs())
        }));
        Ok(())
    }

    /// Whether this process has the right to send for long enough to send one page.
    async fn has_lease(&mut self, settings: &RelaySettings) -> Result<bool, StoreError> {
        let now = Instant::now();
        if self.leased_until.is_some_and(|until| now + RENEW_BEFORE < until) {
            return Ok(true);
        }
        let taken = self.open(settings).await?.take_lease(LEASE_NAME, &settings.holder, LEASE).await?;
        self.leased_until = taken.then_some(now + LEASE);
        Ok(taken)
    }

    /// Sends rows and removes those that are confirmed. Returns whether the broker took part.
    async fn send(&mut self, settings: &RelaySettings, rows: Vec<StoredRow>) -> Result<bool, StoreError> {
        let mut page = PageSend::new(settings, &rows);
        page.fill(&self.held_up).await;
        reach(FaultPoint::Published);
        let (mut removed, mut confirmed) = (Instant::now(), page.confirmed());
        while !page.is_over() {
            page.wait(REMOVE_EVERY).await;
            confirmed.extend(page.confirmed());
            if removed.elapsed() >= REMOVE_EVERY {
                self.remove(settings, &mut confirmed).await?;
                removed = Instant::now();
                // Others would send the rest of the page again.
                if !self.has_lease(settings).await? {
                    break;
                }
            }
            page.fill(&self.held_up).await;
        }
        let sent = page.end();
        reach(FaultPoint::Confirmed);
        self.remove(settings, &mut confirmed).await?;
        let mut is_there = true;
        for (row, sent) in rows.iter().zip(sent) {
            let address = &row.row.address;
            match sent {
                Some(Sent::Confirmed) => self.held_up.taken(address),
                Some(Sent::Behind) | None => {}
                Some(Sent::Poison(reason)) => self.park(settings, row, &reason).await?,
                Some(Sent::Unroutable(reason)) => {
                    if self.held_up.unroutable(address, &reason) {
                        self.park(settings, row, &reason).await?;
                    }
                }
                Some(Sent::NotTaken(reason)) => self.held_up.not_taken(address, &reason),
                Some(Sent::Away(reason)) => {
                    is_there = false;
                    if is_logged("the outbox waits for the broker", settings.store.store().describe()) {
                        tracing::warn!(reason, "the outbox waits for the broker");
                    }
                }
            }
        }
        Ok(is_there && !self.held_up.are_too_many())
    }

    /// Removes the confirmed rows of these numbers.
    async fn remove(&mut self, settings: &RelaySettings, confirmed: &mut Vec<i64>) -> Result<(), StoreError> {
        if confirmed.is_empty() {
            return Ok(());
        }
        // Counted before the rows are gone: whoever finds none sees that they have left.
        settings.counters.relayed.fetch_add(confirmed.len() as u64, std::sync::atomic::Ordering::Relaxed);
        let outbox = self.open(settings).await?;
        if settings.keeps_sent {
            outbox.keep_sent(confirmed).await?;
        } else {
            outbox.remove(confirmed).await?;
        }
        reach(FaultPoint::Removed);
        confirmed.clear();
        Ok(())
    }

    async fn park(&mut self, settings: &RelaySettings, row: &StoredRow, reason: &str) -> Result<(), StoreError> {
        Counters::add(&settings.counters.parked);
        if is_logged("a message of the outbox was put aside", &row.row.address) {
            tracing::error!(
                address = row.row.address,
                row = row.number,
                reason,
                "a message of the outbox cannot be sent and was put aside"
            );
        }
        self.open(settings).await?.park(row.number, reason).await
    }

    async fn give_up(&mut self, settings: &RelaySettings) {
        if self.leased_until.is_none() {
            return;
        }
        let given_up = match self.open(settings).await {
            Ok(outbox) => outbox.give_up_lease(LEASE_NAME, &settings.holder).await,
            Err(error) => Err(error),
        };
        if let Err(error) = given_up {
            tracing::debug!(%error, "the relay's lease was not given up; it ends by itself");
        }
    }
}
