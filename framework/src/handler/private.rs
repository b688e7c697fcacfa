//! What the expansion of the macros calls. Not for users: it changes without notice.
#![doc(hidden)]

use std::marker::PhantomData;

use serde::de::DeserializeOwned;

pub use crate::handler::contracts::*;
pub use crate::handler::returned::{Answer, Returned};
pub use crate::handler::spec::{Attributes, Guarantee, HandlerSpec, Scope};
pub use crate::handler::{
    Class, Context, FailureClass, FromContext, HandlerError, Invocation, Outcome, PolicyWords, Table,
};
pub use crate::message::{Command, ContentEncoding, Contract, Event, Kind, MediaType, Query, Request};
pub use bytes::Bytes;

use crate::handler::spec::Actor;
use crate::handler::{Failed, Failure, decode};
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

/// A parameter named `Context` that is taken by value: ours is a mistake, which [`ByValue::IS_OURS`] tells; somebody else's is like all others.
pub struct ByValue<T>(PhantomData<T>);

impl ByValue<Context> {
    pub const IS_OURS: bool = true;

    pub async fn from_context(context: &Context) -> Result<Context, Failure> {
        Ok(context.clone())
    }
}

pub trait OtherContext<T> {
    const IS_OURS: bool = false;
}

impl<T> OtherContext<T> for ByValue<T> {}

pub trait FromOtherContext<T> {
    fn from_context(context: &Context) -> impl Future<Output = Result<T, Failure>>;
}

impl<T: FromContext> FromOtherContext<T> for ByValue<T> {
    fn from_context(context: &Context) -> impl Future<Output = Result<T, Failure>> {
        T::from_context(context)
    }
}

/// An annotated impl block. The compiler shows the trait's name when one type has two such blocks.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a service actor",
    label = "not a service actor",
    note = "annotate its impl block: `#[distributed(service = \"…\")] impl {Self} {{ … }}`"
)]
#[allow(non_camel_case_types, reason = "it is read as a sentence")]
pub trait one_type_has_one_distributed_block__put_all_handlers_into_it_or_make_a_second_type_with_its_own_queue:
    Sized + 'static
{
    fn attributes() -> Attributes;
    fn handlers(table: &mut Table<Self>);
}

use one_type_has_one_distributed_block__put_all_handlers_into_it_or_make_a_second_type_with_its_own_queue as Block;

#[diagnostic::do_not_recommend]
impl<S: Block> Actor for S {
    fn attributes() -> Attributes {
        <S as Block>::attributes()
    }

    fn handlers(table: &mut Table<Self>) {
        <S as Block>::handlers(table);
    }
}

/// The outcome of an extractor that failed.
pub fn not_extracted(failure: &Failure) -> Outcome {
    Outcome::from_error(failure)
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
