//! Typed values to bytes and back. The content type chooses the codec: MessagePack with named fields (the
//! default), JSON, text, bytes.

mod depth;
mod error;
mod limits;
mod text;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::message::MediaType;

pub use error::{DecodeError, EncodeError};
pub use limits::Limits;

/// The four encodings that Postrider knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// MessagePack with named fields.
    Msgpack,
    /// JSON.
    Json,
    /// UTF-8 text.
    Text,
    /// Bytes that mean nothing to us.
    Bytes,
}

impl Codec {
    /// The codec for a content type. Any `…+json` is JSON, any `text/…` is text.
    #[must_use]
    pub fn for_media_type(media_type: &MediaType) -> Option<Self> {
        match media_type.essence().to_ascii_lowercase().as_str() {
            "application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack" => Some(Self::Msgpack),
            "application/json" | "text/json" => Some(Self::Json),
            "application/octet-stream" => Some(Self::Bytes),
            other if other.ends_with("+json") => Some(Self::Json),
            other if other.starts_with("text/") => Some(Self::Text),
            _ => None,
        }
    }
}

/// Encodes a value as `media_type` says.
///
/// # Errors
/// When there is no codec for the media type, the value does not fit it (text and bytes carry text only),
/// or the result is larger or deeper than `limits` allow.
pub fn encode<T: Serialize + ?Sized>(value: &T, media_type: &MediaType, limits: &Limits) -> Result<Bytes, EncodeError> {
    let codec = Codec::for_media_type(media_type)
        .ok_or_else(|| EncodeError::UnknownMediaType { media_type: media_type.to_string() })?;
    let failed = |error: String| EncodeError::Value { media_type: media_type.to_string(), error };
    let bytes = match codec {
        Codec::Msgpack => rmp_serde::to_vec_named(value).map_err(|error| failed(error.to_string()))?,
        Codec::Json => serde_json::to_vec(value).map_err(|error| failed(error.to_string()))?,
        Codec::Text | Codec::Bytes => text::encode(value).map_err(failed)?,
    };
    limits.check(&bytes, media_type)?;
    Ok(bytes.into())
}

/// Decodes a payload into a value as its content type says. Nesting deeper than `limits` allow is refused
/// before anything is built.
///
/// # Errors
/// When there is no codec for the content type or the bytes are not such a value; the text names the content
/// type and what the codec said, never the payload.
pub fn decode<T: DeserializeOwned>(payload: &[u8], media_type: &MediaType, limits: &Limits) -> Result<T, DecodeError> {
    let codec = Codec::for_media_type(media_type)
        .ok_or_else(|| DecodeError::UnknownMediaType { media_type: media_type.to_string() })?;
    let failed = |error: String| DecodeError::Payload { media_type: media_type.to_string(), error };
    limits.check_depth(payload, media_type).map_err(|error| failed(error.to_string()))?;
    match codec {
        Codec::Msgpack => {
            let mut rest = payload;
            let value = rmp_serde::from_read(&mut rest).map_err(|error| failed(error.to_string()))?;
            if rest.is_empty() { Ok(value) } else { Err(failed(format!("{} bytes are left over", rest.len()))) }
        }
        Codec::Json => serde_json::from_slice(payload).map_err(|error| failed(without_value(&error))),
        Codec::Text | Codec::Bytes => text::decode(payload).map_err(failed),
    }
}

/// A JSON error's text can quote the value it met; the class and the place are enough to find it.
fn without_value(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => {
            let text = error.to_string();
            let kept = if text.starts_with("invalid") { "a value of another type or range" } else { text.as_str() };
            format!("{kept} at line {} column {}", error.line(), error.column())
        }
        _ => error.to_string(),
    }
}
