//! One connection to the broker. When it is lost, it reconnects, without a limit on the number of tries.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use lapin::{Connection, ConnectionProperties, Event};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::adapter::amqp::Declared;
use crate::adapter::rabbitmq::ANSWER_TIMEOUT;
use crate::adapter::rabbitmq::address::{Addresses, shown};
use crate::adapter::rabbitmq::errors::{connecting, of_all};
use crate::adapter::rabbitmq::{declare, restore, socket};
use crate::broker::{BrokerError, ConnectionState, MAX_PROPERTIES_BYTES};
use crate::message::is_logged;
use crate::supervise::{Backoff, Tasks, supervise};

/// The pause before the first try to reconnect. It doubles with each try; half of it is random.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two tries.
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How often the state of the connection is read, besides its events.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long the client needs after an error to know whether the connection is gone.
const ERROR_SETTLE_TIME: Duration = Duration::from_millis(20);

/// Bytes of a frame that are neither properties nor headers, with a margin for the estimate of their size.
const FRAME_BYTES: usize = 256;

/// The state of a link.
#[derive(Clone)]
pub(super) enum LinkState {
    Down(BrokerError),
    /// The connection, and its number: 1 for the first one, one more for each reconnect.
    Up(Arc<Connection>, u64),
    /// This process has closed it. It does not reconnect.
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
    /// The topology to declare on each new connection before the link is reported as up.
    declared: Option<Arc<Declared>>,
    /// The largest frame of the current connection, in bytes.
    frame_max: AtomicUsize,
    /// Another link. When the broker blocks this one, both are reported as blocked.
    also_shown: Option<Arc<Link>>,
    /// Whether the task that reconnects has started.
    begun: AtomicBool,
}

