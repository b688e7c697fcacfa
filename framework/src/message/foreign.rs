//! Data of a foreign sender that has no field in the envelope.

use std::sync::Arc;

use crate::message::value::Headers;

/// Data that a foreign sender wrote, or left out, and that has no field in an [`Envelope`](crate::message::Envelope).
/// It is kept so that the message is passed on unchanged: to a retry, to the dead letters, and back.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Foreign {
    /// It arrived without an id; its id was made here.
    pub no_id: bool,
    /// It arrived without a media type; it counts as bytes.
    pub no_media_type: bool,
    /// It was moved and does not name its key.
    pub no_type: bool,
    /// It was delayed and does not name its kind.
    pub no_kind: bool,
    /// An expiration that is not a number of milliseconds in the form we write.
    pub expiration: Option<Arc<str>>,
    /// When it was sent, in seconds since 1970, if the clock cannot represent that time.
    pub timestamp: Option<u64>,
    /// The broker user that sent it.
    pub user_id: Option<Arc<str>>,
    /// Headers with our names and values that we would not write. Whatever could be read of them is in the fields.
    pub headers: Headers,
}
