//! What a foreign sender wrote that no field of the envelope shows.

use std::sync::Arc;

use crate::message::value::Headers;

/// What a foreign sender wrote, or left out, that no field of an [`Envelope`](crate::message::Envelope) shows. It is kept so that the
/// message is passed on as it came: to a retry, to the dead letters, from there back again.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Foreign {
    /// It came without an id; the one it has was made here.
    pub no_id: bool,
    /// It came without a media type; it counts as bytes.
    pub no_media_type: bool,
    /// It was moved, and does not say what its key is.
    pub no_type: bool,
    /// It came out of a delay, and does not say of what kind it is.
    pub no_kind: bool,
    /// An expiration that is no number of milliseconds as we would write it.
    pub expiration: Option<Arc<str>>,
    /// When it was sent, in seconds since 1970, if that is a time that the clock cannot count.
    pub timestamp: Option<u64>,
    /// The broker's user that sent it.
    pub user_id: Option<Arc<str>>,
    /// Headers of ours with values that are not those we write. What could be read of them is in the fields.
    pub headers: Headers,
}
