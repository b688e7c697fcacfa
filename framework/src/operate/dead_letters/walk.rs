//! A walk through all letters of one queue, however many, in bounded memory.
//!
//! A broker has no way to look at a message and leave it. So letters are taken and not acknowledged, window by window, each
//! with a channel of its own; of a letter that is not meant only the right to settle it is kept. At the end the channels are
//! closed in their order, and the broker puts everything back in its order. Nothing is written anew, so nothing can be lost
//! or doubled: a tool that is killed leaves the same, only windows may change places. Only what was looked at very often is
//! written again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::broker::{BrokerError, Consumer, ConsumerSpec, DeliveryChannel, Queue, Receipt, Topology};
use crate::operate::dead_letters::error::DeadError;
use crate::operate::dead_letters::letter::{DeadLetter, Fnv};
use crate::operate::dead_letters::place::{DeadLetters, DeadProgress};

/// The letters of the first window: nothing is known of their size yet.
const FIRST_WINDOW: u16 = 32;
/// How much larger a window may be than the one before.
const GROWTH: u16 = 8;
/// About how many bytes a window may have, by the size of the letters in the one before.
const WINDOW_BYTES: usize = 32 * 1024 * 1024;
/// The most windows that keep letters: each is a channel, of which RabbitMQ allows 2 047 to a connection by default.
const MOST_WINDOWS: usize = 1_500;
/// How long to wait for a letter that is there.
pub(super) const LETTER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the broker may take to put letters back.
const RETURN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long no letter may come back until the others are taken to be gone.
const RETURN_STALL: Duration = Duration::from_secs(2);
/// How often the broker is asked whether they are back.
const RETURN_LOOK: Duration = Duration::from_millis(5);
/// How long the broker has for the last acknowledgements before their channels are closed.
const LAST_ACKS: Duration = Duration::from_millis(100);
/// How often it is looked whether letters came back that are done.
const MOST_ROUNDS: usize = 3;
/// After this number of reads a letter is written anew, because the broker counts deliveries and has a limit.
const MOST_LOOKS: u32 = 100;
/// How often progress is told.
const TELL: Duration = Duration::from_secs(1);

struct Window {
    // Closed before what is kept is dropped: a closed channel gives back in order.
    consumer: Box<dyn Consumer>,
    kept: Vec<Receipt>,
    size: u16,
    handed: u16,
    bytes: usize,
    cancelled: bool,
}

pub(super) struct Walk<'a> {
    letters: &'a DeadLetters,
    pub(super) queue: String,
    /// Whether letters that the broker took back are walked through again.
    again: bool,
    most: u16,
    /// The size of the next window.
    size: u16,
    /// Those with letters to be put back, in order.
    earlier: Vec<Window>,
    current: Option<Window>,
    /// What was there at the beginning.
    of: u64,
    looked_at: u64,
    full: bool,
    told: Instant,
    /// What was met, by the hash of its address.
    met: HashMap<u64, Met>,
    /// With acknowledgements that have not left.
    acking: Option<Arc<dyn DeliveryChannel>>,
}

#[derive(Default)]
struct Met {
    times: u32,
    done: bool,
}

