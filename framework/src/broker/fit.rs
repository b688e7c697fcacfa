//! Makes properties and headers fit into a frame.

use std::cmp::Reverse;

use crate::broker::headers::{CUT_HEADERS, DEAD, is_reserved_header, remove_header, size, write_headers};
use crate::message::Envelope;

/// The most removed headers that are listed.
pub(crate) const MOST_NAMED: usize = 20;
/// The most characters of each listed name.
pub(crate) const NAME_SHOWN: usize = 60;
/// The most bytes of the list.
pub(crate) const LIST_BYTES: usize = MOST_NAMED * (NAME_SHOWN * 4 + 2) + 64;

/// Removes the largest headers until the rest takes at most `most` bytes, and lists the removed ones in a header. A
/// message that cannot be moved would be delivered again for ever. Foreign headers go first, then those with our
/// prefix; dead-letter headers stay.
pub(crate) fn fit_into_frame(envelope: &mut Envelope, most: usize) {
    let mut size = size(envelope);
    if size <= most {
        return;
    }
    let mut others = Vec::new();
    write_headers(envelope, |name, value| {
        if !name.starts_with(DEAD) {
            others.push((is_reserved_header(name), Reverse(value.size()), name.to_owned()));
        }
    });
    others.sort_unstable();
    let room = most.saturating_sub(LIST_BYTES);
    let mut names = Vec::new();
    for (_, Reverse(bytes), name) in others {
        if size <= room {
            break;
        }
        size = size.saturating_sub(bytes + name.len());
        if names.len() < MOST_NAMED {
            names.push(name.chars().take(NAME_SHOWN).collect::<String>());
        }
        remove_header(envelope, &name);
    }
    envelope.headers.set(CUT_HEADERS, names.join(", "));
}
