//! A payload that is already encoded, for calls that take a key.

use bytes::Bytes;
use serde::Serialize;

use crate::codec::{self, EncodeError};
use crate::message::MediaType;

/// An encoded payload for the calls that take a key. An encoding error is reported by the call.
#[derive(Debug, Clone)]
pub struct Payload {
    pub(crate) encoded: Result<Bytes, EncodeError>,
    pub(crate) media_type: MediaType,
}

impl Payload {
    /// A value as JSON.
    #[must_use]
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Self {
        Self::encode(value, MediaType::JSON)
    }

    /// A value as MessagePack.
    #[must_use]
    pub fn msgpack<T: Serialize + ?Sized>(value: &T) -> Self {
        Self::encode(value, MediaType::MSGPACK)
    }

    /// A text as it is.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { encoded: Ok(Bytes::from(text.into())), media_type: MediaType::TEXT }
    }

    /// Bytes that are encoded already, in any media type.
    #[must_use]
    pub fn bytes(bytes: impl Into<Bytes>, media_type: MediaType) -> Self {
        Self { encoded: Ok(bytes.into()), media_type }
    }

    /// A value in any media type that has a codec.
    #[must_use]
    pub fn encode<T: Serialize + ?Sized>(value: &T, media_type: MediaType) -> Self {
        // The call checks the app's limits; this only encodes the value.
        Self { encoded: codec::encode_unlimited(value, &media_type), media_type }
    }
}
