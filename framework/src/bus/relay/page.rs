//! Sends one page of the outbox, in its order.
//!
//! RabbitMQ holds up a channel on which more than 32 messages wait for one quorum queue that does not answer, and with 400 more the whole
//! connection. So an address has at most 32 unconfirmed messages. While one may have no more, those behind it wait too, so that all leave
//! in their order; but not for long: an address that confirms nothing is left behind.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures::StreamExt;
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use tokio::time::{Instant, timeout};

use crate::broker::BrokerError;
use crate::bus::SendError;
use crate::bus::relay::RelaySettings;
use crate::bus::relay::held_up::HeldUp;
use crate::store::StoredRow;

/// The most unconfirmed messages of an address.
const WINDOW: usize = 32;
/// The most unconfirmed messages of all addresses: not so many that the broker would hold up the connection because of one of them.
const MOST_UNCONFIRMED: usize = 400;
/// How long an address may confirm nothing while others wait. A queue that elects a leader may take some seconds.
const SILENT_AFTER: Duration = Duration::from_secs(10);
/// How long the first message of a held-up address waits for its confirm when it is tried again.
const TRY_FOR: Duration = Duration::from_secs(2);

/// What became of a row.
pub(super) enum Sent {
    Confirmed,
    /// No queue takes it, or the broker forbids it.
    Unroutable(String),
    /// Its queue is full, or confirms nothing.
    NotTaken(String),
    /// The broker is away.
    Away(String),
    /// It can never be sent.
    Poison(String),
    /// It was not sent, because it is behind one of its address that cannot be sent now.
    Behind,
}

/// The unconfirmed messages of one address.
struct InFlight {
    count: usize,
    /// When the last one was confirmed, or the first one was sent.
    heard: Instant,
}

/// A message on its way, with its place in the page.
type Publishing<'a> = LocalBoxFuture<'a, (usize, Result<(), SendError>)>;

/// One page on its way.
pub(super) struct PageSend<'a> {
    settings: &'a RelaySettings,
    rows: &'a [StoredRow],
    sent: Vec<Option<Sent>>,
    /// The first row that was not looked at.
    next: usize,
    /// Addresses whose later rows wait.
    behind: HashSet<&'a str>,
    in_flight: HashMap<&'a str, InFlight>,
    waiting: FuturesUnordered<Publishing<'a>>,
    /// The unconfirmed messages of all addresses.
    unconfirmed: usize,
    /// Confirmed rows that nobody has asked for.
    confirmed: Vec<usize>,
}

impl<'a> PageSend<'a> {
    pub(super) fn new(settings: &'a RelaySettings, rows: &'a [StoredRow]) -> Self {
        Self {
            settings,
            rows,
            sent: rows.iter().map(|_| None).collect(),
            next: 0,
            behind: HashSet::new(),
            in_flight: HashMap::new(),
            waiting: FuturesUnordered::new(),
            unconfirmed: 0,
            confirmed: Vec::new(),
        }
    }

