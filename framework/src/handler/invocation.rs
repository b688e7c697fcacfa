//! One attempt, as middleware and handlers see it.

use std::cell::{Cell, OnceCell, RefCell};
use std::error::Error;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::HashMap;
use tokio_util::sync::CancellationToken;

use crate::bus::pending_sends::{Envelopes, PendingSends};
use crate::bus::{Bus, Identity, Origin, RequestError};
use crate::handler::transaction::{Hindered, Lending, Lent};
use crate::handler::waiting::{Asking, Circle, Handling, Waits};
use crate::handler::{Context, HandlerSpec, HeldLimits, HoldsUp, Lane, OwnAnswers, Waiters};
use crate::message::{Envelope, Kind, MediaType};
use crate::store::Session;

/// One attempt at handling one message: what middleware sees around a handler.
pub struct Invocation {
    pub(super) envelope: Arc<Envelope>,
    pub(super) spec: HandlerSpec,
    pub(super) work: Rc<Work>,
}

/// What all attempts of an actor share.
pub struct Environment {
    /// The sender.
    pub identity: Arc<Identity>,
    /// How it sends; `None` in a unit test, which sends nothing.
    pub bus: Option<Bus>,
    /// Fires when running handlers are dropped.
    pub abandon: CancellationToken,
    /// Asks the process to stop.
    pub stop_app: CancellationToken,
    /// Limits on what a handler holds.
    pub held: HeldLimits,
    /// The actor's name, the same in every instance. The ids of the messages it sends are derived from it.
    pub name: Arc<str>,
    /// The actor's name in call paths.
    pub waiter: Arc<str>,
    /// The requests that this actor answers itself.
    pub own: OwnAnswers,
    /// Its handlers that wait for an answer.
    pub waiters: Rc<Waiters>,
}

/// What an attempt may use, and the messages it holds. Parts that few handlers need are made on demand.
pub struct Work {
    pub(super) environment: Rc<Environment>,
    /// The message as it came, before middleware changed it.
    message: Arc<Envelope>,
    /// How it holds up the actor while it waits.
    holds_up: HoldsUp,
    /// Whether the handler still runs.
    handling: Handling,
    /// Fires when this attempt is to end. `None` if it ends only with all others.
    ends: Option<CancellationToken>,
    origin: OnceCell<Origin>,
    cancellation: OnceCell<CancellationToken>,
    pub(super) held: RefCell<PendingSends>,
    pub(super) requests: Cell<u32>,
    /// Whether the handler has asked another one, or tried to.
    asked: Cell<bool>,
    pub(super) sent: Cell<u32>,
    pub(super) answers: RefCell<HashMap<String, (MediaType, bytes::Bytes)>>,
    /// The transaction that was lent to the handler. Few handlers take one.
    pub(super) lent: OnceCell<Box<Lent>>,
}

impl Work {
    /// The work of an attempt at a message. `ends` may end it before all others.
    #[must_use]
    pub fn new(
        environment: Rc<Environment>,
        message: Arc<Envelope>,
        holds_up: HoldsUp,
        ends: Option<CancellationToken>,
    ) -> Self {
        Self {
            environment,
            message,
            holds_up,
            handling: Handling::default(),
            ends,
            origin: OnceCell::new(),
            cancellation: OnceCell::new(),
            held: RefCell::default(),
            requests: Cell::new(0),
            asked: Cell::new(false),
            sent: Cell::new(0),
            answers: RefCell::default(),
            lent: OnceCell::new(),
        }
    }

    /// Gives the handler an open transaction.
    pub fn lend(&self, lending: Lending) {
        let _ = self.lent.set(Box::new(Lent::new(lending)));
    }

    /// Whether the handler has asked another one, or tried to.
    #[must_use]
    pub fn has_asked(&self) -> bool {
        self.asked.get()
    }

    /// What the handler's error said, if the database is why it failed.
    #[must_use]
    pub fn hindered(&self) -> Option<Hindered> {
        self.lent.get().and_then(|lent| lent.hindered.borrow_mut().take())
    }

    /// Takes the open transaction back.
    #[must_use]
    pub fn take_back(&self) -> Option<Box<dyn Session>> {
        self.lent.get().and_then(|lent| lent.session.borrow_mut().take())
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.environment.identity
    }

    /// What the message passes on.
    pub fn origin(&self) -> &Origin {
        self.origin.get_or_init(|| {
            let Environment { name, waiter, .. } = &*self.environment;
            // On this lane every instance gets the message, so each needs ids of its own.
            let seed = if self.holds_up.lane == Lane::Instance { waiter } else { name };
            Origin::of(Arc::clone(&self.message), Arc::clone(waiter), Arc::clone(seed))
        })
    }

