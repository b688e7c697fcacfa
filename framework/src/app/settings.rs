//! A serde deserializer for a service's own settings. Values from the environment are texts and are parsed as the type
//! of the field.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::{SeqDeserializer, StringDeserializer};
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;
use toml::Value;

/// What is wrong with which setting.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Error {
    /// The path from the outside in, as in `smtp.port`.
    pub(super) field: String,
    pub(super) problem: String,
}

impl Error {
    fn within(mut self, name: &str) -> Self {
        self.field = if self.field.is_empty() { name.to_owned() } else { format!("{name}.{}", self.field) };
        self
    }
}

impl de::Error for Error {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self { field: String::new(), problem: text.to_string() }
    }
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

/// Which settings a service has read, and which its types ignored.
#[derive(Debug, Clone, Default)]
pub(super) struct Reads {
    pub(super) read: BTreeSet<String>,
    pub(super) passed_over: BTreeSet<String>,
    /// All fields of the types that were read.
    pub(super) known: BTreeSet<String>,
}

/// Reads settings into a type. The error never quotes a value.
///
/// # Errors
/// Serde's error, with the field where it is known.
pub(super) fn read<T: DeserializeOwned>(table: toml::Table, reads: &mut Reads) -> Result<T, Error> {
    let noted = RefCell::new(std::mem::take(reads));
    let result = T::deserialize(Lenient { value: Value::Table(table), path: String::new(), noted: &noted });
    *reads = noted.into_inner();
    result
}

struct Lenient<'a> {
    value: Value,
    path: String,
    noted: &'a RefCell<Reads>,
}

impl Lenient<'_> {
    fn inside(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

impl IntoDeserializer<'_, Error> for Lenient<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// A table whose values know their names.
struct Entries<'a> {
    table: toml::map::IntoIter<String, Value>,
    next: Option<(String, Value)>,
    within: Lenient<'a>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.next = self.table.next();
        let Some((name, _)) = &self.next else { return Ok(None) };
        let key: StringDeserializer<Error> = name.clone().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|error| error.within(name))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((name, value)) = self.next.take() else { return Err(de::Error::custom("a value without a name")) };
        let path = self.within.inside(&name);
        let value = Lenient { value, path, noted: self.within.noted };
        seed.deserialize(value).map_err(|error| error.within(&name))
    }
}

macro_rules! numbers {
    ($($call:ident $visit:ident $type:ty),* $(,)?) => {$(
        fn $call<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.value {
                Value::String(text) => {
                    self.noted.borrow_mut().read.insert(self.path);
                    match text.trim().parse::<$type>() {
                        Ok(number) => visitor.$visit(number),
                        Err(_) => Err(de::Error::custom(concat!("a text that is no ", stringify!($type)))),
                    }
                }
                _ => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Lenient<'_> {
    type Error = Error;

    numbers!(deserialize_bool visit_bool bool, deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64, deserialize_f32 visit_f32 f32, deserialize_f64 visit_f64 f64);

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Self { value, path, noted } = self;
        noted.borrow_mut().read.insert(path.clone());
        let inner = |value| Lenient { value, path: path.clone(), noted };
        match value {
            Value::String(text) => visitor.visit_string(text),
            Value::Integer(number) => visitor.visit_i64(number),
            Value::Float(number) => visitor.visit_f64(number),
            Value::Boolean(flag) => visitor.visit_bool(flag),
            Value::Datetime(time) => visitor.visit_string(time.to_string()),
            Value::Array(values) => SeqDeserializer::new(values.into_iter().map(inner)).deserialize_any(visitor),
            Value::Table(table) => {
                let within = inner(Value::Boolean(true));
                visitor.visit_map(Entries { table: table.into_iter(), next: None, within })
            }
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let known: Vec<String> = fields.iter().map(|field| self.inside(field)).collect();
        self.noted.borrow_mut().known.extend(known);
        self.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.noted.borrow_mut().passed_over.insert(self.path);
        visitor.visit_unit()
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
        self.noted.borrow_mut().read.insert(self.path);
        match self.value {
            Value::String(text) => {
                let text: StringDeserializer<Error> = text.into_deserializer();
                text.deserialize_enum(name, variants, visitor)
            }
            other => {
                other.deserialize_enum(name, variants, visitor).map_err(|error| de::Error::custom(error.message()))
            }
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier
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
        assert_eq!(read::<Settings>(table, &mut Reads::default()).unwrap(), expected);
    }

    #[test]
    fn an_error_does_not_quote_the_value() {
        let table: toml::Table = "token = 1\norders = \"hunter2\"".parse().unwrap();
        let error = read::<Settings>(table, &mut Reads::default()).unwrap_err();
        assert_eq!(error, Error { field: "orders".into(), problem: "a text that is no u32".into() });
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Mail {
        smtp: Smtp,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Smtp {
        port: u16,
    }

    #[test]
    fn a_mistake_is_told_with_the_whole_path_of_its_field() {
        let table: toml::Table = "smtp = { port = \"http\" }".parse().unwrap();
        assert_eq!(read::<Mail>(table, &mut Reads::default()).unwrap_err().field, "smtp.port");
    }

    #[test]
    fn what_no_type_has_read_is_known_afterwards() {
        let table: toml::Table = "extra = 1\nsmtp = { port = 25, prot = 1 }".parse().unwrap();
        let mut reads = Reads::default();
        read::<Mail>(table, &mut reads).unwrap();
        assert_eq!(reads.passed_over, BTreeSet::from(["extra".to_owned(), "smtp.prot".to_owned()]));
        assert!(reads.read.contains("smtp.port") && reads.known.contains("smtp.port"));
    }
}
