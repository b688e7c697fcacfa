//! Gzip, zlib and zstd, all in Rust.

use std::io::{Read, Write};

use flate2::bufread::{MultiGzDecoder, ZlibDecoder};
use flate2::write::GzEncoder;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::codec::layer::{Compression, NotRead};

/// The largest zstd window that we accept, in bytes; every decoder should support it (RFC 8878). Its memory is
/// allocated before anything is read.
const MAX_ZSTD_WINDOW: u64 = 8 * 1024 * 1024;
/// The first allocation for the result, in bytes; it grows as needed.
const FIRST_ROOM: usize = 16 * 1024;

/// The decompressed bytes, if there are at most `most`.
pub(super) fn decompress(bytes: &[u8], compression: Compression, most: usize) -> Result<Vec<u8>, NotRead> {
    let mut room = Vec::with_capacity(FIRST_ROOM.min(most));
    match compression {
        Compression::Gzip => read(MultiGzDecoder::new(bytes), &mut room, most)?,
        Compression::Deflate => read(ZlibDecoder::new(bytes), &mut room, most)?,
        Compression::Zstd => frames(bytes, &mut room, most)?,
    }
    Ok(room)
}

fn frames(mut bytes: &[u8], room: &mut Vec<u8>, most: usize) -> Result<(), NotRead> {
    let broken = |error: &dyn std::fmt::Display| NotRead::Broken(error.to_string());
    let mut read_one = false;
    // Each iteration reads one frame.
    while !read_one || !bytes.is_empty() {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_ZSTD_WINDOW.max(most as u64));
        let mut frame = StreamingDecoder::new_with_decoder(&mut bytes, decoder).map_err(|error| broken(&error))?;
        read(&mut frame, room, most)?;
        let decoder = frame.into_frame_decoder();
        if decoder.get_checksum_from_data().is_some_and(|sum| Some(sum) != decoder.get_calculated_checksum()) {
            return Err(broken(&"its checksum does not match"));
        }
        read_one = true;
    }
    Ok(())
}

/// Reads to the end, and at most one byte above the limit.
fn read(from: impl Read, room: &mut Vec<u8>, most: usize) -> Result<(), NotRead> {
    let left = (most as u64).saturating_sub(room.len() as u64);
    from.take(left + 1).read_to_end(room).map_err(|error| NotRead::Broken(error.to_string()))?;
    if room.len() > most { Err(NotRead::TooLarge) } else { Ok(()) }
}

pub(super) fn compress(bytes: &[u8], compression: Compression) -> Result<Vec<u8>, NotRead> {
    match compression {
        Compression::Zstd => Ok(compress_to_vec(bytes, CompressionLevel::Fastest)),
        Compression::Gzip | Compression::Deflate => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
            let written = encoder.write_all(bytes).and_then(|()| encoder.finish());
            written.map_err(|error| NotRead::Broken(error.to_string()))
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use crate::codec::content::{compress, decompress};
    use crate::codec::{DecodeError, Limits};
    use crate::message::ContentEncoding;

    fn payload() -> impl Strategy<Value = Vec<u8>> {
        let repeated =
            (prop::collection::vec(any::<u8>(), 1..40), 1..2_000_usize).prop_map(|(part, times)| part.repeat(times));
        prop_oneof![prop::collection::vec(any::<u8>(), 0..3_000), repeated]
    }

    proptest! {
        #[test]
        fn any_payload_comes_back_as_it_was_or_is_refused_for_its_size(payload in payload(), zstd in any::<bool>(), most in 0..60_000_usize) {
            let encoding = if zstd { ContentEncoding::Zstd } else { ContentEncoding::Gzip };
            let compressed = compress(&payload, &encoding).unwrap();
            let limits = Limits { max_decompressed_bytes: most, ..Limits::default() };
            match decompress(&compressed, &encoding, &limits) {
                Ok(bytes) => prop_assert_eq!(&bytes[..], &payload[..]),
                Err(error) => prop_assert!(payload.len() > most && matches!(error, DecodeError::TooLarge { .. }), "{error}"),
            }
        }

        #[test]
        fn no_bytes_make_it_panic_or_give_more_than_is_allowed(
            payload in payload(), damage in prop::collection::vec((any::<u16>(), any::<u8>()), 0..6), cut in any::<u16>(), which in 0..3_usize
        ) {
            let encoding = [ContentEncoding::Gzip, ContentEncoding::Zstd, ContentEncoding::Other("deflate".into())][which].clone();
            let mut bytes = compress(&payload, &encoding).map_or_else(|_| payload.clone(), |bytes| bytes.to_vec());
            for (place, byte) in damage.into_iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
                let place = usize::from(place) % bytes.len();
                bytes[place] = byte;
            }
            bytes.truncate(bytes.len().saturating_sub(usize::from(cut) % 20));
            let limits = Limits { max_decompressed_bytes: 10_000, ..Limits::default() };
            if let Ok(read) = decompress(&Bytes::from(bytes), &encoding, &limits) {
                prop_assert!(read.len() <= 10_000);
            }
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_in_memory() {
        let bomb = vec![0_u8; 2 * 1024 * 1024];
        let limits = Limits { max_decompressed_bytes: 64 * 1024, ..Limits::default() };
        for encoding in [ContentEncoding::Gzip, ContentEncoding::Zstd] {
            let small = compress(&bomb, &encoding).unwrap();
            let error = decompress(&small, &encoding, &limits).unwrap_err();
            assert!(small.len() < 64 * 1024 && error.to_string().contains("max_decompressed_bytes"), "{error}");
        }
    }
}
