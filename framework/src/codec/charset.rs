//! Decodes text in the charset of its media type.

use std::borrow::Cow;

use crate::codec::DecodeError;
use crate::message::MediaType;

/// The payload as UTF-8. A payload in UTF-8, the default, is returned unchecked.
pub(crate) fn in_utf8<'a>(payload: &'a [u8], media_type: &MediaType) -> Result<Cow<'a, [u8]>, DecodeError> {
    let charset = media_type.charset().unwrap_or("utf-8");
    let text = match charset.to_ascii_lowercase().as_str() {
        "utf-8" | "utf8" | "us-ascii" | "ascii" | "" => return Ok(Cow::Borrowed(payload)),
        "iso-8859-1" | "iso8859-1" | "iso_8859-1" | "latin1" | "latin-1" => {
            Some(payload.iter().map(|&byte| char::from(byte)).collect())
        }
        "utf-16" | "utf16" => match payload {
            [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
            [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
            // Big-endian without a byte order mark, as in RFC 2781.
            _ => utf16(payload, u16::from_be_bytes),
        },
        "utf-16le" => utf16(payload.strip_prefix(&[0xff, 0xfe]).unwrap_or(payload), u16::from_le_bytes),
        "utf-16be" => utf16(payload.strip_prefix(&[0xfe, 0xff]).unwrap_or(payload), u16::from_be_bytes),
        _ => return Err(DecodeError::UnknownCharset { charset: charset.to_owned() }),
    };
    let text: String = text.ok_or_else(|| DecodeError::Payload {
        media_type: media_type.to_string(),
        error: format!("it is not {charset}"),
    })?;
    Ok(Cow::Owned(text.into_bytes()))
}

fn utf16(bytes: &[u8], of: impl Fn([u8; 2]) -> u16) -> Option<String> {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let units = pairs.iter().map(|pair| of(*pair));
    if rest.is_empty() { char::decode_utf16(units).collect::<Result<String, _>>().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::{Limits, decode};

    fn media_type(charset: &str) -> MediaType {
        MediaType::new(format!("application/json; charset={charset}"))
    }

    fn bytes_of(text: &str, of: impl Fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(of).collect()
    }

    proptest! {
        #[test]
        fn any_text_is_read_in_every_charset_that_can_have_it(text in ".{0,40}") {
            let json = serde_json::to_string(&text).unwrap();
            let read = |bytes: &[u8], charset: &str| decode::<String>(bytes, &media_type(charset), &Limits::default());
            let (big, little) = (bytes_of(&json, u16::to_be_bytes), bytes_of(&json, u16::to_le_bytes));
            prop_assert_eq!(read(&big, "UTF-16BE"), Ok(text.clone()));
            prop_assert_eq!(read(&big, "utf-16"), Ok(text.clone()));
            prop_assert_eq!(read(&little, "utf-16le"), Ok(text.clone()));
            prop_assert_eq!(read(&[&[0xff, 0xfe], &little[..]].concat(), "\"utf-16\""), Ok(text.clone()));
            prop_assert_eq!(read(&[b"\xef\xbb\xbf", json.as_bytes()].concat(), "utf-8"), Ok(text.clone()));
            let latin: Option<Vec<u8>> = json.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect();
            if let Some(latin) = latin {
                prop_assert_eq!(read(&latin, "ISO-8859-1"), Ok(text.clone()));
            }
        }

        #[test]
        fn no_bytes_and_no_charset_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..40), charset in "utf-16(le|be)?|latin1|.{0,10}") {
            let _ = in_utf8(&bytes, &media_type(&charset));
        }
    }

    #[test]
    fn a_charset_that_is_not_known_is_named() {
        let error = decode::<String>(b"\"x\"", &media_type("koi8-r"), &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("\"koi8-r\"") && error.contains("UTF-8"), "{error}");
        let error = decode::<String>(b"odd", &media_type("utf-16"), &Limits::default()).unwrap_err().to_string();
        assert!(error.contains("it is not utf-16"), "{error}");
    }
}
