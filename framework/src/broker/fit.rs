//! Properties that have to fit into a frame.

use crate::broker::{CUT_HEADERS, DEAD, KIND, Properties, is_reserved_header};

/// Names of headers that are listed at most, of those that were left out.
const MOST_NAMED: usize = 20;
/// Letters of each that are listed at most.
const NAME_SHOWN: usize = 60;

/// Leaves out the largest headers until the rest takes at most `most` bytes, and says which: a message that cannot be moved
/// would be delivered again for ever. Foreign ones go first; then those that look like ours, but are too large for it.
pub(crate) fn fit_into_frame(properties: &mut Properties, most: usize) {
    let mut cut = Vec::new();
    while properties.size() > most {
        let written_now = |name: &str| name == KIND || name.starts_with(DEAD) || name == CUT_HEADERS && !cut.is_empty();
        let others = properties.headers.iter().filter(|(name, _)| !written_now(name));
        let largest = others.max_by_key(|(name, value)| (!is_reserved_header(name), value.size()));
        let Some(largest) = largest.map(|(name, _)| name.to_owned()) else { break };
        properties.headers.remove(&largest);
        cut.push(largest.chars().take(NAME_SHOWN).collect::<String>());
        cut.truncate(MOST_NAMED);
        properties.headers.set(CUT_HEADERS, cut.join(", "));
    }
}
