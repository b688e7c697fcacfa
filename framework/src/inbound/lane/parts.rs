//! What a lane knows, in four values: its deliveries, the answers on their way, its channel, its suspect.

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
    /// The first delivery of the present epoch; the channels of those before it have closed.
    pub(super) epoch_began: u64,
    /// How many of those are still held, because their handlers run.
    pub(super) stale: usize,
    /// What came while there was no permit: not more than the prefetch.
    pub(super) buffer: VecDeque<Delivery>,
    /// Since when something waits there.
    pub(super) buffered_since: Option<Instant>,
    /// What enters the mailbox next, in one go.
    pub(super) arrivals: Vec<Arrival>,
    /// What goes back to its place as the channel closes.
    pub(super) parked: Vec<Receipt>,
    /// What is given back goes back in one go, as the channel closes.
    pub(super) keeps_places: bool,
    /// Whether something was put there although nobody leaves: the channel is to be opened again.
    pub(super) returns: bool,
    /// What was acknowledged last on the present channel.
    pub(super) acknowledged: VecDeque<Arc<Envelope>>,
}

/// Answers that leave on the lane's channel.
#[derive(Default)]
pub(super) struct Answers {
    /// Deliveries whose answers are on their way, the oldest first, and until when that is waited for.
    pub(super) answering: VecDeque<(Instant, u64)>,
    /// The queries that were answered for a second time, the newest last. A third answer would cost a connection once more.
    pub(super) answered_twice: VecDeque<MessageId>,
}

/// The channel of the present epoch.
pub(super) struct ChannelState {
    /// What its tickets see of it.
    pub(super) epoch: Arc<Epoch>,
    /// Whether there is a consumer, whose permits are counted.
    pub(super) open: bool,
    /// The most deliveries held on it.
    pub(super) prefetch: u16,
    /// The queue's name; an instance's has another one in each epoch.
    pub(super) queue_in_epoch: String,
    /// The channel, if it has acknowledgements to send.
    pub(super) unflushed: Option<Arc<dyn DeliveryChannel>>,
}

impl ChannelState {
    /// No channel yet.
    pub(super) fn none(prefetch: u16, abandon: &CancellationToken) -> Self {
        Self { epoch: Epoch::begin(abandon), open: false, prefetch, queue_in_epoch: String::new(), unflushed: None }
    }
}

/// A message that may end its process.
#[derive(Default)]
pub(super) struct Suspect {
    /// The one that is held, if one is: nothing else is handed over meanwhile.
    pub(super) alone: Option<u64>,
    /// The one that waits to be cleared.
    pub(super) clearing: Option<Clearing>,
    /// Notes that are being removed.
    pub(super) removals: Vec<JoinHandle<()>>,
}
