//! The services' stores: opened at the start, their relays and clean-up as long as the app lives.

#[cfg(feature = "postgres")]
mod postgres;
#[path = "stores/no_postgres.rs"]
#[cfg(not(feature = "postgres"))]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
#[path = "stores/no_sqlite.rs"]
#[cfg(not(feature = "sqlite"))]
mod sqlite;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::app::builder::App;
use crate::app::config::{Config, StoreSettings};
use crate::app::entry::Entry;
use crate::broker::{Broker, BrokerError};
use crate::bus::{Counters, RelaySettings, run_relay};
use crate::handler::{Guarantee, HandlerSpec};
use crate::message::{Secret, is_logged};
use crate::store::{AnswerLimit, Store, StoreError, StoreHandle, Tables};
use crate::supervise::supervise;

/// The pause between two attempts to open a store at the start.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// The name of the right to clean up.
const CLEAN_UP: &str = "clean-up";
/// How often the inbox is cleaned up.
const CLEAN_UP_EVERY: Duration = Duration::from_secs(60);
/// The most messages that the inbox forgets in one transaction.
const FORGET_AT_ONCE: usize = 1_000;
/// How long the relay may take to send what is left when the app stops.
const GRACE: Duration = Duration::from_secs(5);

/// The open stores of an app.
#[derive(Clone, Default)]
pub(super) struct Stores {
    by_service: BTreeMap<String, StoreHandle>,
    /// Each store once, though several services may share it.
    all: Vec<StoreHandle>,
}

/// The tasks of the stores.
#[derive(Default)]
pub(super) struct StoreTasks {
    relays: Vec<tokio::task::JoinHandle<()>>,
    cleaning: Vec<tokio::task::JoinHandle<()>>,
    stop_relays: CancellationToken,
}

/// Where a store is.
#[derive(Clone, Copy)]
pub(crate) struct StoreAddress<'a> {
    pub(crate) database: &'a Secret,
    /// The pooler in front of it.
    pub(crate) pooler: Option<&'a Secret>,
}

/// The address of a service's store, and its setting: its own, or else that of the process. A pooler belongs to the store beside
/// which it is set.
fn address<'a>(config: &'a Config, service: &str) -> Option<(StoreAddress<'a>, String)> {
    if let Some(database) = config.stores.get(service) {
        let pooler = config.store_poolers.get(service);
        return Some((StoreAddress { database, pooler }, format!("service.{service}.store")));
    }
    let database = config.store.as_ref()?;
    Some((StoreAddress { database, pooler: config.store_pooler.as_ref() }, "store".to_owned()))
}

/// Why the app cannot keep its promises with the configured stores, seen before anything starts.
pub(super) fn store_problems(app: &App, config: &Config) -> Vec<String> {
    let mut problems: Vec<String> = app.entries.iter().flat_map(|entry| problems_of(entry, config)).collect();
    if config.store_pooler.is_some() && config.store.is_none() {
        problems.push(format!("{}: there is no store behind it; set store too", config.origins.shown("store_pooler")));
    }
    let without = config.store_poolers.keys().filter(|service| !config.stores.contains_key(*service));
    problems.extend(without.map(|service| {
        let shown = config.origins.shown(&format!("service.{service}.store_pooler"));
        format!("{shown}: there is no store behind it; set store of this service too")
    }));
    problems
}

fn problems_of(entry: &Entry, config: &Config) -> Vec<String> {
    let (actor, service) = (entry.attributes.actor, entry.attributes.service);
    let promises = entry.attributes.guarantee == Guarantee::EffectivelyOnce;
    let with_tx = entry.handlers.iter().filter_map(|listed| Some((listed.spec, listed.spec.transaction?)));
    let Some((address, setting)) = address(config, service) else {
        let write = format!(
            "set POSTRIDER_STORE=sqlite:{service}.db, or in the file [service.{service}] store = \"sqlite:{service}.db\""
        );
        let mut problems = Vec::new();
        if promises {
            problems.push(format!("{actor} promises effectively_once, which needs a store for its inbox; {write}"));
        }
        problems.extend(
            with_tx.take(1).map(|(spec, _)| format!("{spec} takes a transaction, which needs a store; {write}")),
        );
        return problems;
    };
    let scheme = scheme(address.database.reveal());
    with_tx
        .filter(|(_, database)| ![scheme, HandlerSpec::ANY_DATABASE].contains(database))
        .map(|(spec, database)| {
            let shown = config.origins.shown(&setting);
            format!("{spec} takes a transaction of {database}, and the store of service {service:?} is of {scheme}; change the address ({shown}) or the type")
        })
        .collect()
}

