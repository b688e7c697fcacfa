//! A store as one actor uses it.

use std::cell::RefCell;

use crate::handler::{FailureClass, Guarantee, Outcome};
use crate::message::Envelope;
use crate::store::{ActorNumber, InboxEntry, MAX_ID_BYTES, Session, StoreError, StoreHandle};

/// The header by which a caller says that two messages with different ids are one.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// An actor's store, its number in the inbox, and its sessions that no handler uses right now.
pub struct ActorStore {
    pub(super) handle: StoreHandle,
    actor: ActorNumber,
    pub(super) guarantee: Guarantee,
    /// At most as many as handlers run at once.
    sessions: RefCell<Vec<Box<dyn Session>>>,
}

impl ActorStore {
    /// The store of an actor with this number.
    #[must_use]
    pub fn new(handle: StoreHandle, actor: ActorNumber, guarantee: Guarantee) -> Self {
        Self { handle, actor, guarantee, sessions: RefCell::default() }
    }

    /// A session that no handler uses.
    pub(super) async fn session(&self) -> Result<Box<dyn Session>, StoreError> {
        let kept = self.sessions.borrow_mut().pop();
        match kept {
            Some(session) => Ok(session),
            None => self.handle.store().session().await,
        }
    }

    /// Keeps a session for the next handler.
    pub(super) fn keep(&self, session: Box<dyn Session>) {
        self.sessions.borrow_mut().push(session);
    }

    /// The inbox's entry for a message.
    pub(super) fn entry(&self, envelope: &Envelope) -> Result<InboxEntry, Outcome> {
        let id = match envelope.headers.text(IDEMPOTENCY_KEY) {
            Some(key) => key,
            None if envelope.has_own_id() => envelope.id.as_str(),
            None => {
                let text = "it has neither a message id nor an `idempotency-key`, so a repetition could not be told from a new message";
                return Err(Outcome::failed(FailureClass::NoId, "no-id", text));
            }
        };
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            let text = format!("its id has {} bytes; the inbox takes ids of 1 to {MAX_ID_BYTES} bytes", id.len());
            return Err(Outcome::failed(FailureClass::NoId, "no-id", text));
        }
        Ok(InboxEntry::new(self.actor, id, envelope))
    }
}
