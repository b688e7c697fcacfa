//! Typed values to bytes and back. The content type chooses the codec: MessagePack with named fields (the
//! default), JSON, text, bytes.

mod buffer;
mod charset;
#[cfg(feature = "compression")]
mod compression;
#[path = "no_compression.rs"]
#[cfg(not(feature = "compression"))]
mod compression;
mod content;
mod depth;
mod empty;
mod error;
mod layer;
mod limits;
mod text;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::codec::depth::Walked;
use crate::codec::empty::Empty;
use crate::message::MediaType;

pub(crate) use charset::in_utf8;
pub(crate) use content::{compress, is_known};
pub use content::{content, decode_content, decompress};
pub use error::{DecodeError, EncodeError};
pub(crate) use limits::DEEPEST;
pub use limits::Limits;

/// The byte order mark that some senders write in front of UTF-8. JSON does not allow it; other text may contain it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The four encodings that Postrider knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// MessagePack with named fields.
    Msgpack,
    /// JSON.
    Json,
    /// UTF-8 text.
    Text,
    /// Uninterpreted bytes.
    Bytes,
}

/// The encoding of a reply: that of the request, if it can carry any value.
pub(crate) fn media_type_of_answer(asked: &MediaType) -> Option<MediaType> {
    match Codec::for_media_type(asked) {
        Some(Codec::Json) => Some(MediaType::JSON),
        Some(Codec::Msgpack) => Some(MediaType::MSGPACK),
        _ => None,
    }
}

impl Codec {
    /// The codec for a content type. Any `…+json` is JSON, any `text/…` is text.
    #[must_use]
    pub fn for_media_type(media_type: &MediaType) -> Option<Self> {
        // First the usual spelling; other spellings take a closer look.
        Self::by_name(media_type.as_str()).or_else(|| {
            let essence = media_type.essence().to_ascii_lowercase();
            match essence.as_str() {
                other if other.ends_with("+json") => Some(Self::Json),
                known => Self::by_name(known).or_else(|| known.starts_with("text/").then_some(Self::Text)),
            }
        })
    }

    fn by_name(name: &str) -> Option<Self> {
        match name {
            "application/msgpack" | "application/x-msgpack" | "application/vnd.msgpack" => Some(Self::Msgpack),
            "application/json" | "text/json" => Some(Self::Json),
            "application/octet-stream" => Some(Self::Bytes),
            _ => None,
        }
    }
}

/// Encodes a value according to `media_type`.
///
/// # Errors
/// When there is no codec for the media type, the value does not fit it (text and bytes carry text only),
/// or the result is larger or deeper than `limits` allow.
pub fn encode<T: Serialize + ?Sized>(value: &T, media_type: &MediaType, limits: &Limits) -> Result<Bytes, EncodeError> {
    let bytes = encode_unlimited(value, media_type)?;
    limits.check(&bytes, media_type)?;
    Ok(bytes)
}

/// [`encode`] for a payload whose size and nesting are checked later.
pub(crate) fn encode_unlimited<T: Serialize + ?Sized>(value: &T, media_type: &MediaType) -> Result<Bytes, EncodeError> {
    let codec = Codec::for_media_type(media_type)
        .ok_or_else(|| EncodeError::UnknownMediaType { media_type: media_type.to_string() })?;
    let failed = |error: String| EncodeError::Value { media_type: media_type.to_string(), error };
    match codec {
        Codec::Msgpack => buffer::filled(|mut buffer| rmp_serde::encode::write_named(&mut buffer, value))
            .map_err(|error| failed(error.to_string())),
        Codec::Json => {
            buffer::filled(|buffer| serde_json::to_writer(buffer, value)).map_err(|error| failed(error.to_string()))
        }
        Codec::Text | Codec::Bytes => text::encode(value).map(Bytes::from).map_err(failed),
    }
}

/// Decodes a payload according to its content type. Nesting deeper than `limits` allow is refused before anything is
/// built.
///
/// # Errors
/// When there is no codec for the content type or the bytes do not contain such a value. The text has the content type
/// and the codec's message, never the payload.
pub fn decode<T: DeserializeOwned>(payload: &[u8], media_type: &MediaType, limits: &Limits) -> Result<T, DecodeError> {
    let codec = Codec::for_media_type(media_type)
        .ok_or_else(|| DecodeError::UnknownMediaType { media_type: media_type.to_string() })?;
    let failed = |error: String| DecodeError::Payload { media_type: media_type.to_string(), error };
    let too_deep = || failed(EncodeError::TooDeep { most: limits.deepest() }.to_string());
    let of_nothing = || T::deserialize(Empty).map_err(|error| failed(error.to_string()));
    match codec {
        Codec::Msgpack if payload.is_empty() => of_nothing(),
        Codec::Msgpack => match depth::msgpack(payload, limits.deepest()) {
            Walked::TooDeep => Err(too_deep()),
            Walked::Whole { rest } if rest > 0 => Err(failed(format!("{rest} bytes are left over"))),
            // For a cut payload the decoder reports what is missing.
            Walked::Whole { .. } | Walked::Cut => {
                rmp_serde::from_slice(payload).map_err(|error| failed(of_msgpack(&error)))
            }
        },
        Codec::Json => {
            let payload = in_utf8(payload, media_type)?;
            let payload = payload.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&payload);
            if payload.trim_ascii().is_empty() {
                return of_nothing();
            }
            if depth::json(payload, limits.deepest()) {
                return Err(too_deep());
            }
            serde_json::from_slice(payload).map_err(|error| failed(without_value(&error.to_string())))
        }
        Codec::Text => decode_text(&in_utf8(payload, media_type)?, of_nothing, failed),
        Codec::Bytes => decode_text(payload, of_nothing, failed),
    }
}

