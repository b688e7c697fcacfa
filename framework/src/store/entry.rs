//! What the inbox remembers of a message.

use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use crate::message::Envelope;
use crate::store::{ActorNumber, Begun, StoredAnswer};

/// The most bytes of an id that the inbox takes.
pub const MAX_ID_BYTES: usize = 255;

/// The first byte of an id that is a UUID, before its 16 bytes.
const UUID: u8 = 1;
/// The first byte of any other id, before its text.
const TEXT: u8 = 2;

/// Identifies a message in the inbox of an actor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboxEntry {
    /// The actor.
    pub actor: ActorNumber,
    /// The id: a UUID takes 17 bytes, any other text one more than its length.
    pub id: Vec<u8>,
    /// A hash of kind, key and payload. Another message with the same id has another one.
    pub content: i64,
}

impl InboxEntry {
    /// The entry for a message that is known under this id.
    #[must_use]
    pub fn new(actor: ActorNumber, id: &str, envelope: &Envelope) -> Self {
        Self { actor, id: id_bytes(id), content: content_of(envelope) }
    }

    /// What it means that the inbox has a row of this id with this content and answer.
    #[must_use]
    pub fn is_known(&self, content: i64, answer: Option<&[u8]>) -> Begun {
        if content == self.content { Begun::Known(StoredAnswer::decode(answer)) } else { Begun::OtherContent }
    }
}

/// A UUID is kept as its bytes only if its text can be made from them again: two different texts are two different ids.
fn id_bytes(id: &str) -> Vec<u8> {
    let uuid = Uuid::try_parse(id).ok();
    let uuid = uuid.filter(|uuid| *uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *id);
    match uuid {
        Some(uuid) => [&[UUID][..], uuid.as_bytes()].concat(),
        None => [&[TEXT][..], id.as_bytes()].concat(),
    }
}

fn content_of(envelope: &Envelope) -> i64 {
    let mut hash = Xxh3::new();
    hash.update(envelope.kind.as_str().as_bytes());
    // No UTF-8 text contains this byte, so that different parts give different bytes.
    hash.update(&[0xff]);
    hash.update(envelope.key.as_str().as_bytes());
    hash.update(&[0xff]);
    hash.update(&envelope.payload);
    hash.digest().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Key, Kind, MediaType};

    fn message(key: &'static str, payload: &'static str) -> Envelope {
        Envelope::new(Kind::Command, Key::from_wire(key), MediaType::JSON, payload.into())
    }

    #[test]
    fn different_ids_have_different_bytes() {
        let uuid = "01890a5d-ac96-774b-bcce-b302099a8057";
        let ids = [uuid, "01890A5D-AC96-774B-BCCE-B302099A8057", "01890a5dac96774bbcceb302099a8057", "1", "", "\u{1}"];
        let bytes: std::collections::BTreeSet<_> = ids.iter().map(|id| id_bytes(id)).collect();
        assert_eq!(bytes.len(), ids.len());
        assert_eq!(id_bytes(uuid).len(), 17);
    }

    #[test]
    fn content_is_kind_key_and_payload_and_no_header() {
        let one = InboxEntry::new(ActorNumber(1), "1", &message("a.b", "c"));
        let mut again = message("a.b", "c");
        again.headers.set("tenant", "other");
        again.attempt = 7;
        assert_eq!(InboxEntry::new(ActorNumber(1), "1", &again), one);
        for other in [message("a.b", "d"), message("a.c", "c"), message("a.bc", "")] {
            assert_ne!(InboxEntry::new(ActorNumber(1), "1", &other).content, one.content);
        }
    }
}