    fn address(&self, place: usize) -> &'a str {
        &self.rows[place].row.address
    }

    /// Puts rows on the channel, in their order, as many as may be unconfirmed.
    pub(super) async fn fill(&mut self, held_up: &HeldUp) {
        let now = Instant::now();
        let deadline = now + self.settings.outlet.settings.confirm_timeout;
        while let Some(row) = self.rows.get(self.next) {
            let (place, address) = (self.next, self.address(self.next));
            if self.behind.contains(address) {
                self.sent[place] = Some(Sent::Behind);
                self.next += 1;
                continue;
            }
            let in_flight = self.in_flight.entry(address).or_insert(InFlight { count: 0, heard: now });
            if in_flight.count >= WINDOW || self.unconfirmed >= MOST_UNCONFIRMED {
                return;
            }
            self.next += 1;
            let envelope = match row.message() {
                Ok(envelope) => envelope,
                Err(error) => {
                    self.behind.insert(address);
                    self.sent[place] = Some(Sent::Poison(error.to_string()));
                    continue;
                }
            };
            // Of an address that was held up, one message shows whether it is taken again.
            let is_tried = held_up.has(address);
            if is_tried {
                self.behind.insert(address);
            }
            if in_flight.count == 0 {
                in_flight.heard = now;
            }
            in_flight.count += 1;
            self.unconfirmed += 1;
            let until = if is_tried { deadline.min(now + TRY_FOR) } else { deadline };
            let publishing = self.settings.outlet.publish(Box::new(envelope), until);
            let mut publishing: Publishing<'a> = Box::pin(async move { (place, publishing.await) });
            // The first poll gives it its place on the channel. It ignores the task's budget.
            match tokio::task::unconstrained(async { futures::poll!(&mut publishing) }).await {
                std::task::Poll::Ready((place, outcome)) => self.ended(place, outcome),
                std::task::Poll::Pending => self.waiting.push(publishing),
            }
        }
    }

    /// Waits until a message has its outcome, at most this long, and takes all that are there.
    pub(super) async fn wait(&mut self, limit: Duration) {
        let Ok(first) = timeout(limit, self.waiting.next()).await else { return self.leave_silent_behind() };
        let mut next = first;
        while let Some((place, outcome)) = next {
            self.ended(place, outcome);
            next = futures::FutureExt::now_or_never(self.waiting.next()).flatten();
        }
        self.leave_silent_behind();
    }

    /// Whether nothing is left to send or to wait for.
    pub(super) fn is_over(&self) -> bool {
        self.next == self.rows.len() && self.in_flight.values().all(|in_flight| in_flight.count == 0)
    }

    /// The numbers of the rows that were confirmed since the last call.
    pub(super) fn confirmed(&mut self) -> Vec<i64> {
        let confirmed = std::mem::take(&mut self.confirmed);
        confirmed.into_iter().map(|place| self.rows[place].number).collect()
    }

    /// What became of the rows, in their order; nothing is known of those that still wait.
    pub(super) fn end(self) -> Vec<Option<Sent>> {
        self.sent
    }

    fn ended(&mut self, place: usize, outcome: Result<(), SendError>) {
        if self.sent[place].is_some() {
            return;
        }
        let outcome = outcome_of(outcome, self.settings);
        let address = self.address(place);
        if let Some(in_flight) = self.in_flight.get_mut(address) {
            (in_flight.count, in_flight.heard) = (in_flight.count.saturating_sub(1), Instant::now());
            self.unconfirmed = self.unconfirmed.saturating_sub(1);
        }
        match outcome {
            Sent::Confirmed => self.confirmed.push(place),
            // Those behind it would overtake it.
            _ => drop(self.behind.insert(address)),
        }
        self.sent[place] = Some(outcome);
    }

    /// Waits no longer for addresses that confirm nothing although the broker is there.
    fn leave_silent_behind(&mut self) {
        if !is_connected(self.settings) {
            // They cannot be heard, and their messages are sent again once the broker is back.
            let now = Instant::now();
            self.in_flight.values_mut().for_each(|in_flight| in_flight.heard = now);
            return;
        }
        let is_silent = |in_flight: &InFlight| in_flight.count > 0 && in_flight.heard.elapsed() >= SILENT_AFTER;
        if !self.in_flight.values().any(is_silent) {
            return;
        }
        for place in 0..self.next {
            let address = self.address(place);
            if let Some(in_flight) = self.in_flight.get_mut(address).filter(|in_flight| is_silent(in_flight))
                && self.sent[place].is_none()
            {
                self.sent[place] = Some(Sent::NotTaken(format!("no confirm within {SILENT_AFTER:?}")));
                in_flight.count -= 1;
                self.unconfirmed = self.unconfirmed.saturating_sub(1);
                self.behind.insert(address);
            }
        }
    }
}

fn is_connected(settings: &RelaySettings) -> bool {
    let state = *settings.connection.borrow();
    state.up && !state.blocked
}

fn outcome_of(sent: Result<(), SendError>, settings: &RelaySettings) -> Sent {
    let Err(error) = sent else { return Sent::Confirmed };
    let text = error.to_string();
    match error {
        SendError::Unroutable { .. } | SendError::Broker(BrokerError::Forbidden { .. }) => Sent::Unroutable(text),
        SendError::Rejected { .. } => Sent::NotTaken(text),
        SendError::Unknown { .. } if is_connected(settings) => Sent::NotTaken(text),
        SendError::Broker(error) if !error.is_permanent() && is_connected(settings) => Sent::NotTaken(text),
        SendError::Unknown { .. } => Sent::Away(text),
        SendError::Broker(error) if !error.is_permanent() || error == BrokerError::Stopped => Sent::Away(text),
        _ => Sent::Poison(text),
    }
}
