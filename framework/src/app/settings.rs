//! A service's own settings as serde sees them: values of the environment are texts, read as whatever the field asks for.

use serde::de::value::{MapDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{DeserializeOwned, Deserializer, Error as _, IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use toml::Value;

type Error = serde::de::value::Error;

/// Reads settings into a type. The error never quotes a value.
///
/// # Errors
/// What serde says, with the field where it knows it.
pub(super) fn read<T: DeserializeOwned>(table: toml::Table) -> Result<T, Error> {
    T::deserialize(Lenient(Value::Table(table)))
}

struct Lenient(Value);

impl IntoDeserializer<'_, Error> for Lenient {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! numbers {
    ($($call:ident $visit:ident $type:ty),* $(,)?) => {$(
        fn $call<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0 {
                Value::String(text) => match text.trim().parse::<$type>() {
                    Ok(number) => visitor.$visit(number),
                    Err(_) => Err(Error::custom(concat!("a text that is no ", stringify!($type)))),
                },
                other => Lenient(other).deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Lenient {
    type Error = Error;

    numbers!(deserialize_bool visit_bool bool, deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64, deserialize_f32 visit_f32 f32, deserialize_f64 visit_f64 f64);

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(text) => visitor.visit_string(text),
            Value::Integer(number) => visitor.visit_i64(number),
            Value::Float(number) => visitor.visit_f64(number),
            Value::Boolean(flag) => visitor.visit_bool(flag),
            Value::Datetime(time) => visitor.visit_string(time.to_string()),
            Value::Array(values) => SeqDeserializer::new(values.into_iter().map(Lenient)).deserialize_any(visitor),
            Value::Table(table) => MapDeserializer::new(table.into_iter().map(|(name, value)| (name, Lenient(value))))
                .deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::String(text) => {
                let text: StringDeserializer<Error> = text.into_deserializer();
                text.deserialize_enum(name, variants, visitor)
            }
            other => other.deserialize_enum(name, variants, visitor).map_err(|error| Error::custom(error.message())),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Colour {
        Red,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Settings {
        token: String,
        orders: u32,
        rate: f64,
        fast: bool,
        note: Option<u8>,
        colour: Colour,
        hosts: Vec<String>,
    }

    #[test]
    fn texts_of_the_environment_become_what_the_field_asks_for() {
        let table: toml::Table = "token = \"0123\"\norders = \"5\"\nrate = \"2.5\"\nfast = \"true\"\nnote = \"7\"\ncolour = \"red\"\nhosts = [\"a\"]".parse().unwrap();
        let expected = Settings {
            token: "0123".into(),
            orders: 5,
            rate: 2.5,
            fast: true,
            note: Some(7),
            colour: Colour::Red,
            hosts: vec!["a".into()],
        };
        assert_eq!(read::<Settings>(table).unwrap(), expected);
    }

    #[test]
    fn an_error_does_not_quote_the_value() {
        let table: toml::Table = "token = 1\norders = \"hunter2\"".parse().unwrap();
        let error = read::<Settings>(table).unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
