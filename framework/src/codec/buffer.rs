//! A reusable buffer for encoding, so that each payload needs one allocation of its exact size.

use std::cell::Cell;

use bytes::Bytes;

/// The largest buffer that a thread keeps, in bytes.
const KEPT: usize = 16 * 1024;

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The bytes that the function writes. If a value encodes another one meanwhile, that one gets a buffer of its own.
pub(super) fn filled<E>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<Bytes, E> {
    let mut buffer = BUFFER.take();
    buffer.clear();
    write(&mut buffer)?;
    if buffer.capacity() > KEPT {
        return Ok(buffer.into());
    }
    let bytes = Bytes::copy_from_slice(&buffer);
    BUFFER.set(buffer);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_before_or_meanwhile_is_not_in_it() {
        let refused: Result<Bytes, ()> = filled(|buffer| {
            buffer.extend(b"refused");
            Err(())
        });
        assert!(refused.is_err());
        for size in [0, 1, KEPT - 1, KEPT, KEPT + 1, 5] {
            let written: Result<_, ()> = filled(|buffer| {
                buffer.resize(size, b'a');
                let inner: Result<Bytes, ()> = filled(|buffer| {
                    buffer.extend(b"inner");
                    Ok(())
                });
                assert_eq!(inner, Ok(Bytes::from_static(b"inner")));
                Ok(())
            });
            assert_eq!(written, Ok(Bytes::from(vec![b'a'; size])));
        }
    }
}