fn decode_text<T: DeserializeOwned>(
    payload: &[u8],
    of_nothing: impl FnOnce() -> Result<T, DecodeError>,
    failed: impl FnOnce(String) -> DecodeError,
) -> Result<T, DecodeError> {
    match text::decode(payload) {
        // An empty text is also a valid text, so it is tried first.
        Err(_) if payload.is_empty() => of_nothing(),
        read => read.map_err(failed),
    }
}

/// An error's text without the value or name found in the payload. The expected type, and sometimes the position, are
/// enough to find the mistake.
fn without_value(text: &str) -> String {
    let met = [
        ("invalid type: ", "a value of another type or range"),
        ("invalid value: ", "a value of another type or range"),
        ("unknown variant `", "an unknown variant"),
        ("unknown field `", "an unknown field"),
    ];
    let Some((_, instead)) = met.into_iter().find(|(start, _)| text.starts_with(start)) else { return text.to_owned() };
    // The value may contain these words too; the expectation comes last.
    let expected = text.rfind(", expected ").or_else(|| text.rfind(", there are no ")).unwrap_or(text.len());
    format!("{instead}{}", &text[expected..])
}

/// The error's text without the marker: the marker of a short value contains the value.
fn of_msgpack(error: &rmp_serde::decode::Error) -> String {
    let text = without_value(&error.to_string());
    match error {
        rmp_serde::decode::Error::TypeMismatch(_) => text.split('(').next().unwrap_or_default().to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod property_tests;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1.0e12_f64..1.0e12).prop_map(Value::from),
            ".{0,30}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".{0,8}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_survives_json_and_msgpack(value in value()) {
            for media_type in [MediaType::JSON, MediaType::MSGPACK, MediaType::new("application/vnd.x+json; charset=utf-8")] {
                let bytes = encode(&value, &media_type, &Limits::default()).unwrap();
                prop_assert_eq!(&decode::<Value>(&bytes, &media_type, &Limits::default()).unwrap(), &value);
            }
        }

        #[test]
        fn any_text_survives_every_codec(text in ".{0,200}") {
            for media_type in [MediaType::JSON, MediaType::MSGPACK, MediaType::TEXT, MediaType::BYTES] {
                let bytes = encode(&text, &media_type, &Limits::default()).unwrap();
                prop_assert_eq!(&decode::<String>(&bytes, &media_type, &Limits::default()).unwrap(), &text);
            }
        }

        #[test]
        fn no_bytes_make_a_codec_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), most in 0_usize..8) {
            let limits = Limits { max_payload_bytes: 200, max_nesting: most, ..Limits::default() };
            for media_type in [MediaType::JSON, MediaType::MSGPACK, MediaType::TEXT, MediaType::BYTES, MediaType::new("x/y")] {
                let _ = (decode::<Value>(&bytes, &media_type, &limits), limits.check(&bytes, &media_type));
            }
        }
    }

    #[test]
    fn a_msgpack_payload_is_exactly_one_value() {
        let read = |bytes: &[u8]| decode::<(u8, u8)>(bytes, &MediaType::MSGPACK, &Limits::default());
        assert_eq!(read(&[0x92, 1, 2]).unwrap(), (1, 2));
        assert!(read(&[0x92, 1, 2, 3]).unwrap_err().to_string().contains("1 bytes are left over"));
        assert!(read(&[0x92, 1, 2, 0x91]).is_err(), "something that is cut comes after it");
        assert!(read(&[0x93, 1, 2, 3]).is_err(), "it has more than is asked for");
        assert!(read(&[0x92, 1]).is_err(), "it is cut");
    }

    #[test]
    fn errors_name_the_content_type_and_never_quote_the_payload() {
        let error = decode::<u64>(b"\"hunter2\"", &MediaType::JSON, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("application/json") && !error.contains("hunter2"), "{error}");
        let packed = rmp_serde::to_vec("hunter2").unwrap();
        let error = decode::<u64>(&packed, &MediaType::MSGPACK, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("application/msgpack") && !error.contains("hunter2"), "{error}");
        let error = encode(&1_u8, &MediaType::TEXT, &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("text/plain"), "{error}");
    }
}
