//! Limits on the size and the nesting of payloads.

use crate::codec::{EncodeError, depth};
use crate::message::MediaType;

/// The highest nesting that a setting can allow: the JSON decoder goes no deeper, and each level costs stack in every
/// decoder.
pub(crate) const DEEPEST: usize = 127;

/// Limits on payloads. Their size is checked before a message is sent and as it is decompressed, their nesting also before one is
/// decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of a payload. Default: 16 MiB, what RabbitMQ 4 accepts by default.
    pub max_payload_bytes: usize,
    /// The most bytes of a payload after decompression. Default: 16 MiB.
    pub max_decompressed_bytes: usize,
    /// The deepest nesting of lists and maps in a payload, up to 127. Default: 100.
    pub max_nesting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_payload_bytes: 16 * 1024 * 1024, max_decompressed_bytes: 16 * 1024 * 1024, max_nesting: 100 }
    }
}

impl Limits {
    /// Checks size and nesting of an encoded payload.
    ///
    /// # Errors
    /// When a limit is exceeded; the text names the value, the limit and the setting.
    pub fn check(&self, payload: &[u8], media_type: &MediaType) -> Result<(), EncodeError> {
        self.check_size(payload)?;
        self.check_depth(payload, media_type)
    }

    /// Checks only the size, because the nesting of a compressed payload is not visible.
    pub(crate) fn check_size(&self, payload: &[u8]) -> Result<(), EncodeError> {
        if payload.len() > self.max_payload_bytes {
            return Err(EncodeError::TooLarge { bytes: payload.len(), most: self.max_payload_bytes });
        }
        Ok(())
    }

    pub(super) fn deepest(&self) -> usize {
        self.max_nesting.min(DEEPEST)
    }

    fn check_depth(&self, payload: &[u8], media_type: &MediaType) -> Result<(), EncodeError> {
        let most = self.deepest();
        // Each level takes at least a byte, so a short payload cannot be deep.
        if payload.len() <= most {
            return Ok(());
        }
        if depth::exceeds(payload, media_type, most) {
            return Err(EncodeError::TooDeep { most });
        }
        Ok(())
    }
}
