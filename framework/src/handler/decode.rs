//! Reads a handler's first parameter from the payload.

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::codec::{self, Codec, Limits};
use crate::message::{Envelope, Problem};

/// Reads a raw handler's parameter: the decompressed payload. If Postrider does not know the compression, the payload stays as it
/// came; the handler may know it.
pub(super) fn raw(envelope: &Envelope, limits: &Limits) -> Result<Bytes, Problem> {
    if envelope.content_encoding.as_ref().is_some_and(|encoding| !codec::is_known(encoding)) {
        return Ok(envelope.payload.clone());
    }
    codec::content(envelope, limits).map(Cow::into_owned).map_err(|error| undecodable(error.to_string()))
}

/// Reads a text handler's parameter: the payload as it is, in any media type but MessagePack, whose text is decoded.
pub(super) fn text(envelope: &Envelope, limits: &Limits) -> Result<String, Problem> {
    if Codec::for_media_type(&envelope.media_type) == Some(Codec::Msgpack) {
        return typed(envelope, limits);
    }
    let payload = codec::content(envelope, limits).map_err(|error| undecodable(error.to_string()))?;
    let payload = codec::in_utf8(&payload, &envelope.media_type).map_err(|error| undecodable(error.to_string()))?;
    match std::str::from_utf8(&payload) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => Err(undecodable(format!("the payload is not UTF-8 after {} bytes", error.valid_up_to()))),
    }
}

/// Reads any other parameter by content type.
pub(super) fn typed<T: DeserializeOwned>(envelope: &Envelope, limits: &Limits) -> Result<T, Problem> {
    codec::decode_content(envelope, limits).map_err(|error| undecodable(error.to_string()))
}

fn undecodable(text: String) -> Problem {
    Problem::new(Problem::UNDECODABLE, text)
}
