//! What the expansion of the macros calls. Not for users: it changes without notice.
#![doc(hidden)]

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use crate::handler::spec::{Actor, Attributes, Guarantee, HandlerSpec, Scope};
pub use crate::handler::{
    Class, Context, FailureClass, FromContext, HandlerError, Invocation, Outcome, PolicyWords, Table,
};
pub use crate::message::{Command, ContentEncoding, Contract, Event, Kind, MediaType, Query, Request};
pub use bytes::Bytes;

use crate::codec::{self, Codec};
use crate::handler::{Failed, Failure, Reply, decode};
use crate::message::Problem;

/// A parameter that carries the message.
#[diagnostic::on_unimplemented(
    message = "a handler cannot take `{Self}` as its message",
    label = "not a message",
    note = "the first parameter after `self` is the message: a type that implements `serde::Deserialize`, or `Bytes` or `String` for the raw payload"
)]
pub trait Payload: DeserializeOwned {}

#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned> Payload for T {}

/// Reads the message: raw for `Bytes` and `String` by the inherent methods, which win, typed for everything else.
pub struct Read<T>(PhantomData<T>);

impl<T> Read<T> {
    pub const NEW: Self = Self(PhantomData);
}

impl Read<Bytes> {
    #[allow(clippy::unused_self, reason = "an inherent method must look like the trait's to win over it")]
    pub fn read(&self, invocation: &mut Invocation) -> Result<Bytes, Outcome> {
        decode::raw(&invocation.envelope, &invocation.work.identity().limits).map_err(undecodable)
    }
}

impl Read<String> {
    #[allow(clippy::unused_self, reason = "an inherent method must look like the trait's to win over it")]
    pub fn read(&self, invocation: &mut Invocation) -> Result<String, Outcome> {
        decode::text(&invocation.envelope, &invocation.work.identity().limits).map_err(undecodable)
    }
}

pub trait ReadTyped<T> {
    fn read(&self, invocation: &mut Invocation) -> Result<T, Outcome>;
}

impl<T: Payload> ReadTyped<T> for Read<T> {
    fn read(&self, invocation: &mut Invocation) -> Result<T, Outcome> {
        decode::typed(&invocation.envelope, &invocation.work.identity().limits).map_err(undecodable)
    }
}

fn undecodable(problem: Problem) -> Outcome {
    let log = problem.text.clone();
    Outcome::Failed(Failed { class: FailureClass::Undecodable, problem, log })
}

/// A parameter that is taken by reference.
#[diagnostic::on_unimplemented(
    message = "a handler cannot take `&{Self}`",
    label = "not `&Context`",
    note = "after the message a handler takes `&Context` by reference and types that implement `postrider::FromContext` by value"
)]
pub trait ByReference {
    fn by_reference(context: &Context) -> &Self;
}

#[diagnostic::do_not_recommend]
impl ByReference for Context {
    fn by_reference(context: &Context) -> &Self {
        context
    }
}

/// The outcome of an extractor that failed.
pub fn not_extracted(failure: &Failure) -> Outcome {
    Outcome::from_error(failure)
}

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "neither `()` nor a `Result`",
    note = "return `()`, `Result<(), E>` or `Result<T, E>`, where `T` implements `serde::Serialize` and `E` implements `postrider::HandlerError`"
)]
pub trait Returned {
    fn into_outcome(self, invocation: &mut Invocation) -> Outcome;
}

#[diagnostic::do_not_recommend]
impl Returned for () {
    fn into_outcome(self, invocation: &mut Invocation) -> Outcome {
        answer(&(), invocation)
    }
}

impl<T: Answer, E: HandlerError> Returned for Result<T, E> {
    fn into_outcome(self, invocation: &mut Invocation) -> Outcome {
        match self {
            Ok(value) => answer(&value, invocation),
            Err(error) => Outcome::from_error(&error),
        }
    }
}

/// What a handler may answer.
#[diagnostic::on_unimplemented(
    message = "a handler cannot answer with `{Self}`",
    label = "not an answer",
    note = "an answer implements `serde::Serialize`: derive it with `#[derive(serde::Serialize)]`"
)]
pub trait Answer: Serialize {}

#[diagnostic::do_not_recommend]
impl<T: Serialize> Answer for T {}

/// The answer in the encoding of the question, if it has one that can carry any value.
fn answer<T: Serialize>(value: &T, invocation: &Invocation) -> Outcome {
    if !invocation.envelope.wants_reply() {
        return Outcome::Done(None);
    }
    let asked = &invocation.envelope.media_type;
    let identity = invocation.work.identity();
    let media_type = match Codec::for_media_type(asked) {
        Some(Codec::Json) => MediaType::JSON,
        Some(Codec::Msgpack) => MediaType::MSGPACK,
        _ => identity.media_type.clone(),
    };
    match codec::encode(value, &media_type, &identity.limits) {
        Ok(payload) => Outcome::Done(Some(Reply { media_type, payload })),
        Err(error) => {
            Outcome::failed(FailureClass::Permanent, Problem::FAILED, format!("the answer cannot be sent: {error}"))
        }
    }
}

/// What is known of a message type at compile time: an inherent constant for contracts, the trait's default for
/// all other types.
pub struct Probe<T>(PhantomData<T>);

impl<T: Contract> Probe<T> {
    pub const KEY: Option<&'static str> = Some(T::KEY);
    pub const KIND: Option<Kind> = Some(T::KIND);
}

pub trait NoContract {
    const KEY: Option<&'static str> = None;
    const KIND: Option<Kind> = None;
}

impl<T> NoContract for Probe<T> {}

/// Whether a handler that returns `R` answers what the contract `M` promises.
pub struct ReplyProbe<M, R>(PhantomData<(M, R)>);

impl<M: Request> ReplyProbe<M, PhantomData<()>> {
    pub const PROMISED: bool = true;
}

pub trait NothingPromised {
    const PROMISED: bool = false;
}

impl<M, R> NothingPromised for ReplyProbe<M, R> {}

impl<M: Request<Reply = T>, T, E> ReplyProbe<M, Result<T, E>> {
    pub const ANSWERS: bool = true;
}

impl<M: Request<Reply = ()>> ReplyProbe<M, ()> {
    pub const ANSWERS: bool = true;
}

pub trait AnswersNothing {
    const ANSWERS: bool = false;
}

impl<M, R> AnswersNothing for ReplyProbe<M, R> {}

/// A contract with an empty key has a mistake that is reported where it is.
#[must_use]
pub const fn same_key(key: &str, contract: Option<&str>) -> bool {
    match contract {
        Some(contract) => contract.is_empty() || same(key, contract),
        None => true,
    }
}

#[must_use]
pub const fn same_kind(kind: Kind, contract: Option<Kind>) -> bool {
    match contract {
        Some(contract) => kind as u8 == contract as u8,
        None => true,
    }
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Reads a typed message.
pub fn typed<T: Payload>(invocation: &mut Invocation) -> Result<T, Outcome> {
    Read::<T>::NEW.read_typed(invocation)
}

impl<T: Payload> Read<T> {
    #[allow(clippy::unused_self, reason = "the same shape as the raw reads")]
    fn read_typed(&self, invocation: &mut Invocation) -> Result<T, Outcome> {
        ReadTyped::read(self, invocation)
    }
}
