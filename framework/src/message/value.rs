use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// A header's value. Each AMQP type is its own variant, so that a value keeps its type when it is passed on.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// No value.
    Void,
    /// True or false.
    Bool(bool),
    /// A signed 8-bit integer.
    I8(i8),
    /// An unsigned 8-bit integer.
    U8(u8),
    /// A signed 16-bit integer.
    I16(i16),
    /// An unsigned 16-bit integer.
    U16(u16),
    /// A signed 32-bit integer.
    I32(i32),
    /// An unsigned 32-bit integer.
    U32(u32),
    /// A signed 64-bit integer.
    I64(i64),
    /// A 32-bit float.
    F32(f32),
    /// A 64-bit float.
    F64(f64),
    /// A decimal: the value divided by ten to the power of the scale.
    Decimal {
        /// Digits after the point.
        scale: u8,
        /// The digits.
        value: u32,
    },
    /// Seconds since 1970.
    Timestamp(u64),
    /// UTF-8 text.
    Text(Arc<str>),
    /// Bytes.
    Bytes(Bytes),
    /// Values in order.
    List(Vec<Value>),
    /// Values by name.
    Table(Headers),
}

impl Value {
    /// The text, if the value is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The text without a copy, if the value is one.
    pub(crate) fn shared_text(&self) -> Option<Arc<str>> {
        if let Self::Text(text) = self { Some(Arc::clone(text)) } else { None }
    }

    /// The value as a signed integer, if it is an integer of any width.
    #[must_use]
    pub fn as_integer(&self) -> Option<i64> {
        match *self {
            Self::I8(n) => Some(n.into()),
            Self::U8(n) => Some(n.into()),
            Self::I16(n) => Some(n.into()),
            Self::U16(n) => Some(n.into()),
            Self::I32(n) => Some(n.into()),
            Self::U32(n) => Some(n.into()),
            Self::I64(n) => Some(n),
            _ => None,
        }
    }

    /// About how many bytes the value takes on the network.
    #[must_use]
    pub fn size(&self) -> usize {
        match self {
            Self::Text(text) => 5 + text.len(),
            Self::Bytes(bytes) => 5 + bytes.len(),
            Self::List(list) => 5 + list.iter().map(Self::size).sum::<usize>(),
            Self::Table(table) => 5 + table.size(),
            _ => 9,
        }
    }
}

macro_rules! from {
    ($($source:ty => $variant:ident),* $(,)?) => {$(
        impl From<$source> for Value {
            fn from(value: $source) -> Self { Self::$variant(value.into()) }
        }
    )*};
}

from!(bool => Bool, i8 => I8, u8 => U8, i16 => I16, u16 => U16, i32 => I32, u32 => U32, i64 => I64, f32 => F32,
    f64 => F64, String => Text, Arc<str> => Text, &str => Text, Bytes => Bytes, Vec<u8> => Bytes, Vec<Value> => List, Headers => Table);

/// So many headers most messages have at most.
const USUAL: usize = 8;

/// Headers by name. `Debug` hides the value of `authorization`.
// In the order of their names. There are few, so that a search costs less than a tree's nodes.
#[derive(Clone, PartialEq, Default)]
pub struct Headers(Vec<(Cow<'static, str>, Value)>);

impl Headers {
    /// No headers.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The value of a header.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let place = self.place(name).ok()?;
        self.0.get(place).map(|(_, value)| value)
    }

    /// The value of a header, if it is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_text)
    }

    /// Sets a header and returns what it was before.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        self.put(name.into(), value.into())
    }

    /// [`Headers::set`] with a name that perhaps needs no copy.
    pub(crate) fn put(&mut self, name: impl Into<Cow<'static, str>>, value: Value) -> Option<Value> {
        let name = name.into();
        match self.place(&name) {
            Ok(place) => Some(std::mem::replace(&mut self.0[place].1, value)),
            Err(place) => {
                if self.0.capacity() == 0 {
                    self.0.reserve(USUAL);
                }
                self.0.insert(place, (name, value));
                None
            }
        }
    }

    /// Removes a header and returns it.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let place = self.place(name).ok()?;
        Some(self.0.remove(place).1)
    }

    /// All headers in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    /// Keeps the headers for which the function says yes.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }

    /// A copy of the headers for which the function says yes.
    pub(crate) fn only(&self, mut keep: impl FnMut(&str, &Value) -> bool) -> Self {
        Self(self.0.iter().filter(|(name, value)| keep(name, value)).cloned().collect())
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(name))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// About how many bytes they take on the network.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.iter().map(|(name, value)| 1 + name.len() + value.size()).sum()
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, value) in self.iter() {
            if name.eq_ignore_ascii_case("authorization") {
                map.entry(&name, &"<secret>");
            } else {
                map.entry(&name, value);
            }
        }
        map.finish()
    }
}

impl IntoIterator for Headers {
    type Item = (String, Value);
    type IntoIter = std::iter::Map<
        std::vec::IntoIter<(Cow<'static, str>, Value)>,
        fn((Cow<'static, str>, Value)) -> (String, Value),
    >;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().map(|(name, value)| (name.into_owned(), value))
    }
}

impl<N: Into<String>, V: Into<Value>> FromIterator<(N, V)> for Headers {
    // Of two with the same name the later one counts.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(items: I) -> Self {
        let mut headers = Self::new();
        items.into_iter().for_each(|(name, value)| drop(headers.put(name.into(), value.into())));
        headers
    }
}
