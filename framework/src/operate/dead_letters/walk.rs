//! Walks through all letters of one queue, of any number, in bounded memory.
//!
//! A broker cannot show a message without delivering it. So the walk receives letters in windows, each on a channel of
//! its own, and does not acknowledge them; of a letter that is not selected it keeps only the receipt. At the end it
//! closes the channels in order, and the broker requeues everything in order. Nothing is published again, so nothing
//! can be lost or duplicated. A killed tool leaves the same state, except that windows may change places. Only letters
//! that have been read very often are published again.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::broker::{BrokerError, Consumer, ConsumerSpec, Delivery, DeliveryChannel, Queue, Receipt, Topology};
use crate::operate::dead_letters::error::DeadError;
use crate::operate::dead_letters::letter::{DeadLetter, Fnv};
use crate::operate::dead_letters::queues::{DeadLetters, DeadProgress};

/// The size of the first window, before the size of the letters is known.
const FIRST_WINDOW: u16 = 32;
/// The largest factor by which a window may exceed the one before.
const GROWTH: u16 = 8;
/// The approximate most bytes in a window, estimated from the letters of the window before.
const WINDOW_BYTES: usize = 32 * 1024 * 1024;
/// The most windows with unacknowledged letters. Each needs a channel, and RabbitMQ allows 2 047 per connection by
/// default.
const MOST_WINDOWS: usize = 1_500;
/// How long to wait for a letter that should be there.
pub(super) const LETTER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the broker may take to requeue letters.
const RETURN_TIMEOUT: Duration = Duration::from_secs(10);
/// If no letter comes back for this long, the rest are assumed to be gone.
const RETURN_STALL: Duration = Duration::from_secs(2);
/// How often the queue is checked for returned letters.
const RETURN_LOOK: Duration = Duration::from_millis(5);
/// How long the broker has to process the last acknowledgements before their channels close.
const LAST_ACKS: Duration = Duration::from_millis(100);
/// The most rounds of looking for done letters that came back.
const MOST_ROUNDS: usize = 3;
/// After this many deliveries a letter is published again, because the broker limits deliveries.
const MOST_LOOKS: u32 = 100;
/// How often progress is reported.
const TELL: Duration = Duration::from_secs(1);

struct Window {
    // Must close before the receipts are dropped: a closed channel requeues in order.
    consumer: Box<dyn Consumer>,
    kept: Vec<Receipt>,
    /// Letters that have arrived and were not read, in order.
    ahead: VecDeque<Delivery>,
    /// How many letters the broker may send without an acknowledgement.
    size: u16,
    /// Whether it is for letters that were there at the beginning. It takes all of them before the first is read, and no others.
    of_beginning: bool,
    handed: u16,
    bytes: usize,
    cancelled: bool,
}

pub(super) struct Walk<'a> {
    letters: &'a DeadLetters,
    pub(super) queue: String,
    /// Whether the walk reads letters again that the broker took back.
    again: bool,
    most: u16,
    /// The size of the next window.
    size: u16,
    /// Earlier windows with letters to requeue, in order.
    earlier: Vec<Window>,
    current: Option<Window>,
    /// The number of letters at the beginning.
    of: u64,
    looked_at: u64,
    full: bool,
    told: Instant,
    /// The letters that were read, by the hash of their address.
    met: HashMap<u64, Met>,
    /// The channel with acknowledgements that are not flushed.
    acking: Option<Arc<dyn DeliveryChannel>>,
}

#[derive(Default)]
struct Met {
    times: u32,
    done: bool,
}

impl Window {
    /// Takes the letters that were there at the beginning, or one letter more. No more are taken: a letter that arrives while a
    /// consumer is cancelled comes back in front of others.
    async fn fill(&mut self, patience: Duration) -> Result<(), BrokerError> {
        let wanted = if self.of_beginning { self.size.into() } else { 1 };
        while self.ahead.len() < wanted {
            // Another tool may take letters at the same time, so there may be fewer.
            match timeout(patience, self.consumer.next()).await {
                Ok(Some(delivery)) => self.ahead.push_back(delivery?),
                Ok(None) | Err(_) => break,
            }
        }
        if self.of_beginning || self.handed + 1 >= self.size {
            self.cancel().await;
        }
        Ok(())
    }

