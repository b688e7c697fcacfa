//! Assembles, configures, starts and stops a process, and reports its health.

mod broker_needs;
pub(crate) mod builder;
pub(crate) mod check;
pub(crate) mod config;
pub(crate) mod connect;
pub(crate) mod control;
pub(crate) mod entry;
pub(crate) mod health;
mod launch;
mod launch_actors;
mod launched;
pub(crate) mod manifest;
mod needs;
mod outcome;
mod own_settings;
pub(crate) mod plans;
pub(crate) mod read_config;
pub(crate) mod record;
pub(crate) mod running;
mod settings;
mod start_due;
#[cfg(feature = "testing")]
mod start_here;
mod stop;
pub(crate) mod stores;
mod threads;
mod upkeep;

pub use crate::inbound::QueryQueue;
pub use builder::{App, BrokerChoice, Connector};
pub use config::{ActorOverrides, Config, RunLimits, StoreSettings};
pub use control::{ActorReport, ProcessReport, QueueReport};
pub use entry::Setup;
pub use health::Health;
pub use manifest::ManifestRow;
pub use needs::WaitError;
pub use outcome::{StartError, StopReport};
pub use running::Running;
