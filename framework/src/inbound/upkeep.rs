//! Declares sources and subscriptions again that somebody deletes while services run.
//!
//! Sources are checked often, because that costs the broker little. A source that another process has declared again stands, but
//! without our subscriptions. Therefore a process that finds one missing first tells the others, which subscribe again at once.
//! In case the way there is deleted too, it also adds a message to the queue `{ns}.generation`, whose length every process
//! watches. Subscriptions that vanish alone cannot be seen over AMQP; they are declared again once a minute.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::{Addressed, Broker, BrokerError, Names, Queue, To, Topology};
use crate::bus::{Bus, Outlet};
use crate::inbound::control::BIND;
use crate::inbound::states::LaneStates;
use crate::inbound::topology::shared_sources;
use crate::message::{Envelope, Key, Kind, MediaType, Name, is_logged};
use crate::supervise::{half_by_chance, supervise};

/// How often, at most, reports of other processes make this process declare everything again.
const TOLD_EVERY: Duration = Duration::from_secs(2);

/// How often all subscriptions are declared again although nothing seems to be missing. More often would cost the broker a
/// transaction for each: declaring 40 subscriptions keeps it busy for some 15 ms, checking eight sources for 3.
pub const REBIND_AFTER: Duration = Duration::from_secs(60);
/// How long the message to other processes may take to be confirmed.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// The settings of [`keep_bound`].
#[derive(Clone)]
pub struct UpkeepSettings {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// Tells other processes.
    pub bus: Bus,
    /// Where it reports problems.
    pub states: LaneStates,
    /// The longest pause between two looks.
    pub every: Duration,
    /// Is notified when another process has found that sources were deleted.
    pub bind: Arc<Notify>,
    /// Fires when the app stops.
    pub stopping: CancellationToken,
}

/// Looks after sources and subscriptions until the app stops. Ends at once if no other process can delete them.
pub async fn keep_bound(settings: UpkeepSettings) {
    let (tasks, name) = (settings.broker.tasks(), "upkeep of exchanges and bindings".to_owned());
    supervise(tasks, name, settings.stopping.cancelled(), async || look_after(settings.clone()).await).await;
}

async fn look_after(settings: UpkeepSettings) {
    let mut upkeep = Upkeep {
        settings,
        missing: Vec::new(),
        generation: None,
        has_generation: true,
        again: false,
        told_of: String::new(),
    };
    let mut told = false;
    loop {
        match upkeep.look(told).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => upkeep.failed(&error),
        }
        // Half of the pause is random, so that processes that start together do not look together.
        let every = upkeep.settings.every;
        // Other processes may report as often as they like. Reports within this time count as one, and the looks go on.
        let hears = upkeep.settings.states.bound_at().is_none_or(|at| at.elapsed() >= TOLD_EVERY);
        told = tokio::select! {
            () = upkeep.settings.stopping.cancelled() => return,
            () = upkeep.settings.bind.notified(), if hears => true,
            () = tokio::time::sleep(half_by_chance(every)) => false,
        };
    }
}

struct Upkeep {
    settings: UpkeepSettings,
    /// Missing sources that were not reported yet.
    missing: Vec<String>,
    /// Length of the generation queue at the last look.
    generation: Option<u64>,
    /// Whether the generation queue exists or can be declared.
    has_generation: bool,
    /// Whether everything is still to be declared again, because sources are missing or the last try failed.
    again: bool,
    /// The missing sources that were last reported.
    told_of: String,
}