    /// Takes what is on its way, and no more. The broker requeues it a moment after the channel is closed.
    async fn cancel(&mut self) {
        if !std::mem::replace(&mut self.cancelled, true) {
            self.consumer.cancel().await;
            while let Ok(Some(Ok(delivery))) = timeout(LETTER_TIMEOUT, self.consumer.next()).await {
                self.ahead.push_back(delivery);
            }
        }
    }
}

impl<'a> Walk<'a> {
    pub(super) async fn begin(letters: &'a DeadLetters, queue: &str) -> Result<Self, DeadError> {
        let of = letters.bus.broker.inspect(queue).await?.map_or(0, |state| state.ready);
        Ok(Self {
            letters,
            queue: queue.to_owned(),
            again: false,
            most: letters.window,
            size: FIRST_WINDOW.min(letters.window),
            earlier: Vec::new(),
            current: None,
            of,
            looked_at: 0,
            full: false,
            told: Instant::now(),
            met: HashMap::new(),
            acking: None,
        })
    }

    /// For slow work: reads letters again that the broker took back meanwhile, and limits the size of windows.
    pub(super) fn slow(&mut self, most: u16) {
        self.again = true;
        self.most = self.most.min(most).max(1);
        self.size = self.size.min(self.most);
    }

    /// The next letter of those that were there at the beginning.
    pub(super) async fn next(&mut self) -> Result<Option<(DeadLetter, Receipt)>, DeadError> {
        if self.is_through() { Ok(None) } else { self.pull(LETTER_TIMEOUT).await }
    }

    /// Whether all letters that were there at the beginning have been read.
    pub(super) fn is_through(&self) -> bool {
        self.looked_at >= self.of
    }

    /// The next letter, including letters that arrived since the beginning.
    pub(super) async fn pull(&mut self, patience: Duration) -> Result<Option<(DeadLetter, Receipt)>, DeadError> {
        loop {
            if self.current.is_none() && !self.open().await? {
                return Ok(None);
            }
            let Some(window) = &mut self.current else { return Ok(None) };
            if window.ahead.is_empty() && !window.cancelled {
                window.fill(patience).await?;
            }
            let Some(delivery) = window.ahead.pop_front() else {
                if !window.cancelled || window.handed == 0 {
                    return Ok(None);
                }
                self.end_window();
                continue;
            };
            let mut letter = DeadLetter::of(&self.queue, &delivery);
            window.handed = window.handed.saturating_add(1);
            window.bytes += letter.size();
            let met = self.met.entry(hash(letter.address())).or_default();
            met.times += 1;
            letter.number(met.times);
            self.looked_at = self.of.min(self.looked_at + 1);
            return Ok(Some((letter, delivery.receipt)));
        }
    }

    fn end_window(&mut self) {
        let Some(window) = self.current.take() else { return };
        let handed = usize::from(window.handed.max(1));
        let by_size = WINDOW_BYTES / (window.bytes / handed).max(1);
        let by_size = u16::try_from(by_size).unwrap_or(u16::MAX);
        self.size = by_size.min(window.size.saturating_mul(GROWTH)).min(self.most).max(1);
        self.earlier.push(window);
        self.flush();
    }

    /// Opens the next window, unless there are too many.
    async fn open(&mut self) -> Result<bool, DeadError> {
        self.look_for_closed()?;
        self.full = self.earlier.len() >= MOST_WINDOWS;
        if self.full {
            return Ok(false);
        }
        let (of_beginning, left) = (!self.is_through(), self.of.saturating_sub(self.looked_at));
        let size = u16::try_from(left).ok().filter(|left| *left > 0).map_or(self.size, |left| left.min(self.size));
        let (queue, topology) = (Queue::standing(&self.queue), Topology::default());
        let spec = ConsumerSpec { queue, topology, prefetch: size, answers: false };
        let consumer = self.letters.bus.broker.consume(&spec).await?;
        let (kept, ahead, cancelled) = (Vec::new(), VecDeque::new(), false);
        self.current = Some(Window { consumer, kept, ahead, size, of_beginning, handed: 0, bytes: 0, cancelled });
        Ok(true)
    }

