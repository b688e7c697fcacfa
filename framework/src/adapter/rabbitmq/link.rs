//! One connection that is made again whenever it is lost, without end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use lapin::{Connection, ConnectionProperties, Event};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::adapter::rabbitmq::ANSWER_TIMEOUT;
use crate::adapter::rabbitmq::address::{Addresses, shown};
use crate::adapter::rabbitmq::errors::{connecting, of_all};
use crate::adapter::rabbitmq::kept::Kept;
use crate::adapter::rabbitmq::{declare, restore, socket};
use crate::broker::{BrokerError, ConnectionState, MAX_PROPERTIES_BYTES};
use crate::supervise::{Backoff, Tasks, supervise};

/// The first pause after a connection was lost; it doubles up to the last, and half of it is chance.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two tries.
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How often a connection is looked at, beside what it tells by itself.
const LOOK: Duration = Duration::from_secs(1);

/// How long after an error the connection knows whether it is gone.
const SETTLES: Duration = Duration::from_millis(20);

/// What a frame has beside properties and headers, and what their size is wrong by at most.
const FRAME_BYTES: usize = 256;

/// How a link stands.
#[derive(Clone)]
pub(super) enum LinkState {
    Down(BrokerError),
    /// The connection, and its number.
    Up(Arc<Connection>, u64),
    /// Closed by us, for good.
    Closed,
}

pub(super) struct Link {
    addresses: Addresses,
    name: String,
    pub(super) handle: Handle,
    /// The supervised tasks of the app.
    pub(super) tasks: Tasks,
    state: watch::Sender<LinkState>,
    shown: watch::Sender<ConnectionState>,
    /// What must stand before the link counts as up again.
    kept: Option<Arc<Kept>>,
    /// The largest frame of the present connection, in bytes.
    frame_max: AtomicUsize,
    /// Another link of which is said too that it is blocked when this one is.
    also_shown: Option<Arc<Link>>,
    /// Whether it is kept up.
    begun: AtomicBool,
}

impl Link {
    pub(super) fn new(
        addresses: Addresses,
        name: String,
        handle: Handle,
        tasks: Tasks,
        kept: Option<Arc<Kept>>,
    ) -> Arc<Self> {
        let state = watch::channel(LinkState::Down(BrokerError::Lost { reason: "not connected yet".into() })).0;
        let shown = watch::channel(ConnectionState { up: false, epoch: 0, blocked: false }).0;
        Arc::new(Self {
            addresses,
            name,
            handle,
            tasks,
            state,
            shown,
            kept,
            also_shown: None,
            begun: AtomicBool::new(false),
            frame_max: AtomicUsize::new(usize::MAX),
        })
    }

    /// A link of which the other one says too that the broker blocks it.
    pub(super) fn shown_by(other: &Arc<Self>, addresses: Addresses, name: String, handle: Handle) -> Arc<Self> {
        let mut link = Self::new(addresses, name, handle, other.tasks.clone(), None);
        if let Some(link) = Arc::get_mut(&mut link) {
            link.also_shown = Some(Arc::clone(other));
        }
        link
    }

    /// What the connection was told before anybody listened is not told again: it is asked.
    fn look_whether_blocked(&self, connection: &Connection) {
        if connection.status().blocked() && !self.shown.borrow().blocked {
            self.set_blocked(true);
        }
    }

    /// Says whether the broker blocks this link, or the one that is shown by it.
    fn set_blocked(&self, blocked: bool) {
        let shown_by = self.also_shown.as_deref().unwrap_or(self);
        let own = matches!(&*shown_by.state.borrow(), LinkState::Up(connection, _) if connection.status().blocked());
        shown_by.shown.send_modify(|shown| shown.blocked = blocked || own);
        self.shown.send_modify(|shown| shown.blocked = blocked);
    }

