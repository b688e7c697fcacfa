//! The state of a lane in four parts: its deliveries, the answers being sent, its channel, its suspect.

use std::collections::VecDeque;
use std::sync::Arc;

use foldhash::HashMap;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{Delivery, DeliveryChannel, Receipt};
use crate::host::{Arrival, Epoch};
use crate::inbound::lane::suspect::Clearing;
use crate::inbound::settle::HeldDelivery;
use crate::message::{Envelope, MessageId};

/// Deliveries that are not settled, and those that were settled last.
#[derive(Default)]
pub(super) struct Deliveries {
    /// By their numbers.
    pub(super) held: HashMap<u64, HeldDelivery>,
    pub(super) next_number: u64,
    /// The number of the first delivery of the present epoch. The channels of earlier deliveries have closed.
    pub(super) epoch_began: u64,
    /// How many deliveries of earlier epochs are still held, because their handlers run.
    pub(super) stale: usize,
    /// How many deliveries of this epoch were handled and are not settled yet.
    pub(super) ended: usize,
    /// Deliveries that came while no permit was free: at most the prefetch.
    pub(super) buffer: VecDeque<Delivery>,
    /// Since when the buffer is not empty. Only a lane with a circuit breaker keeps this time.
    pub(super) buffered_since: Option<Instant>,
    /// Deliveries that enter the mailbox next, together.
    pub(super) arrivals: Vec<Arrival>,
    /// Receipts that are dropped when the channel closes, so that their messages return to their places.
    pub(super) parked: Vec<Receipt>,
    /// Whether receipts are parked instead of given back one by one.
    pub(super) keeps_places: bool,
    /// Whether `release` has parked a receipt: the lane leaves, and its channel is opened again.
    pub(super) returns: bool,
    /// The messages acknowledged last on the present channel.
    pub(super) acknowledged: VecDeque<Arc<Envelope>>,
}

/// Answers that are sent on the lane's channel.
#[derive(Default)]
pub(super) struct Answers {
    /// Deliveries whose answers are being sent, the oldest first, and how long to wait for that.
    pub(super) answering: VecDeque<(Instant, u64)>,
    /// The queries that were answered a second time, the newest last. A third answer would cost a connection once more.
    pub(super) answered_twice: VecDeque<MessageId>,
}

/// The channel of the present epoch.
pub(super) struct ChannelState {
    /// What its tickets see of the channel.
    pub(super) epoch: Arc<Epoch>,
    /// Whether there is a consumer, whose permits are counted.
    pub(super) open: bool,
    /// The most deliveries held on the channel.
    pub(super) prefetch: u16,
    /// How many of them may be handled at once: fewer while the circuit breaker tries one.
    pub(super) permits: usize,
    /// The queue's name in this epoch; an instance's queue has a new name in each.
    pub(super) queue_in_epoch: String,
    /// The channel, if it has acknowledgements to flush.
    pub(super) unflushed: Option<Arc<dyn DeliveryChannel>>,
}

impl ChannelState {
    /// No channel yet.
    pub(super) fn none(prefetch: u16, abandon: &CancellationToken) -> Self {
        Self {
            epoch: Epoch::begin(abandon, false),
            open: false,
            prefetch,
            permits: 0,
            queue_in_epoch: String::new(),
            unflushed: None,
        }
    }
}

/// A message that may end its process.
#[derive(Default)]
pub(super) struct Suspect {
    /// The suspect that is held. Nothing else is handed over meanwhile.
    pub(super) alone: Option<u64>,
    /// The suspect that waits to be cleared.
    pub(super) clearing: Option<Clearing>,
    /// Tasks that remove notes.
    pub(super) removals: Vec<JoinHandle<()>>,
}