    /// Drops closed windows. A broker closes a channel that keeps letters too long (RabbitMQ after 30 minutes) and
    /// takes them back.
    fn look_for_closed(&mut self) -> Result<(), BrokerError> {
        let (queue, again, mut back) = (&self.queue, self.again, 0);
        let before = self.earlier.len();
        self.earlier.retain(|window| {
            let live = window.consumer.is_live();
            back += if live { 0 } else { window.kept.len() as u64 };
            live
        });
        if self.earlier.len() < before && !again {
            let reason = format!("the broker took letters of {queue:?} back meanwhile");
            return Err(BrokerError::Lost { reason });
        }
        if back > 0 {
            self.of += back;
            self.met.clear();
        }
        Ok(())
    }

    /// Leaves the letter in the queue.
    pub(super) async fn keep(&mut self, letter: &DeadLetter, receipt: Receipt) -> Result<(), DeadError> {
        if letter.deliveries >= MOST_LOOKS {
            // The copy goes to the end of the queue, behind this walk. The letter is not marked as done: its copy has
            // the same address and would be taken for a letter that came back.
            self.letters.forward(letter, letter.rewritten(&self.queue)).await?;
            receipt.ack();
            return Ok(());
        }
        self.put_aside(receipt);
        Ok(())
    }

    /// The letter stays, however often it was looked at.
    pub(super) fn put_aside(&mut self, receipt: Receipt) {
        match self.current.as_mut().or(self.earlier.last_mut()) {
            Some(window) => window.kept.push(receipt),
            None => receipt.give_back(),
        }
    }

    /// Marks the letter as done. The next flush acknowledges it.
    pub(super) fn done(&mut self, letter: &DeadLetter, receipt: Receipt) {
        self.met.entry(hash(letter.address())).or_default().done = true;
        let channel = receipt.ack_with_next_flush();
        let is_same = channel.as_ref().zip(self.acking.as_ref()).is_some_and(|(one, other)| Arc::ptr_eq(one, other));
        if !is_same {
            self.flush();
            self.acking = channel;
        }
    }

    /// Acknowledges the done letters together. If too many acknowledgements come one by one, RabbitMQ holds some back,
    /// and forgets them if the channel closes meanwhile.
    pub(super) fn flush(&mut self) {
        if let Some(channel) = self.acking.take() {
            channel.flush();
        }
    }

    /// Closes earlier windows without letters, except the last one, whose acknowledgements may be on their way. Call it
    /// only when every letter that was read is kept or done.
    pub(super) async fn close_empty(&mut self) {
        while self.earlier.len() > 1 && self.earlier[self.earlier.len() - 2].kept.is_empty() {
            let mut window = self.earlier.remove(self.earlier.len() - 2);
            window.consumer.close().await;
        }
    }

    /// Reports progress now and then.
    pub(super) fn tell(&mut self, done: u64) {
        if let Some(listener) = self.letters.progress.as_deref().filter(|_| self.told.elapsed() >= TELL) {
            self.told = Instant::now();
            let (queue, looked_at, of) = (self.queue.clone(), self.looked_at, self.of);
            listener(&DeadProgress { queue, looked_at, of, done });
        }
    }

    /// How many letters were there and were not read, and why.
    pub(super) fn left(&self) -> Option<(u64, String)> {
        let left = self.of.saturating_sub(self.looked_at);
        let reason = if self.full {
            format!("so many of the others can be kept, in {MOST_WINDOWS} channels, and no more")
        } else {
            "somebody else took them, or has them now".to_owned()
        };
        (left > 0).then_some((left, reason))
    }

