//! Decodes an empty payload as a message without content.

use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
use serde::de::{Deserializer, Error as _, Visitor};

/// Reads `()`, an absent option, and types without fields. Refuses everything else, even types whose fields all have
/// defaults.
pub(super) struct Empty;

fn refused<T>() -> Result<T, Error> {
    Err(Error::custom("it is empty"))
}

impl<'de> Deserializer<'de> for Empty {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        refused()
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_none()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        if len > 0 {
            return refused();
        }
        visitor.visit_seq(SeqDeserializer::<_, Error>::new(std::iter::empty::<()>()))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if !fields.is_empty() {
            return refused();
        }
        visitor.visit_map(MapDeserializer::<_, Error>::new(std::iter::empty::<((), ())>()))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf seq map enum identifier
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use crate::codec::{Limits, decode};
    use crate::message::MediaType;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Unit;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Nothing {}

    #[derive(Debug, Deserialize, PartialEq)]
    struct Wrapped(Option<u8>);

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(default)]
    struct Defaults {
        note: Option<String>,
    }

    #[test]
    fn what_has_nothing_to_say_is_read_from_nothing_and_nothing_else_is() {
        for media_type in [MediaType::JSON, MediaType::MSGPACK, MediaType::TEXT, MediaType::BYTES] {
            let limits = Limits::default();
            assert_eq!(decode::<()>(b"", &media_type, &limits), Ok(()));
            assert_eq!(decode::<Option<u8>>(b"", &media_type, &limits), Ok(None));
            assert_eq!(decode::<Unit>(b"", &media_type, &limits), Ok(Unit));
            assert_eq!(decode::<Nothing>(b"", &media_type, &limits), Ok(Nothing {}));
            assert_eq!(decode::<Wrapped>(b"", &media_type, &limits), Ok(Wrapped(None)));
            let errors = [
                decode::<u8>(b"", &media_type, &limits).unwrap_err(),
                decode::<Vec<u8>>(b"", &media_type, &limits).unwrap_err(),
                decode::<Defaults>(b"", &media_type, &limits).unwrap_err(),
                decode::<serde_json::Map<String, serde_json::Value>>(b"", &media_type, &limits).unwrap_err(),
            ];
            assert!(errors.iter().all(|error| error.to_string().contains("empty")), "{media_type}: {errors:?}");
        }
        assert_eq!(decode::<String>(b"", &MediaType::TEXT, &Limits::default()), Ok(String::new()));
    }
}
