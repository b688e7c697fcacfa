//! What a handler may return, and how it becomes an answer.

use serde::Serialize;

use crate::codec;
use crate::handler::{FailureClass, HandlerError, Invocation, Outcome, Reply};
use crate::message::Problem;

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "write `Result<{Self}, Failure>`, or `()` for no answer",
    note = "return `()`, `Result<(), E>` or `Result<T, E>`, where `T` implements `serde::Serialize` and `E` implements `postrider::HandlerError`"
)]
pub trait Returned {
    /// The outcome, with the answer if the sender wants a reply.
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
            Err(error) => {
                invocation.note_hindrance(error.source_error());
                Outcome::from_error(&error)
            }
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

/// Encodes the answer in the media type of the request if that can carry any value, else in the app's.
fn answer<T: Serialize>(value: &T, invocation: &Invocation) -> Outcome {
    if !invocation.envelope.wants_reply() {
        return Outcome::Done(None);
    }
    let identity = invocation.work.identity();
    let media_type = codec::media_type_of_answer(&invocation.envelope.media_type);
    let media_type = media_type.unwrap_or_else(|| identity.media_type.clone());
    match codec::encode(value, &media_type, &identity.limits) {
        Ok(payload) => Outcome::Done(Some(Reply { media_type, payload })),
        Err(error) => {
            Outcome::failed(FailureClass::Permanent, Problem::FAILED, format!("the answer cannot be sent: {error}"))
        }
    }
}