/// The database that an address names.
fn scheme(address: &str) -> &str {
    let scheme = address.split(':').next().unwrap_or_default();
    if scheme == "postgresql" { "postgres" } else { scheme }
}

impl Stores {
    /// Opens the stores of the app's services, and tries again until the deadline while they are not there.
    ///
    /// # Errors
    /// The first store that cannot be opened, and where its address was set.
    pub(super) async fn open(app: &App, config: &Config, deadline: Instant) -> Result<Self, String> {
        let mut stores = Self::default();
        let mut open: BTreeMap<(&str, Option<&str>), StoreHandle> = BTreeMap::new();
        for service in app.services() {
            let Some((address, setting)) = address(config, service) else { continue };
            let place = (address.database.reveal(), address.pooler.map(Secret::reveal));
            let handle = match open.get(&place) {
                Some(handle) => handle.clone(),
                None => {
                    let opened = open_patiently(config, address, deadline).await;
                    let store = opened.map_err(|error| match config.origins.origin(&setting) {
                        Some(origin) => format!("{error} (set by {origin})"),
                        None => error.to_string(),
                    })?;
                    tracing::info!(service, store = store.describe(), "the store is open");
                    let handle =
                        StoreHandle::new(store, config.store_settings.lock_timeout, config.store_settings.connections);
                    stores.all.push(handle.clone());
                    open.insert(place, handle.clone());
                    handle
                }
            };
            stores.by_service.insert(service.to_owned(), handle);
        }
        Ok(stores)
    }

    /// The store of a service.
    pub(super) fn of(&self, service: &str) -> Option<&StoreHandle> {
        self.by_service.get(service)
    }

    /// Why stores do not do their work right now.
    pub(super) fn problems(&self) -> Vec<String> {
        self.all.iter().filter_map(StoreHandle::problem).collect()
    }

    /// Whether messages wait in the outbox of a store.
    pub(super) async fn have_unsent(&self) -> bool {
        for store in &self.all {
            let has_rows = async { store.store().outbox().await?.has_rows().await };
            if has_rows.await.unwrap_or(false) {
                return true;
            }
        }
        false
    }

    /// Starts a relay and the clean-up for each store.
    pub(super) async fn start(
        &self,
        broker: &Arc<dyn Broker>,
        config: &Arc<Config>,
        instance: &str,
        counters: &Arc<Counters>,
    ) -> Result<StoreTasks, BrokerError> {
        let mut tasks = StoreTasks::default();
        for (number, store) in self.all.iter().enumerate() {
            // A confirm channel of its own: a full outbox holds up nobody's sends.
            let outlet = super::threads::open_outlet(broker, config, counters).await?;
            let (store, counters, broker) = (store.clone(), Arc::clone(counters), Arc::clone(broker));
            // Two addresses may name one database.
            let (holder, used) = (format!("{instance}-{number}"), config.store_settings);
            let (stopping, name) = (tasks.stop_relays.clone(), format!("relay of {}", store.store().describe()));
            let (cleaned, until) = (store.clone(), stopping.clone());
            let (ended, cleaner, problems) = (tasks.stop_relays.clone(), holder.clone(), broker.tasks());
            let cleaning = format!("clean-up of {}", store.store().describe());
            let connection = broker.connection();
            let relay = async move || {
                let settings = RelaySettings {
                    store: store.clone(),
                    outlet: Arc::clone(&outlet),
                    connection: connection.clone(),
                    holder: holder.clone(),
                    interval: used.publish_interval,
                    alarm: used.outbox_alarm,
                    keeps_sent: used.sent_retention.is_some(),
                    counters: Arc::clone(&counters),
                    stopping: stopping.clone(),
                };
                run_relay(settings).await;
            };
            tasks.relays.push(actix_rt::spawn(async move {
                supervise(broker.tasks(), name, ended.cancelled_owned(), relay).await;
            }));
            let clean_up = async move || clean_up(&cleaned, used, &cleaner).await;
            tasks.cleaning.push(actix_rt::spawn(async move {
                supervise(problems, cleaning, until.cancelled_owned(), clean_up).await;
            }));
        }
        Ok(tasks)
    }

