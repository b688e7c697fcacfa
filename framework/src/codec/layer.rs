//! One compression layer of a payload.

/// A compression algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    /// HTTP's `deflate`, which is zlib.
    Deflate,
    Zstd,
}

/// Why bytes could not be compressed or decompressed.
pub(super) enum NotRead {
    /// The result would exceed the limit.
    TooLarge,
    /// What is wrong with the bytes.
    Broken(String),
}
