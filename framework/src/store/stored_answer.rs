//! The answer that the inbox keeps for a message.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::message::{MediaType, Problem};

/// The most bytes of an answer that the inbox keeps.
pub const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What a second delivery of a handled message is answered with.
#[derive(Debug, Clone, PartialEq)]
pub enum StoredAnswer {
    /// Nobody asked for an answer.
    Nothing,
    /// The handler's answer.
    Reply {
        /// How it is encoded.
        media_type: MediaType,
        /// The bytes.
        payload: Bytes,
    },
    /// The handler refused the message.
    Refusal(Problem),
    /// There was an answer of more than [`MAX_ANSWER_BYTES`].
    TooLarge,
}

impl Eq for StoredAnswer {}

#[derive(Serialize, Deserialize)]
enum Written {
    #[serde(rename = "reply")]
    Reply(String, Bytes),
    #[serde(rename = "refusal")]
    Refusal(Problem),
    #[serde(rename = "too_large")]
    TooLarge,
}

impl StoredAnswer {
    /// The bytes in the inbox; `None` where nothing is kept.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let written = match self {
            Self::Nothing => return None,
            Self::Reply { payload, .. } if payload.len() > MAX_ANSWER_BYTES => Written::TooLarge,
            Self::Reply { media_type, payload } => Written::Reply(media_type.as_str().to_owned(), payload.clone()),
            Self::Refusal(problem) => Written::Refusal(problem.clone()),
            Self::TooLarge => Written::TooLarge,
        };
        // It cannot fail: all of it is text and bytes.
        rmp_serde::to_vec_named(&written).ok()
    }

    /// The answer for the bytes in the inbox. Bytes that cannot be read count as an answer that was not kept.
    #[must_use]
    pub fn decode(bytes: Option<&[u8]>) -> Self {
        let Some(bytes) = bytes else { return Self::Nothing };
        match rmp_serde::from_slice(bytes) {
            Ok(Written::Reply(media_type, payload)) => {
                Self::Reply { media_type: MediaType::from_wire(&media_type), payload }
            }
            Ok(Written::Refusal(problem)) => Self::Refusal(problem),
            Ok(Written::TooLarge) | Err(_) => Self::TooLarge,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_comes_back_as_it_was_kept() {
        let reply = |bytes: usize| StoredAnswer::Reply { media_type: MediaType::JSON, payload: vec![7; bytes].into() };
        for answer in [
            StoredAnswer::Nothing,
            reply(0),
            reply(MAX_ANSWER_BYTES),
            StoredAnswer::Refusal(Problem::new("sold-out", "nothing left")),
        ] {
            assert_eq!(StoredAnswer::decode(answer.encode().as_deref()), answer);
        }
        assert_eq!(StoredAnswer::decode(reply(MAX_ANSWER_BYTES + 1).encode().as_deref()), StoredAnswer::TooLarge);
        assert_eq!(StoredAnswer::decode(Some(&[0xc1])), StoredAnswer::TooLarge);
    }
}
