//! A context without a running app, for unit tests of handlers.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::bus::Identity;
use crate::codec::{self, Limits};
use crate::handler::{Context, Environment, HeldLimits, HoldsUp, Lane, OwnAnswers, Waiters, Work};
use crate::message::{Contract, Envelope, Key, Kind, MediaType};

impl Context {
    /// A context for calling a handler in a unit test. It holds the messages that the handler sends, see [`Context::sent`], and
    /// answers requests with what [`Context::answering`] has set.
    ///
    /// ```
    /// # use postrider::{Context, Payload};
    /// let cx = Context::for_test();
    /// cx.publish_key("invoice.created", Payload::json(&1)).unwrap();
    /// assert_eq!(cx.sent()[0].key.as_str(), "invoice.created");
    /// ```
    #[must_use]
    pub fn for_test() -> Self {
        let message = Envelope::new(Kind::Command, Key::from_wire("test"), MediaType::MSGPACK, Bytes::new());
        Self::for_test_with(message)
    }

    /// [`Context::for_test`] with a message of your own.
    #[must_use]
    pub fn for_test_with(message: Envelope) -> Self {
        let environment = Environment {
            identity: Arc::new(Identity::plain("test", "test")),
            bus: None,
            abandon: CancellationToken::new(),
            stop_app: CancellationToken::new(),
            held: HeldLimits::default(),
            name: "test".into(),
            waiter: "test.test@test".into(),
            own: OwnAnswers::default(),
            waiters: Rc::new(Waiters::default()),
        };
        let message = Arc::new(message);
        let holds_up = HoldsUp { lane: Lane::Durable, exclusive: false };
        let work = Work::new(Rc::new(environment), Arc::clone(&message), holds_up, None);
        Self { envelope: message, work: Rc::new(work) }
    }

    /// Sets the answer to requests for this key in a unit test.
    ///
    /// # Panics
    /// When the value cannot be encoded.
    #[must_use]
    pub fn answering<R: Serialize>(self, key: &str, reply: &R) -> Self {
        #[allow(clippy::expect_used, reason = "for unit tests, where a panic is the right answer")]
        let bytes = codec::encode(reply, &MediaType::MSGPACK, &Limits::default()).expect("the answer can be encoded");
        self.work.answers.borrow_mut().insert(key.to_owned(), (MediaType::MSGPACK, bytes));
        self
    }

    /// The messages that are held so far.
    #[must_use]
    pub fn sent(&self) -> Vec<Envelope> {
        self.work.held.borrow().messages().cloned().collect()
    }

    /// The messages of one type that are held so far.
    ///
    /// # Panics
    /// When a held message of this type's kind and key cannot be decoded as this type.
    #[must_use]
    pub fn sent_of<M: Contract + DeserializeOwned>(&self) -> Vec<M> {
        let limits = Limits::default();
        let held =
            self.sent().into_iter().filter(|envelope| envelope.kind == M::KIND && envelope.key.as_str() == M::KEY);
        #[allow(clippy::expect_used, reason = "for unit tests, where a panic is the right answer")]
        held.map(|envelope| codec::decode_content(&envelope, &limits).expect("a message of this type")).collect()
    }
}
