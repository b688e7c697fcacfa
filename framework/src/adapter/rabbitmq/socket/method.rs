//! Escapes and restores strings from other senders in methods, such as the exchange and routing key of a delivery.

use crate::adapter::rabbitmq::socket::content::put_unescaped;
use crate::adapter::rabbitmq::socket::escape::{escape, needs_escape};
use crate::adapter::rabbitmq::socket::walk::{Walk, put_short};

/// A field of a method.
#[derive(Clone, Copy)]
enum Field {
    Short,
    Bytes(usize),
}
use Field::{Bytes, Short};

/// The frame size that every peer must accept.
pub(in crate::adapter::rabbitmq) const MIN_FRAME_MAX: usize = 4096;

/// Class and method, and the fields up to the last string from another sender (AMQP 0-9-1, XML definition).
const FROM_BROKER: [(u16, u16, &[Field]); 6] = [
    // basic.deliver: consumer tag, delivery tag, redelivered, exchange, routing key.
    (60, 60, &[Short, Bytes(9), Short, Short]),
    // basic.return: code, text, exchange, routing key.
    (60, 50, &[Bytes(2), Short, Short, Short]),
    // basic.get-ok: delivery tag, redelivered, exchange, routing key.
    (60, 71, &[Bytes(9), Short, Short]),
    // channel.close and connection.close: code, text. The broker may cut a long text within a character.
    (20, 40, &[Bytes(2), Short]),
    (10, 50, &[Bytes(2), Short]),
    // connection.blocked: reason.
    (10, 60, &[Short]),
];
/// basic.publish: reserved, exchange, routing key.
const PUBLISH: (u16, u16, &[Field]) = (60, 40, &[Bytes(2), Short, Short]);

fn fields<'a>(payload: &'a [u8], known: &[(u16, u16, &'static [Field])]) -> Option<(Walk<'a>, &'static [Field])> {
    let mut walk = Walk(payload);
    let (class, method) = (walk.u16()?, walk.u16()?);
    let (.., fields) = known.iter().find(|(known, number, _)| (*known, *number) == (class, method))?;
    Some((walk, fields))
}

/// The largest frame that the broker accepts, if this method is connection.tune. Zero is no limit. A value below [`MIN_FRAME_MAX`]
/// counts as that (AMQP 0-9-1, section 4.2.3).
pub(super) fn frame_max(payload: &[u8]) -> Option<usize> {
    let &[0, 10, 0, 30, _, _, a, b, c, d, ..] = payload else { return None };
    let most = u32::from_be_bytes([a, b, c, d]) as usize;
    (most > 0).then(|| most.max(MIN_FRAME_MAX))
}

/// Whether the client can read a method from the broker unchanged. A truncated one is left to the client.
pub(super) fn is_readable(payload: &[u8]) -> bool {
    let Some((mut walk, fields)) = fields(payload, &FROM_BROKER) else { return true };
    for field in fields {
        match field {
            Short => match walk.short() {
                Some(text) if needs_escape(text) => return false,
                Some(_) => {}
                None => return true,
            },
            Bytes(count) => {
                let _ = walk.bytes(*count);
            }
        }
    }
    true
}

/// A method from the broker with its strings escaped.
pub(super) fn readable(payload: &[u8]) -> Option<Vec<u8>> {
    let known = fields(payload, &FROM_BROKER)?;
    let put = |to: &mut Vec<u8>, text: &[u8]| {
        if needs_escape(text) { put_short(to, escape(text).as_bytes()) } else { put_short(to, text) }
    };
    rewritten(payload, known, put)
}

/// A method to the broker with its original strings.
pub(super) fn original(payload: &[u8]) -> Option<Vec<u8>> {
    let known = fields(payload, &[PUBLISH])?;
    rewritten(payload, known, |to, text| {
        put_unescaped(to, text);
    })
}

fn rewritten(
    payload: &[u8],
    (mut walk, fields): (Walk<'_>, &[Field]),
    put: impl Fn(&mut Vec<u8>, &[u8]),
) -> Option<Vec<u8>> {
    let mut made = payload.get(..4)?.to_vec();
    for field in fields {
        match field {
            Short => put(&mut made, walk.short()?),
            Bytes(count) => made.extend_from_slice(walk.bytes(*count)?),
        }
    }
    made.extend_from_slice(walk.0);
    Some(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliver(routing_key: &[u8]) -> Vec<u8> {
        let mut payload = vec![0, 60, 0, 60, 2, b'c', b't', 0, 0, 0, 0, 0, 0, 0, 9, 1, 0];
        put_short(&mut payload, routing_key);
        payload
    }

    #[test]
    fn a_routing_key_that_is_no_utf_8_is_escaped_and_the_rest_stays() {
        let payload = deliver(b"a.\xff");
        assert!(!is_readable(&payload) && is_readable(&deliver("a.ä".as_bytes())));
        assert_eq!(readable(&payload).unwrap(), deliver("a.\u{fffd}ff".as_bytes()));
    }

    #[test]
    fn a_publication_gets_its_bytes_back() {
        let publish = |key: &[u8]| {
            let mut payload = vec![0, 60, 0, 40, 0, 0, 0];
            put_short(&mut payload, key);
            payload.push(1);
            payload
        };
        assert_eq!(original(&publish(escape(b"r\xff").as_bytes())).unwrap(), publish(b"r\xff"));
        assert_eq!(original(&deliver(b"x")), None, "not ours");
    }

    #[test]
    fn what_is_cut_off_is_left_to_the_client() {
        let payload = deliver(b"a.\xff");
        for length in 0..payload.len() {
            assert!(is_readable(&payload[..length]));
        }
    }
}
