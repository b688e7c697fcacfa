//! A store as one actor uses it.

use std::borrow::Cow;
use std::cell::RefCell;

use serde_json::{Map, Value};

use crate::codec::{self, Limits};
use crate::handler::{Attributes, FailureClass, Guarantee, Hindered, Outcome};
use crate::host::sharing::Sharing;
use crate::message::Envelope;
use crate::store::{ActorNumber, Hindrance, InboxEntry, MAX_ID_BYTES, Session, StoreError, StoreHandle};

/// The header by which a caller says that two messages with different ids are one.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// An actor's store, its number in the inbox, and its sessions that no handler uses right now.
pub struct ActorStore {
    pub(super) handle: StoreHandle,
    actor: ActorNumber,
    pub(super) guarantee: Guarantee,
    once_by: Option<&'static str>,
    limits: Limits,
    /// Which handlers take part in shared commits.
    pub(super) sharing: Sharing,
    /// At most as many as handlers run at once.
    sessions: RefCell<Vec<Box<dyn Session>>>,
}

impl ActorStore {
    /// The store of an actor with this number. At most `shared` waiting messages are committed together.
    #[must_use]
    pub fn new(
        handle: StoreHandle,
        actor: ActorNumber,
        attributes: &Attributes,
        limits: Limits,
        shared: usize,
    ) -> Self {
        let Attributes { guarantee, once_by, .. } = *attributes;
        let sharing = Sharing::new(if handle.store().writes_outside() { 1 } else { shared });
        Self { handle, actor, guarantee, once_by, limits, sharing, sessions: RefCell::default() }
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
        if session.is_usable() {
            self.sessions.borrow_mut().push(session);
        }
    }

    /// Closes the sessions that no handler uses.
    pub(super) fn close_kept(&self) {
        self.sessions.borrow_mut().clear();
    }

    /// The error of a handler whose database is why it failed.
    pub(super) fn hindered(&self, (hindrance, reason): Hindered) -> StoreError {
        let store = self.handle.store().describe().to_owned();
        match hindrance {
            Hindrance::Conflict => StoreError::Conflict { store, reason },
            Hindrance::Away => StoreError::Unavailable { store, reason },
        }
    }

    /// The inbox's entry for a message.
    pub(super) fn entry(&self, envelope: &Envelope) -> Result<InboxEntry, Outcome> {
        let id = match (self.once_by, envelope.headers.text(IDEMPOTENCY_KEY)) {
            (Some(name), _) => Cow::Owned(self.named(name, envelope)?),
            (None, Some(key)) => Cow::Borrowed(key),
            (None, None) if envelope.has_own_id() => Cow::Borrowed(envelope.id.as_str()),
            (None, None) => {
                return Err(no_id(
                    "it has neither a message id nor an `idempotency-key`, so a repetition could not be told from a new message",
                ));
            }
        };
        if id.is_empty() || id.len() > MAX_ID_BYTES {
            return Err(no_id(format!(
                "its id has {} bytes; the inbox takes ids of 1 to {MAX_ID_BYTES} bytes",
                id.len()
            )));
        }
        Ok(InboxEntry::new(self.actor, &id, envelope))
    }

    /// The value of a header, or else of a field of the message.
    fn named(&self, name: &str, envelope: &Envelope) -> Result<String, Outcome> {
        let header = envelope.headers.get(name);
        let header =
            header.and_then(|value| value.as_text().map(str::to_owned).or(value.as_integer().map(|n| n.to_string())));
        if let Some(header) = header {
            return Ok(header);
        }
        let fields: Map<String, Value> = codec::decode_content(envelope, &self.limits).map_err(|error| {
            no_id(format!("`once_by = {name:?}`: it has no such header, and its fields cannot be read: {error}"))
        })?;
        match fields.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(value @ (Value::Number(_) | Value::Bool(_))) => Ok(value.to_string()),
            _ => Err(no_id(format!(
                "`once_by = {name:?}`: it has neither such a header nor such a field with a text or a number"
            ))),
        }
    }
}

fn no_id(text: impl Into<String>) -> Outcome {
    Outcome::failed(FailureClass::NoId, "no-id", text)
}