impl Window {
    /// Keeps what the broker had delivered before the consumer was cancelled and nobody has looked at. It has to be waited for
    /// like the letters that were looked at: the broker puts it back a moment after the channel is closed.
    async fn keep_the_rest(&mut self) {
        while let Ok(Some(Ok(delivery))) = timeout(LETTER_TIMEOUT, self.consumer.next()).await {
            self.kept.push(delivery.receipt);
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

    /// For work that takes long: letters that the broker took back meanwhile are met again, and windows have at most so many.
    pub(super) fn slow(&mut self, most: u16) {
        self.again = true;
        self.most = self.most.min(most).max(1);
        self.size = self.size.min(self.most);
    }

    /// The next of the letters that were there at the beginning.
    pub(super) async fn next(&mut self) -> Result<Option<(DeadLetter, Receipt)>, DeadError> {
        if self.is_through() { Ok(None) } else { self.pull(LETTER_TIMEOUT).await }
    }

    /// Whether all that was there at the beginning was looked at.
    pub(super) fn is_through(&self) -> bool {
        self.looked_at >= self.of
    }

    /// The next letter, also one that came since the beginning.
    pub(super) async fn pull(&mut self, patience: Duration) -> Result<Option<(DeadLetter, Receipt)>, DeadError> {
        loop {
            if self.current.is_none() && !self.open().await? {
                return Ok(None);
            }
            let Some(window) = &mut self.current else { return Ok(None) };
            if window.handed >= window.size && !window.cancelled {
                window.cancelled = true;
                window.consumer.cancel().await;
            }
            // Somebody else may work on them at the same time; then there are fewer.
            let Ok(next) = timeout(patience, window.consumer.next()).await else { return Ok(None) };
            let Some(delivery) = next else {
                self.end_window();
                continue;
            };
            let delivery = delivery?;
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

    /// Opens the next window. Not if there are too many.
    async fn open(&mut self) -> Result<bool, DeadError> {
        self.look_for_closed()?;
        self.full = self.earlier.len() >= MOST_WINDOWS;
        if self.full {
            return Ok(false);
        }
        let size = self.size;
        let (queue, topology) = (Queue::standing(&self.queue), Topology::default());
        let spec = ConsumerSpec { queue, topology, prefetch: size, answers: false };
        let consumer = self.letters.bus.broker.consume(&spec).await?;
        self.current = Some(Window { consumer, kept: Vec::new(), size, handed: 0, bytes: 0, cancelled: false });
        Ok(true)
    }

    /// A broker closes a channel that keeps letters for too long (RabbitMQ after 30 minutes), and takes them back.
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

    /// The letter stays.
    pub(super) async fn keep(&mut self, letter: &DeadLetter, receipt: Receipt) -> Result<(), DeadError> {
        if letter.deliveries >= MOST_LOOKS {
            // It goes to the end, behind all that is walked through. It is not noted as done: its copy has the same address, and
            // must not be taken for one that came back.
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

    /// The letter is done, and goes with the next flush.
    pub(super) fn done(&mut self, letter: &DeadLetter, receipt: Receipt) {
        self.met.entry(hash(letter.address())).or_default().done = true;
        let channel = receipt.ack_with_next_flush();
        let is_same = channel.as_ref().zip(self.acking.as_ref()).is_some_and(|(one, other)| Arc::ptr_eq(one, other));
        if !is_same {
            self.flush();
            self.acking = channel;
        }
    }

    /// Acknowledges what is done. Together, because RabbitMQ holds some back if too many come one by one, and forgets them if the
    /// channel closes meanwhile.
    pub(super) fn flush(&mut self) {
        if let Some(channel) = self.acking.take() {
            channel.flush();
        }
    }

    /// Closes windows of which no letter is left, but not the last one: its acknowledgements may be on their way. To be called
    /// when nothing is held but what is kept.
    pub(super) async fn close_empty(&mut self) {
        while self.earlier.len() > 1 && self.earlier[self.earlier.len() - 2].kept.is_empty() {
            let mut window = self.earlier.remove(self.earlier.len() - 2);
            window.consumer.close().await;
        }
    }

    /// Tells how far it has come, now and then.
    pub(super) fn tell(&mut self, done: u64) {
        if let Some(listener) = self.letters.progress.as_deref().filter(|_| self.told.elapsed() >= TELL) {
            self.told = Instant::now();
            let (queue, looked_at, of) = (self.queue.clone(), self.looked_at, self.of);
            listener(&DeadProgress { queue, looked_at, of, done });
        }
    }

    /// How many letters were there and were not looked at, and why.
    pub(super) fn left(&self) -> Option<(u64, String)> {
        let left = self.of.saturating_sub(self.looked_at);
        let reason = if self.full {
            format!("so many of the others can be kept, in {MOST_WINDOWS} channels, and no more")
        } else {
            "somebody else took them, or has them now".to_owned()
        };
        (left > 0).then_some((left, reason))
    }

    /// The end of a piece of work: letters go back, and what was done and what was not reached is said.
    pub(super) async fn end<T>(self, result: Result<T, DeadError>, done: u64) -> Result<T, DeadError> {
        let (queue, looked_at, left) = (self.queue.clone(), self.looked_at, self.left());
        let rest = self.of.saturating_sub(looked_at);
        let back = self.put_back().await;
        let not_reached = |left, reason| DeadError::NotReached { queue, looked_at, done, left, reason };
        match (result, back, left) {
            // Nothing was done: the reason is all there is to say.
            (Err(error), _, _) if done == 0 => Err(error),
            (Err(error), _, _) => Err(not_reached(rest, error.to_string())),
            (Ok(_), Err(error), _) => Err(error),
            (Ok(_), Ok(()), Some((left, reason))) => Err(not_reached(left, reason)),
            (Ok(result), Ok(()), None) => Ok(result),
        }
    }

    /// The end of a piece of work that needs nothing more of the queue.
    pub(super) async fn stop(self) -> Result<(), DeadError> {
        self.put_back().await
    }

    /// Puts back what is not done. A letter that is done and comes back all the same, because its acknowledgement was lost with
    /// its channel, is taken away again: it must not be done twice.
    async fn put_back(mut self) -> Result<(), DeadError> {
        for _ in 0..MOST_ROUNDS {
            let kept = self.close().await?;
            // Of letters with one address nobody could say which came back.
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

    /// Lets the letters go back to their places, and waits until they are there, so that whoever looks next finds them; how
    /// many.
    async fn close(&mut self) -> Result<u64, DeadError> {
        if let Some(mut window) = self.current.take() {
            if !window.cancelled {
                window.consumer.cancel().await;
            }
            window.keep_the_rest().await;
            self.earlier.push(window);
        }
        self.flush();
        if self.met.values().any(|met| met.done) {
            sleep(LAST_ACKS).await;
        }
        let until = Instant::now() + RETURN_TIMEOUT;
        let mut kept = 0;
        // What closes gives back in order; giving back one by one would turn it round. One window is back before the next
        // closes, because the broker (RabbitMQ 4.0) may put back the later one first.
        for mut window in std::mem::take(&mut self.earlier) {
            let back = window.kept.len() as u64;
            // Others may have come meanwhile: they must not be taken for those that go back.
            let before = if back == 0 { 0 } else { self.ready().await? };
            window.consumer.close().await;
            if back > 0 {
                kept += back;
                self.are_back(before + back, until).await?;
            }
        }
        Ok(kept)
    }

    /// How many letters are in the queue and with no consumer.
    async fn ready(&self) -> Result<u64, DeadError> {
        Ok(self.letters.bus.broker.inspect(&self.queue).await?.map_or(0, |state| state.ready))
    }

    /// Waits until this number of letters is in the queue again. Not for ever: somebody else may have taken them. How many consume
    /// the queue does not tell, because RabbitMQ counts our own consumer until its letters are back.
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

/// The hash of an address without its number: as many letters as there are would be too many texts.
fn hash(address: &str) -> u64 {
    let given = address.split('.').next().unwrap_or_default();
    Fnv::of(given.as_bytes())
}