    /// Registers that this handler waits for an answer, until the result is dropped. Fails if the request could only be answered
    /// after this handler has ended.
    pub(super) async fn ask(
        &self,
        bus: &Bus,
        kinds: &[Kind],
        to: (&str, Option<&str>),
    ) -> Result<Waits<'_>, RequestError> {
        let Environment { own, waiters, identity, .. } = &*self.environment;
        let (key, service) = to;
        self.asked.set(true);
        if self.lent.get().is_some_and(|lent| lent.shared || lent.holds_up_others.get()) {
            return Err(RequestError::InTransaction { key: key.to_owned() });
        }
        let conversation = self.message.conversation_id.as_ref().unwrap_or(&self.message.id).clone();
        let asking = Asking { holds_up: self.holds_up, handler: self.handling.clone(), conversation };
        let lane = match service {
            Some(service) if service != identity.service.as_str() => None,
            // A task that outlives its handler holds up nothing.
            _ if !self.handling.is_under_way() => None,
            _ => waiters.ask(bus, own, &asking, kinds, key).await.map_err(|circle| self.would_wait(key, circle))?,
        };
        Ok(waiters.wait(asking, lane, key))
    }

    /// The answer to a request, unless it turns out that it can only be answered after this handler has ended.
    pub(super) async fn answer<T>(
        &self,
        bus: &Bus,
        (waits, key): (&Waits<'_>, &str),
        answer: impl Future<Output = Result<T, RequestError>>,
    ) -> Result<T, RequestError> {
        tokio::select! {
            biased;
            answer = answer => answer,
            circle = self.environment.waiters.stuck(bus, &self.environment.own, waits) => Err(self.would_wait(key, circle)),
        }
    }

    fn would_wait(&self, key: &str, circle: Circle) -> RequestError {
        let waiter = &*self.environment.waiter;
        let path = self.message.call_path.iter().map(String::as_str).chain([waiter]).collect::<Vec<_>>().join(" → ");
        let why = match circle {
            Circle::Behind => "and only after the handler that asks".to_owned(),
            Circle::Full { most } => format!(
                "and cannot take it, because the {most} messages that it may hold wait for the handler that asks; raise prefetch or concurrency"
            ),
        };
        let text = format!("{waiter} answers it, {why}: {path}");
        RequestError::WouldWaitForItself { key: key.to_owned(), text }
    }

    /// A token of this attempt alone: cancelling it ends nothing else.
    pub(super) fn cancellation(&self) -> CancellationToken {
        let parent = self.ends.as_ref().unwrap_or(&self.environment.abandon);
        self.cancellation.get_or_init(|| parent.child_token()).clone()
    }
}

impl Invocation {
    /// An attempt at a message.
    #[must_use]
    pub fn new(envelope: Arc<Envelope>, spec: HandlerSpec, work: Work) -> Self {
        Self { envelope, spec, work: Rc::new(work) }
    }

    /// The message.
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The message, to be changed for this attempt only: a retry sees the original again.
    pub fn envelope_mut(&mut self) -> &mut Envelope {
        Arc::make_mut(&mut self.envelope)
    }

    /// The handler.
    #[must_use]
    pub fn spec(&self) -> &HandlerSpec {
        &self.spec
    }

    /// What the attempt passes on and may use.
    #[must_use]
    pub fn work(&self) -> &Work {
        &self.work
    }

    /// Looks whether the database is why the handler failed.
    pub(super) fn note_hindrance(&self, error: Option<&(dyn Error + 'static)>) {
        let Some(lent) = self.work.lent.get() else { return };
        let mut source = error;
        // Chains of errors are short. The limit guards against a chain that runs in a circle.
        for _ in 0..8 {
            let Some(error) = source else { return };
            if let Some(hindrance) = (lent.judge_error)(error) {
                *lent.hindered.borrow_mut() = Some((hindrance, error.to_string()));
                return;
            }
            source = error.source();
        }
    }

    /// The context that the handler gets.
    #[must_use]
    pub fn context(&self) -> Context {
        Context { envelope: Arc::clone(&self.envelope), work: Rc::clone(&self.work) }
    }

    /// Takes the held messages, and ends the handler: it can send nothing more.
    #[must_use]
    pub fn take_held(&self) -> Envelopes {
        self.work.handling.end();
        self.work.held.borrow_mut().take()
    }
}
