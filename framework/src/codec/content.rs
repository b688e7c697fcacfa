//! Compresses and decompresses payloads.

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::codec::layer::{Compression, NotRead};
use crate::codec::{DecodeError, EncodeError, Limits, compression, decode};
use crate::message::{ContentEncoding, Envelope};

/// The most compressions of one payload. More than one is already unusual.
const MOST_LAYERS: usize = 4;

/// The decompressed payload of a message.
///
/// # Errors
/// When its content encoding is unknown, the bytes do not match it, or the result is larger than the limit.
pub fn content<'a>(envelope: &'a Envelope, limits: &Limits) -> Result<Cow<'a, Bytes>, DecodeError> {
    match &envelope.content_encoding {
        None => Ok(Cow::Borrowed(&envelope.payload)),
        Some(encoding) => decompress(&envelope.payload, encoding, limits).map(Cow::Owned),
    }
}

/// [`decode`] for the content of a message.
///
/// # Errors
/// As [`content`] and [`decode`].
pub fn decode_content<T: DeserializeOwned>(envelope: &Envelope, limits: &Limits) -> Result<T, DecodeError> {
    decode(&content(envelope, limits)?, &envelope.media_type, limits)
}

/// Whether Postrider supports this content encoding, at least with the feature `compression`.
pub(crate) fn is_known(encoding: &ContentEncoding) -> bool {
    layers(encoding.as_str()).is_some()
}

/// Decompresses a payload within the limits.
///
/// # Errors
/// As [`content`].
pub fn decompress(payload: &Bytes, encoding: &ContentEncoding, limits: &Limits) -> Result<Bytes, DecodeError> {
    let unknown = || DecodeError::UnknownEncoding { encoding: encoding.to_string() };
    let most = limits.max_decompressed_bytes;
    let mut bytes = payload.clone();
    // The encoding names the compressions in the order of their application, so undo the last one first.
    for layer in layers(encoding.as_str()).ok_or_else(unknown)?.into_iter().rev() {
        bytes = match compression::decompress(&bytes, layer, most) {
            Ok(decompressed) => decompressed.into(),
            Err(NotRead::TooLarge) => return Err(DecodeError::TooLarge { encoding: encoding.to_string(), most }),
            Err(NotRead::Broken(error)) => {
                return Err(DecodeError::Compressed { encoding: encoding.to_string(), error });
            }
        };
    }
    Ok(bytes)
}

/// Compresses a payload.
///
/// # Errors
/// When the encoding is not one of ours, or this build cannot compress.
pub(crate) fn compress(payload: &[u8], encoding: &ContentEncoding) -> Result<Bytes, EncodeError> {
    let refused = |why: &str| EncodeError::Encoding { encoding: encoding.to_string(), why: why.to_owned() };
    let compression = match encoding {
        ContentEncoding::Gzip => Compression::Gzip,
        ContentEncoding::Zstd => Compression::Zstd,
        ContentEncoding::Other(_) => return Err(refused("use gzip or zstd, or send what is encoded with `dispatch`")),
    };
    match compression::compress(payload, compression) {
        Ok(bytes) => Ok(bytes.into()),
        Err(NotRead::Broken(error)) => Err(refused(&error)),
        Err(NotRead::TooLarge) => Err(refused("it is too large")),
    }
}

/// The compressions that a content encoding names, first one first. Some senders put the charset there, alone or beside
/// a compression; UTF-8 and ASCII are skipped, any other charset is unknown.
fn layers(encoding: &str) -> Option<Vec<Compression>> {
    let mut layers = Vec::new();
    for name in encoding.split([',', ':']) {
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => layers.push(Compression::Gzip),
            "deflate" => layers.push(Compression::Deflate),
            "zstd" => layers.push(Compression::Zstd),
            "" | "identity" | "none" | "binary" | "7bit" | "8bit" | "utf-8" | "utf8" | "us-ascii" | "ascii" => {}
            _ => return None,
        }
    }
    (layers.len() <= MOST_LAYERS).then_some(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_known_as_others_write_them() {
        use Compression::{Deflate, Gzip, Zstd};
        let known = [
            ("gzip", vec![Gzip]),
            ("GZIP", vec![Gzip]),
            ("gzip, utf-8", vec![Gzip]),
            ("gzip:UTF-8", vec![Gzip]),
            ("deflate", vec![Deflate]),
            ("identity", vec![]),
            ("utf-8", vec![]),
            ("binary", vec![]),
            ("gzip, zstd", vec![Gzip, Zstd]),
        ];
        for (encoding, expected) in known {
            assert_eq!(layers(encoding), Some(expected), "{encoding}");
        }
        for unknown in ["br", "utf-16", "gzip, br", "gzip,gzip,gzip,gzip,gzip", "base64"] {
            assert_eq!(layers(unknown), None, "{unknown}");
        }
    }
}