    /// Connects for the first time, and keeps the link up from then on.
    pub(super) async fn start(self: &Arc<Self>) -> Result<(), BrokerError> {
        let connection = self.connect().await?;
        self.replace(LinkState::Up(connection, 1));
        self.begun.store(true, Ordering::Release);
        self.spawn_keep_up();
        Ok(())
    }

    /// Connects when it is needed for the first time, and keeps the link up from then on. Nobody waits for it here.
    pub(super) fn begin(self: &Arc<Self>) {
        if !self.begun.swap(true, Ordering::AcqRel) {
            self.spawn_keep_up();
        }
    }

    fn spawn_keep_up(self: &Arc<Self>) {
        let (kept_up, closed) = (Arc::clone(self), Arc::clone(self));
        let keep_up = async move || Arc::clone(&kept_up).keep_up().await;
        let name = format!("connection {}", self.name);
        self.handle.spawn(supervise(self.tasks.clone(), name, async move { closed.until_closed().await }, keep_up));
    }

    pub(super) async fn until_closed(&self) {
        // Fails only when the link is gone, which is as good.
        let _ = self.subscribe().wait_for(|state| matches!(state, LinkState::Closed)).await;
    }

    pub(super) fn connection(&self) -> watch::Receiver<ConnectionState> {
        self.shown.subscribe()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// The connection and its number, once it is up.
    pub(super) async fn up(&self, patience: Duration) -> Result<(Arc<Connection>, u64), BrokerError> {
        let mut state = self.subscribe();
        let settled = timeout(patience, state.wait_for(|state| !matches!(state, LinkState::Down(_)))).await;
        match settled.map(|state| state.map(|state| state.clone())) {
            Ok(Ok(LinkState::Up(connection, epoch))) => Ok((connection, epoch)),
            Ok(_) => Err(BrokerError::Stopped),
            Err(_) => match &*self.state.borrow() {
                LinkState::Down(error) => Err(error.clone()),
                LinkState::Up(..) | LinkState::Closed => {
                    Err(BrokerError::TimedOut { what: "connect".into(), seconds: patience.as_secs() })
                }
            },
        }
    }

    /// Closes the connection in good order.
    pub(super) async fn close(&self) {
        self.shown.send_modify(|shown| shown.up = false);
        if let LinkState::Up(connection, _) = self.state.send_replace(LinkState::Closed)
            && connection.status().connected()
        {
            // The broker notices the end of the connection also without being told.
            let _ = timeout(ANSWER_TIMEOUT, connection.close(200, "OK".into())).await;
        }
    }

    /// Ends the link without waiting.
    pub(super) fn shut(&self) {
        self.shown.send_modify(|shown| shown.up = false);
        self.state.send_replace(LinkState::Closed);
    }

    /// The most bytes of properties and headers that fit into a frame.
    pub(super) fn max_properties(&self) -> usize {
        MAX_PROPERTIES_BYTES.min(self.frame_max.load(Ordering::Acquire).saturating_sub(FRAME_BYTES))
    }

    /// Whether we have closed it.
    pub(super) fn is_closed(&self) -> bool {
        matches!(&*self.state.borrow(), LinkState::Closed)
    }

    /// Goes on from whatever the link is, because a run before this one may have panicked.
    async fn keep_up(self: Arc<Self>) {
        let (mut epoch, mut connection) = match &*self.state.borrow() {
            LinkState::Up(connection, epoch) => (*epoch, Some(Arc::clone(connection))),
            LinkState::Down(_) | LinkState::Closed => (self.shown.borrow().epoch, None),
        };
        loop {
            if let Some(connection) = connection.take() {
                lost(&connection, &self).await;
                self.set_blocked(false);
                if self.is_closed() {
                    return;
                }
                tracing::warn!(connection = %self.name, "the connection to the broker was lost; connecting again");
                self.replace(LinkState::Down(BrokerError::Lost { reason: "connecting again".into() }));
            }
            let Some(made) = self.connect_again(epoch > 0).await else { return };
            epoch += 1;
            self.replace(LinkState::Up(Arc::clone(&made), epoch));
            if epoch > 1 {
                tracing::info!(connection = %self.name, epoch, "connected again");
            }
            connection = Some(made);
        }
    }

    /// Tries until it works; nothing once the link is closed.
    async fn connect_again(&self, pause_first: bool) -> Option<Arc<Connection>> {
        let mut backoff = Backoff::new(FIRST_PAUSE, LAST_PAUSE);
        if pause_first {
            sleep(backoff.random()).await;
        }
        while !self.is_closed() {
            match self.connect().await {
                Ok(connection) => return Some(connection),
                Err(error) => {
                    if backoff.pause() == LAST_PAUSE || error.is_permanent() {
                        tracing::warn!(connection = %self.name, %error, "still not connected");
                    }
                    self.replace(LinkState::Down(error));
                }
            }
            backoff.grow();
            sleep(backoff.random()).await;
        }
        None
    }

    /// Sets a new state, unless the link was closed meanwhile.
    fn replace(&self, new: LinkState) {
        if self.is_closed() {
            return;
        }
        self.shown.send_modify(|shown| match &new {
            LinkState::Up(_, epoch) => *shown = ConnectionState { up: true, epoch: *epoch, blocked: false },
            LinkState::Down(_) | LinkState::Closed => shown.up = false,
        });
        self.state.send_if_modified(|state| {
            let open = !matches!(state, LinkState::Closed);
            if open {
                *state = new;
            }
            open
        });
    }

    /// Tries each node once.
    async fn connect(&self) -> Result<Arc<Connection>, BrokerError> {
        let mut errors = Vec::new();
        for uri in &self.addresses.nodes {
            let address = shown(uri);
            let properties = ConnectionProperties::default().with_connection_name(self.name.clone().into());
            let connecting_to = socket::connect(uri.clone(), properties, self.addresses.tls(), self.handle.clone());
            let error = match timeout(ANSWER_TIMEOUT, connecting_to).await {
                Ok(Ok(connection)) => match self.prepare(&connection).await {
                    Ok(()) => {
                        let frame_max = connection.configuration().frame_max() as usize;
                        self.frame_max.store(frame_max, Ordering::Release);
                        return Ok(Arc::new(connection));
                    }
                    Err(error) => error,
                },
                Ok(Err(error)) => connecting(&error, &address),
                Err(_) => BrokerError::Unreachable { address, reason: format!("no answer within {ANSWER_TIMEOUT:?}") },
            };
            // What one refuses another may grant.
            errors.push(error);
        }
        Err(of_all(errors))
    }

    async fn prepare(&self, connection: &Connection) -> Result<(), BrokerError> {
        let Some(kept) = &self.kept else { return Ok(()) };
        let topology = kept.exchanges();
        let missing = restore::missing(connection, &topology.exchanges).await?;
        if !missing.is_empty() {
            kept.found_missing(missing);
        }
        declare::declare(connection, &topology).await
    }
}

/// Waits until a connection is gone, or the link was closed.
async fn lost(connection: &Connection, link: &Link) {
    let mut state = link.subscribe();
    let mut events = connection.events_listener();
    let mut look = LOOK;
    while connection.status().connected() {
        link.look_whether_blocked(connection);
        tokio::select! {
            event = events.next() => match event {
                None => return,
                // Also the mistake of one channel is reported here: the connection itself says whether it is gone.
                Some(Event::Error(_)) => look = SETTLES,
                Some(Event::ConnectionBlocked(reason)) => {
                    tracing::warn!(reason, "the broker blocks publishers");
                    link.set_blocked(true);
                }
                Some(Event::ConnectionUnblocked) => {
                    tracing::info!("the broker takes messages again");
                    link.set_blocked(false);
                }
                Some(_) => {}
            },
            () = sleep(look) => look = LOOK,
            closed = state.wait_for(|state| matches!(state, LinkState::Closed)) => {
                drop(closed);
                return;
            }
        }
    }
}
