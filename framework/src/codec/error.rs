//! Errors of encoding and decoding.

/// Why a value could not become a payload. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// There is no codec for the media type.
    #[error(
        "no codec for media type {media_type:?}; use application/msgpack, application/json, text/plain or application/octet-stream, or send the encoded bytes with Payload::bytes"
    )]
    UnknownMediaType {
        /// The media type asked for.
        media_type: String,
    },
    /// The value does not fit the encoding.
    #[error("the value cannot be encoded as {media_type}: {error}")]
    Value {
        /// The media type asked for.
        media_type: String,
        /// The codec's message.
        error: String,
    },
    /// It cannot be compressed with this encoding.
    #[error("a payload cannot be sent with the content encoding {encoding:?}: {why}")]
    Encoding {
        /// The content encoding asked for.
        encoding: String,
        /// What to do instead.
        why: String,
    },
    /// The payload has too many bytes.
    #[error("the payload has {bytes} bytes; at most {most} are allowed (max_payload_bytes)")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// The payload is nested too deeply.
    #[error("the payload is nested deeper than {most} levels (max_nesting)")]
    TooDeep {
        /// The limit.
        most: usize,
    },
}

/// Why a payload could not become a value. The texts never quote the payload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// There is no codec for the content type.
    #[error(
        "no codec for content type {media_type:?}; send application/msgpack, application/json, text/plain or application/octet-stream"
    )]
    UnknownMediaType {
        /// The content type of the message.
        media_type: String,
    },
    /// The charset is unknown.
    #[error("the charset {charset:?} of the content type is not known; send UTF-8, ISO-8859-1 or UTF-16")]
    UnknownCharset {
        /// The charset of the content type.
        charset: String,
    },
    /// The content encoding is unknown.
    #[error(
        "the content encoding {encoding:?} is not known; send gzip, zstd, deflate, or what is not compressed and no content_encoding"
    )]
    UnknownEncoding {
        /// The content encoding of the message.
        encoding: String,
    },
    /// The bytes do not match the content encoding.
    #[error("the payload cannot be decompressed from {encoding}: {error}")]
    Compressed {
        /// The content encoding of the message.
        encoding: String,
        /// The decompressor's message.
        error: String,
    },
    /// The decompressed payload is too large.
    #[error(
        "the payload has more than {most} bytes when it is decompressed from {encoding}; no more are allowed (max_decompressed_bytes)"
    )]
    TooLarge {
        /// The content encoding of the message.
        encoding: String,
        /// The limit.
        most: usize,
    },
    /// The bytes do not contain such a value.
    // The difference comes first, because a table cuts the text.
    #[error("{error}; the payload is not what its content type {media_type} and the handler expect")]
    Payload {
        /// The content type of the message.
        media_type: String,
        /// The codec's message.
        error: String,
    },
}