impl Upkeep {
    /// Looks once. Returns whether to look again. If `told` says that sources were deleted, everything is declared again whatever
    /// the look finds.
    async fn look(&mut self, told: bool) -> Result<bool, BrokerError> {
        let (broker, states) = (Arc::clone(&self.settings.broker), self.settings.states.clone());
        // Look first for what is missing: once it is declared again, nobody can report it.
        let Some(missing) = broker.missing().await? else { return Ok(false) };
        self.missing.extend(missing);
        if states.bound_at().is_none() {
            // The start of the app has declared everything.
            states.bound();
        }
        let first = self.generation.is_none();
        // Read after the sources: a process that declares one again has added to this count before.
        let generation = self.generation().await?;
        let changed = !first && generation != self.generation;
        self.generation = generation;
        let due = states.bound_at().is_none_or(|at| at.elapsed() >= REBIND_AFTER);
        if !self.missing.is_empty() {
            let text = std::mem::take(&mut self.missing).join(", ");
            // A user without the right to declare finds the same sources missing each time.
            let is_known = self.again && self.told_of == text;
            if !is_known {
                tracing::error!(
                    exchanges = text,
                    "exchanges were deleted; declaring them again with what is bound to them"
                );
            }
            states.unbound(format!("exchanges were deleted and are declared again: {text}"));
            self.again = true;
            self.told_of = text;
            if !is_known {
                tell_others(&self.settings.bus.outlet, &self.settings.bus.identity.names).await;
                self.generation = self.generation.map(|generation| generation + 1);
            }
        } else if (changed || told) && is_logged("another process has declared deleted exchanges again", "") {
            tracing::warn!(
                "another process has declared deleted exchanges again; declaring again what is bound to them"
            );
        }
        if told || due || changed || self.again {
            self.restore().await?;
        }
        Ok(true)
    }

    async fn restore(&mut self) -> Result<(), BrokerError> {
        self.again = true;
        self.settings.broker.restore().await?;
        self.again = false;
        self.settings.states.bound();
        Ok(())
    }

    fn failed(&self, error: &BrokerError) {
        // The connection reports its own loss.
        let of_connection =
            matches!(error, BrokerError::Lost { .. } | BrokerError::TimedOut { .. } | BrokerError::Stopped);
        if self.again && !of_connection {
            tracing::error!(%error, "exchanges and bindings cannot all be declared again");
            self.settings.states.unbound(format!("exchanges and bindings cannot all be declared again: {error}"));
        }
    }

    /// Length of the generation queue; `None` if there can be none.
    async fn generation(&mut self) -> Result<Option<u64>, BrokerError> {
        let (broker, name) = (&self.settings.broker, self.settings.bus.identity.names.generation());
        if !self.has_generation {
            return Ok(None);
        }
        if let Some(state) = broker.inspect(&name).await? {
            return Ok(Some(state.ready));
        }
        let declared = broker.compare(&generation_queue(&self.settings.bus.identity.names)).await;
        if declared.is_err_and(|error| error.is_permanent()) {
            tracing::info!(queue = name, "cannot be declared; what others declare again is bound within a minute");
            self.has_generation = false;
        }
        Ok(self.has_generation.then_some(0))
    }
}

/// The queue whose length counts how often deleted sources were declared again.
#[must_use]
pub fn generation_queue(names: &Names) -> Topology {
    Topology::of_queues([Queue::replicated(names.generation())])
}

/// Whether sources that existed before are gone, so that other processes must be told once they exist again.
pub async fn were_deleted(broker: &dyn Broker, names: &Names) -> bool {
    if !matches!(broker.inspect(&names.generation()).await, Ok(Some(_))) {
        return false;
    }
    for source in shared_sources().sources {
        let one = Topology { sources: vec![source], ..Topology::default() };
        if broker.absent(&one).await.is_ok_and(|absent| !absent.is_empty()) {
            return true;
        }
    }
    false
}

/// Tells all processes that sources were deleted, so that they declare them and their subscriptions again.
pub async fn tell_others(outlet: &Outlet, names: &Names) {
    let (everybody, key) = BIND.split_once(':').unwrap_or_default();
    let sign = |to: To| {
        let mut envelope = Envelope::new(Kind::Channel, Key::from_wire(key), MediaType::BYTES, Bytes::new());
        envelope.target = Some(Name::from_wire(everybody));
        let mandatory = matches!(to, To::Queue(_));
        Addressed { to, delay: None, mandatory, bare: false, envelope: Arc::new(envelope) }
    };
    let deadline = Instant::now() + CONFIRM_TIMEOUT;
    // First the queue, which is not deleted with the sources: a process that hears the message then reads the new length.
    if let Err(error) = outlet.forward(sign(To::Queue(names.generation().into())), deadline).await {
        tracing::warn!(%error, "other processes were not told; they bind again within a minute");
    }
    if let Err(error) = outlet.forward(sign(To::key(Kind::Channel, &BIND.into())), deadline).await {
        tracing::debug!(%error, "other processes hear of it later");
    }
}

#[cfg(test)]
mod tests;