    /// Closes the stores.
    pub(super) async fn close(&self) {
        for store in &self.all {
            store.store().close().await;
        }
    }
}

impl StoreTasks {
    /// Lets the relays send what the last handlers committed, and ends them.
    pub(super) async fn stop(self) {
        self.stop_relays.cancel();
        self.cleaning.iter().for_each(tokio::task::JoinHandle::abort);
        for relay in self.relays {
            if timeout(GRACE, relay).await.is_err() {
                tracing::warn!("messages are left in the outbox; another process or the next start sends them");
            }
        }
    }
}

/// Opens a store, and tries again until the deadline while it is not there.
async fn open_patiently(
    config: &Config,
    address: StoreAddress<'_>,
    deadline: Instant,
) -> Result<Arc<dyn Store>, StoreError> {
    loop {
        let error = match timeout_at(deadline, open_store(config, address, Tables::Migrate)).await {
            Ok(Ok(store)) => return Ok(store),
            Ok(Err(error)) => error,
            Err(_) => {
                return Err(StoreError::Unavailable {
                    store: format!("{}:…", scheme(address.database.reveal())),
                    reason: "it was not opened before the app had to start; is the server up, or does another process migrate?".into(),
                });
            }
        };
        if error.is_permanent() || Instant::now() + RETRY_DELAY >= deadline {
            return Err(error);
        }
        tracing::warn!(%error, "trying again");
        sleep(RETRY_DELAY).await;
    }
}

/// Opens the store at an address.
///
/// # Errors
/// When the address is not one, the database refuses or does not answer, or its tables are missing and are to stay as they are.
pub(crate) async fn open_store(
    config: &Config,
    StoreAddress { database, pooler }: StoreAddress<'_>,
    tables: Tables,
) -> Result<Arc<dyn Store>, StoreError> {
    let (namespace, lock) = (config.namespace.namespace(), config.store_settings.lock_timeout);
    let (database, pooler) = (database.reveal(), pooler.map(Secret::reveal));
    let store = match scheme(database) {
        "postgres" => postgres::open(database, pooler, namespace, tables).await?,
        "sqlite" if pooler.is_some() => {
            let reason = "a SQLite file has no pooler in front of it; remove store_pooler";
            return Err(StoreError::Address { store: database.to_owned(), reason: reason.into() });
        }
        "sqlite" => sqlite::open(database, namespace, lock, tables).await?,
        other => {
            return Err(StoreError::Address {
                store: format!("{other}:…"),
                reason:
                    "there are no such stores; write sqlite:path/to/file.db, or postgres://user:password@host/database"
                        .into(),
            });
        }
    };
    Ok(Arc::new(AnswerLimit(store)))
}

/// Forgets messages whose retention is over, in small portions. Of all processes one does it at a time.
async fn clean_up(store: &StoreHandle, settings: StoreSettings, holder: &str) {
    loop {
        if let Err(error) = clean_up_once(store, settings, holder).await
            && is_logged("the store was not cleaned up", store.store().describe())
        {
            tracing::warn!(%error, "the store was not cleaned up; trying again later");
        }
        sleep(CLEAN_UP_EVERY).await;
    }
}

async fn clean_up_once(store: &StoreHandle, settings: StoreSettings, holder: &str) -> Result<(), StoreError> {
    // What was kept by an earlier setting goes too.
    let sent_retention = settings.sent_retention.unwrap_or_default();
    let mut outbox = store.store().outbox().await?;
    // Each portion prolongs the right, so that it lasts as long as there is something to do.
    while outbox.take_lease(CLEAN_UP, holder, CLEAN_UP_EVERY).await? {
        let handled = store.store().forget_handled(settings.inbox_retention, FORGET_AT_ONCE).await?;
        let sent = store.store().forget_sent(sent_retention, FORGET_AT_ONCE).await?;
        if handled < FORGET_AT_ONCE && sent < FORGET_AT_ONCE {
            break;
        }
        tokio::task::yield_now().await;
    }
    outbox.give_up_lease(CLEAN_UP, holder).await
}
