//! The parts of a started app, kept until it stops.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use actix::Addr;
use actix_rt::Arbiter;
use tokio::sync::{Notify, watch};

use crate::app::config::Config;
use crate::app::control::Controls;
use crate::app::own_settings::SettingsReads;
use crate::app::stores::{StoreTasks, Stores};
use crate::broker::Broker;
use crate::bus::{Bus, Counters};
use crate::host::{Stops, Watchdog};
use crate::inbound::{Bridge, ConsumerTimeout, LaneStates, Suspects};

/// Where actors run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// On arbiter threads of their own.
    Arbiters,
    /// On the calling thread, for tests with a paused clock.
    Here,
}

/// The parts of a started app.
pub(super) struct Launched {
    pub(super) bus: Bus,
    pub(super) broker: Arc<dyn Broker>,
    pub(super) bridges: Vec<Addr<Bridge>>,
    pub(super) arbiters: Vec<Arbiter>,
    pub(super) stops: Stops,
    pub(super) counters: Arc<Counters>,
    pub(super) states: LaneStates,
    /// Messages that may crash the process.
    pub(super) suspects: Suspects,
    pub(super) config: Arc<Config>,
    pub(super) reads: SettingsReads,
    pub(super) concurrency: Arc<BTreeMap<String, watch::Sender<usize>>>,
    /// How long the broker lets a delivery stay unacknowledged.
    pub(super) consumer_timeout: ConsumerTimeout,
    pub(super) controls: Controls,
    /// The needed services that have not answered yet.
    pub(super) waits_for: watch::Sender<Vec<String>>,
    pub(super) on_ready: Vec<tokio::task::JoinHandle<()>>,
    /// Publishes delayed messages.
    pub(super) due: Option<tokio::task::JoinHandle<()>>,
    /// Carries out orders from operators.
    pub(super) listening: Option<tokio::task::JoinHandle<()>>,
    /// Fires when a process finds that exchanges were deleted.
    pub(super) bind: Arc<Notify>,
    /// Checks and redeclares exchanges and bindings.
    pub(super) upkeep: Option<tokio::task::JoinHandle<()>>,
    pub(super) stores: Stores,
    /// Relays and clean-up of the stores.
    pub(super) store_tasks: StoreTasks,
    pub(super) failure: Arc<Mutex<Option<String>>>,
    pub(super) watchdog: Option<Watchdog>,
}
