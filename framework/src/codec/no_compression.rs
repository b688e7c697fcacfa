//! Replaces compression in a build without the feature `compression`: every call fails.

use crate::codec::layer::{Compression, NotRead};

const NOT_BUILT: &str = "this build cannot; build Postrider with its feature `compression`";

pub(super) fn decompress(bytes: &[u8], _: Compression, most: usize) -> Result<Vec<u8>, NotRead> {
    if bytes.len() > most {
        return Err(NotRead::TooLarge);
    }
    Err(NotRead::Broken(NOT_BUILT.into()))
}

pub(super) fn compress(_: &[u8], _: Compression) -> Result<Vec<u8>, NotRead> {
    Err(NotRead::Broken(NOT_BUILT.into()))
}