impl Link {
    pub(super) fn new(
        addresses: Addresses,
        name: String,
        handle: Handle,
        tasks: Tasks,
        declared: Option<Arc<Declared>>,
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
            declared,
            also_shown: None,
            begun: AtomicBool::new(false),
            frame_max: AtomicUsize::new(usize::MAX),
        })
    }

    /// A second link: when the broker blocks it, the other link is reported as blocked too.
    pub(super) fn shown_by(other: &Arc<Self>, addresses: Addresses, name: String, handle: Handle) -> Arc<Self> {
        let mut link = Self::new(addresses, name, handle, other.tasks.clone(), None);
        if let Some(link) = Arc::get_mut(&mut link) {
            link.also_shown = Some(Arc::clone(other));
        }
        link
    }

    /// Reads whether the broker blocks the connection: events from before we listened are not repeated.
    fn read_blocked(&self, connection: &Connection) {
        if connection.status().blocked() && !self.shown.borrow().blocked {
            self.set_blocked(true);
        }
    }

    /// Reports whether the broker blocks this link, here and on the link it is shown by.
    fn set_blocked(&self, blocked: bool) {
        let shown_by = self.also_shown.as_deref().unwrap_or(self);
        let own = matches!(&*shown_by.state.borrow(), LinkState::Up(connection, _) if connection.status().blocked());
        shown_by.shown.send_modify(|shown| shown.blocked = blocked || own);
        self.shown.send_modify(|shown| shown.blocked = blocked);
    }

    /// Connects, and from then on reconnects whenever the connection is lost.
    pub(super) async fn start(self: &Arc<Self>) -> Result<(), BrokerError> {
        let connection = self.connect().await?;
        self.replace(LinkState::Up(connection, 1));
        self.begun.store(true, Ordering::Release);
        self.spawn_reconnecting();
        Ok(())
    }

    /// Starts to connect in the background, once; later calls do nothing.
    pub(super) fn begin(self: &Arc<Self>) {
        if !self.begun.swap(true, Ordering::AcqRel) {
            self.spawn_reconnecting();
        }
    }

    fn spawn_reconnecting(self: &Arc<Self>) {
        let (link, closed) = (Arc::clone(self), Arc::clone(self));
        let keep_connected = async move || Arc::clone(&link).keep_connected().await;
        let name = format!("connection {}", self.name);
        self.handle.spawn(supervise(
            self.tasks.clone(),
            name,
            async move { closed.until_closed().await },
            keep_connected,
        ));
    }

    pub(super) async fn until_closed(&self) {
        // An error means that the link was dropped, which also counts as closed.
        let _ = self.subscribe().wait_for(|state| matches!(state, LinkState::Closed)).await;
    }

    pub(super) fn connection(&self) -> watch::Receiver<ConnectionState> {
        self.shown.subscribe()
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// Waits until the link is up; gives the connection and its number.
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

    /// Closes the connection and waits for the broker's answer, within a limit.
    pub(super) async fn close(&self) {
        self.shown.send_modify(|shown| shown.up = false);
        if let LinkState::Up(connection, _) = self.state.send_replace(LinkState::Closed)
            && connection.status().connected()
        {
            // If the broker does not answer, it sees the socket close.
            let _ = timeout(ANSWER_TIMEOUT, connection.close(200, "OK".into())).await;
        }
    }

    /// Closes the link without waiting for the broker.
    pub(super) fn shut(&self) {
        self.shown.send_modify(|shown| shown.up = false);
        self.state.send_replace(LinkState::Closed);
    }

    /// The most bytes of properties and headers that fit into a frame.
    pub(super) fn max_properties(&self) -> usize {
        MAX_PROPERTIES_BYTES.min(self.frame_max.load(Ordering::Acquire).saturating_sub(FRAME_BYTES))
    }

    /// Whether this process has closed it.
    pub(super) fn is_closed(&self) -> bool {
        matches!(&*self.state.borrow(), LinkState::Closed)
    }

    /// Reconnects until the link is closed. It starts from the current state, because an earlier run may have panicked.
    async fn keep_connected(self: Arc<Self>) {
        let (mut epoch, mut connection) = match &*self.state.borrow() {
            LinkState::Up(connection, epoch) => (*epoch, Some(Arc::clone(connection))),
            LinkState::Down(_) | LinkState::Closed => (self.shown.borrow().epoch, None),
        };
        loop {
            if let Some(connection) = connection.take() {
                until_lost(&connection, &self).await;
                self.set_blocked(false);
                if self.is_closed() {
                    return;
                }
                if is_logged("the connection to the broker was lost", &self.name) {
                    tracing::warn!(connection = %self.name, "the connection to the broker was lost; connecting again");
                }
                self.replace(LinkState::Down(BrokerError::Lost { reason: "connecting again".into() }));
            }
            let Some(made) = self.reconnect(epoch > 0).await else { return };
            epoch += 1;
            self.replace(LinkState::Up(Arc::clone(&made), epoch));
            if epoch > 1 && is_logged("connected to the broker again", &self.name) {
                tracing::info!(connection = %self.name, epoch, "connected again");
            }
            connection = Some(made);
        }
    }

    /// Tries until a connection is open. `None` once the link is closed.
    async fn reconnect(&self, pause_first: bool) -> Option<Arc<Connection>> {
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

    /// Sets a new state, unless the link has been closed.
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

    /// Tries each node once, in the order of the address.
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
            // Another node may accept what this one refuses.
            errors.push(error);
        }
        Err(of_all(errors))
    }

    async fn prepare(&self, connection: &Connection) -> Result<(), BrokerError> {
        let Some(declared) = &self.declared else { return Ok(()) };
        let topology = declared.exchanges();
        let missing = restore::missing(connection, &topology.exchanges).await?;
        if !missing.is_empty() {
            declared.found_missing(missing);
        }
        declare::declare(connection, &topology).await
    }
}

/// Waits until the connection is lost, or the link is closed.
async fn until_lost(connection: &Connection, link: &Link) {
    let mut state = link.subscribe();
    let mut events = connection.events_listener();
    let mut pause = POLL_INTERVAL;
    while connection.status().connected() {
        link.read_blocked(connection);
        tokio::select! {
            event = events.next() => match event {
                None => return,
                // Errors of single channels are reported here too; only the state says whether the connection is gone.
                Some(Event::Error(_)) => pause = ERROR_SETTLE_TIME,
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
            () = sleep(pause) => pause = POLL_INTERVAL,
            closed = state.wait_for(|state| matches!(state, LinkState::Closed)) => {
                drop(closed);
                return;
            }
        }
    }
}
