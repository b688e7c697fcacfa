use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::bus::{Bus, Identity, Origin};
use crate::handler::held::Held;
use crate::handler::{Context, HandlerSpec, HeldLimits};
use crate::message::{Envelope, MediaType};

/// One attempt at handling one message: what middleware sees around a handler.
pub struct Invocation {
    pub(super) envelope: Rc<Envelope>,
    pub(super) spec: HandlerSpec,
    pub(super) work: Rc<Work>,
}

/// What an attempt may use and what it holds.
pub struct Work {
    pub(super) identity: Arc<Identity>,
    pub(super) bus: Option<Bus>,
    pub(super) origin: Origin,
    pub(super) cancellation: CancellationToken,
    pub(super) stop_app: CancellationToken,
    pub(super) limits: HeldLimits,
    pub(super) held: RefCell<Held>,
    pub(super) requests: Cell<u32>,
    pub(super) answers: RefCell<HashMap<String, (MediaType, bytes::Bytes)>>,
}

impl Work {
    /// The work of an attempt made by a running actor.
    #[must_use]
    pub fn new(
        bus: Bus,
        origin: Origin,
        cancellation: CancellationToken,
        stop_app: CancellationToken,
        limits: HeldLimits,
    ) -> Self {
        Self {
            bus: Some(bus.clone()),
            ..Self::detached(Arc::clone(&bus.identity), origin, cancellation, stop_app, limits)
        }
    }

    pub(super) fn detached(
        identity: Arc<Identity>,
        origin: Origin,
        cancellation: CancellationToken,
        stop_app: CancellationToken,
        limits: HeldLimits,
    ) -> Self {
        Self {
            identity,
            bus: None,
            origin,
            cancellation,
            stop_app,
            limits,
            held: RefCell::default(),
            requests: Cell::new(0),
            answers: RefCell::default(),
        }
    }
}

impl Invocation {
    /// An attempt at a message.
    #[must_use]
    pub fn new(envelope: Rc<Envelope>, spec: HandlerSpec, work: Work) -> Self {
        Self { envelope, spec, work: Rc::new(work) }
    }

    /// The message.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The message, to be changed for this attempt only: a retry sees the original again.
    pub fn envelope_mut(&mut self) -> &mut Envelope {
        Rc::make_mut(&mut self.envelope)
    }

    /// The handler.
    #[must_use]
    pub fn spec(&self) -> &HandlerSpec {
        &self.spec
    }

    /// What the handler gets.
    #[must_use]
    pub fn context(&self) -> Context {
        Context { envelope: Rc::clone(&self.envelope), work: Rc::clone(&self.work) }
    }

    /// Takes what the handler wants to send.
    #[must_use]
    pub fn take_held(&self) -> Vec<Envelope> {
        self.work.held.borrow_mut().take()
    }
}