    /// Ends a piece of work: requeues the kept letters and reports what was done and what was not read.
    pub(super) async fn end<T>(self, result: Result<T, DeadError>, done: u64) -> Result<T, DeadError> {
        let (queue, looked_at, left) = (self.queue.clone(), self.looked_at, self.left());
        let rest = self.of.saturating_sub(looked_at);
        let back = self.put_back().await;
        let not_reached = |left, reason| DeadError::NotReached { queue, looked_at, done, left, reason };
        match (result, back, left) {
            // Nothing was done, so the error alone is enough.
            (Err(error), _, _) if done == 0 => Err(error),
            (Err(error), _, _) => Err(not_reached(rest, error.to_string())),
            (Ok(_), Err(error), _) => Err(error),
            (Ok(_), Ok(()), Some((left, reason))) => Err(not_reached(left, reason)),
            (Ok(result), Ok(()), None) => Ok(result),
        }
    }

    /// Ends a piece of work that needs no more letters of the queue.
    pub(super) async fn stop(self) -> Result<(), DeadError> {
        self.put_back().await
    }

    /// Requeues what is not done. A done letter comes back if its acknowledgement was lost with its channel. It is
    /// removed again, so that it is not done twice.
    async fn put_back(mut self) -> Result<(), DeadError> {
        for _ in 0..MOST_ROUNDS {
            let kept = self.close().await?;
            // Letters that share an address cannot be told apart, so they are left out.
            let once = self.met.drain().filter(|(_, met)| met.done && met.times == 1);
            let done: HashSet<u64> = once.map(|(hash, _)| hash).collect();
            let ready = self.ready().await?;
            if done.is_empty() || ready <= kept {
                break;
            }
            self = Self::begin(self.letters, &self.queue.clone()).await?;
            while let Some((letter, receipt)) = self.next().await? {
                if letter.redelivered && done.contains(&hash(letter.address())) {
                    self.done(&letter, receipt);
                } else {
                    self.keep(&letter, receipt).await?;
                }
            }
        }
        self.close().await.map(drop)
    }

    /// Requeues the kept letters and waits until they are back, so that the next reader finds them. Returns how many.
    async fn close(&mut self) -> Result<u64, DeadError> {
        if let Some(mut window) = self.current.take() {
            window.cancel().await;
            window.kept.extend(window.ahead.drain(..).map(|delivery| delivery.receipt));
            self.earlier.push(window);
        }
        self.flush();
        if self.met.values().any(|met| met.done) {
            sleep(LAST_ACKS).await;
        }
        let until = Instant::now() + RETURN_TIMEOUT;
        let mut kept = 0;
        // Closing a channel requeues in order; requeuing one by one would reverse the order. Each window must be back
        // before the next closes, because RabbitMQ 4.0 may put the later one back first.
        for mut window in std::mem::take(&mut self.earlier) {
            let back = window.kept.len() as u64;
            // Letters that arrived meanwhile must not be counted as returned.
            let before = if back == 0 { 0 } else { self.ready().await? };
            window.consumer.close().await;
            if back > 0 {
                kept += back;
                self.are_back(before + back, until).await?;
            }
        }
        Ok(kept)
    }

    /// How many letters in the queue are not delivered to a consumer.
    async fn ready(&self) -> Result<u64, DeadError> {
        Ok(self.letters.bus.broker.inspect(&self.queue).await?.map_or(0, |state| state.ready))
    }

    /// Waits until the queue has this many letters again, but not for ever: others may have taken them. The number of
    /// consumers is no help, because RabbitMQ counts our own consumer until its letters are back.
    async fn are_back(&self, letters: u64, until: Instant) -> Result<(), DeadError> {
        let (mut most, mut stalled) = (0, Instant::now() + RETURN_STALL);
        while Instant::now() < until.min(stalled) {
            let Some(state) = self.letters.bus.broker.inspect(&self.queue).await? else { break };
            if state.ready >= letters {
                break;
            }
            if state.ready > most {
                (most, stalled) = (state.ready, Instant::now() + RETURN_STALL);
            }
            sleep(RETURN_LOOK).await;
        }
        Ok(())
    }
}

/// The hash of an address without its number. The addresses of all letters would take too much memory as text.
fn hash(address: &str) -> u64 {
    let given = address.split('.').next().unwrap_or_default();
    Fnv::of(given.as_bytes())
}
