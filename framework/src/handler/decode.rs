use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::codec::{self, Codec, Limits};
use crate::message::{MediaType, Problem};

/// Reads a text handler's parameter: the payload as it is, in any media type but MessagePack, whose text is decoded.
pub(super) fn text(payload: &Bytes, media_type: &MediaType, limits: &Limits) -> Result<String, Problem> {
    if Codec::for_media_type(media_type) == Some(Codec::Msgpack) {
        return typed(payload, media_type, limits);
    }
    match std::str::from_utf8(payload) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => Err(undecodable(format!("the payload is not UTF-8 after {} bytes", error.valid_up_to()))),
    }
}

/// Reads any other parameter by content type.
pub(super) fn typed<T: DeserializeOwned>(
    payload: &Bytes,
    media_type: &MediaType,
    limits: &Limits,
) -> Result<T, Problem> {
    codec::decode(payload, media_type, limits).map_err(|error| undecodable(error.to_string()))
}

fn undecodable(text: String) -> Problem {
    Problem::new(Problem::UNDECODABLE, text)
}
