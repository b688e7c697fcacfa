//! One compression of a payload.

/// How bytes were compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    /// HTTP's `deflate`: zlib.
    Deflate,
    Zstd,
}

/// Why bytes cannot be compressed, or what was compressed cannot be had.
pub(super) enum NotRead {
    /// It would be more than is allowed.
    TooLarge,
    /// What is wrong with the bytes.
    Broken(String),
}
