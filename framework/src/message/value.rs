//! Headers and their values.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

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

    /// About how many bytes the value takes on the wire.
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

/// Most messages have no more headers than this, which fit into one allocation.
const USUAL: usize = 4;

/// Up to this number the search is linear.
const FEW: usize = 8;

type Header = (Cow<'static, str>, Value);

/// Headers by name. Clones share the entries until one is changed. `Debug` hides the value of `authorization`.
#[derive(Clone, Default)]
pub struct Headers {
    entries: Option<Arc<Entries>>,
}

/// Sorted by name. There are few entries, so searching them is cheaper than a tree.
#[derive(Clone, Default)]
pub(crate) struct Entries(SmallVec<[Header; USUAL]>);

impl Entries {
    /// Sets a header and returns its previous value.
    pub(crate) fn put(&mut self, name: impl Into<Cow<'static, str>>, value: Value) -> Option<Value> {
        let name = name.into();
        match self.place(&name) {
            Ok(place) => Some(std::mem::replace(&mut self.0[place].1, value)),
            Err(place) => {
                self.0.insert(place, (name, value));
                None
            }
        }
    }

    fn place(&self, name: &str) -> Result<usize, usize> {
        if self.0.len() > FEW {
            return self.0.binary_search_by(|(other, _)| (**other).cmp(name));
        }
        // From the end, because they often arrive in order.
        for (place, (other, _)) in self.0.iter().enumerate().rev() {
            match (**other).cmp(name) {
                Ordering::Greater => {}
                Ordering::Equal => return Ok(place),
                Ordering::Less => return Err(place + 1),
            }
        }
        Err(0)
    }
}

impl Headers {
    /// No headers.
    #[must_use]
    pub const fn new() -> Self {
        Self { entries: None }
    }

    /// The value of a header.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        let Entries(entries) = self.entries.as_deref()?;
        let place = self.entries.as_deref()?.place(name).ok()?;
        entries.get(place).map(|(_, value)| value)
    }

    /// The value of a header, if it is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Value::as_text)
    }

    /// Sets a header and returns its previous value.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) -> Option<Value> {
        self.put(name.into(), value.into())
    }

    /// [`Headers::set`] for a name that may need no copy.
    pub(crate) fn put(&mut self, name: impl Into<Cow<'static, str>>, value: Value) -> Option<Value> {
        self.edit().put(name, value)
    }

    /// The entries for editing; copies them if they are shared.
    pub(crate) fn edit(&mut self) -> &mut Entries {
        Arc::make_mut(self.entries.get_or_insert_default())
    }

    /// Removes a header and returns it.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let place = self.entries.as_deref()?.place(name).ok()?;
        let Entries(entries) = self.edit();
        Some(entries.remove(place).1)
    }

    /// All headers in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        let entries = self.entries.as_deref().map(|Entries(entries)| entries.as_slice()).unwrap_or_default();
        entries.iter().map(|(name, value)| (&**name, value))
    }

    /// Keeps the headers for which the function returns true.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        if self.entries.is_some() {
            self.edit().0.retain(|(name, _)| keep(name));
        }
    }

    /// Whether there are no headers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The number of headers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// About how many bytes they take on the wire.
    #[must_use]
    pub fn size(&self) -> usize {
        self.iter().map(|(name, value)| 1 + name.len() + value.size()).sum()
    }
}

impl PartialEq for Headers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
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
    type IntoIter = std::iter::Map<std::vec::IntoIter<Header>, fn(Header) -> (String, Value)>;

    fn into_iter(mut self) -> Self::IntoIter {
        let entries = std::mem::take(self.edit()).0.into_vec();
        entries.into_iter().map(|(name, value)| (name.into_owned(), value))
    }
}

impl<N: Into<String>, V: Into<Value>> FromIterator<(N, V)> for Headers {
    // If a name occurs twice, the later one counts.
    fn from_iter<I: IntoIterator<Item = (N, V)>>(items: I) -> Self {
        let mut headers = Self::new();
        let mut items = items.into_iter().peekable();
        if items.peek().is_some() {
            let entries = headers.edit();
            items.for_each(|(name, value)| drop(entries.put(name.into(), value.into())));
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Set(String, i64),
        Remove(String),
        Retain(char),
        /// Continues with a copy; the original must not change any more.
        Copy,
    }

    /// More names than the linear search covers.
    fn name() -> impl Strategy<Value = String> {
        "(own-)?[a-d]{1,2}"
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            12 => (name(), any::<i64>()).prop_map(|(name, value)| Step::Set(name, value)),
            3 => name().prop_map(Step::Remove),
            1 => prop::char::range('a', 'e').prop_map(Step::Retain),
            2 => Just(Step::Copy),
        ]
    }

    fn check(headers: &Headers, model: &BTreeMap<String, i64>, asked: &str) -> Result<(), TestCaseError> {
        let shown: Vec<(String, Value)> = model.iter().map(|(name, value)| (name.clone(), (*value).into())).collect();
        prop_assert_eq!(
            headers.iter().map(|(name, value)| (name.to_owned(), value.clone())).collect::<Vec<_>>(),
            shown.clone()
        );
        prop_assert_eq!(headers.get(asked).and_then(Value::as_integer), model.get(asked).copied());
        prop_assert_eq!((headers.len(), headers.is_empty()), (model.len(), model.is_empty()));
        prop_assert_eq!(headers.clone().into_iter().collect::<Vec<_>>(), shown.clone());
        prop_assert_eq!(headers, &shown.into_iter().collect::<Headers>());
        let size: usize = model.keys().map(|name| 1 + name.len() + Value::I64(0).size()).sum();
        prop_assert_eq!(headers.size(), size);
        Ok(())
    }

    proptest! {
        #[test]
        fn headers_are_a_map_whatever_is_shared_or_changed(
            steps in prop::collection::vec(step(), 0..60), asked in name()
        ) {
            let (mut headers, mut model, mut left) = (Headers::new(), BTreeMap::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Set(name, value) => {
                        let before = headers.set(name.clone(), value).and_then(|before| before.as_integer());
                        prop_assert_eq!(before, model.insert(name, value));
                    }
                    Step::Remove(name) => {
                        let removed = headers.remove(&name).and_then(|removed| removed.as_integer());
                        prop_assert_eq!(removed, model.remove(&name));
                    }
                    Step::Retain(letter) => {
                        headers.retain(|name| !name.ends_with(letter));
                        model.retain(|name, _| !name.ends_with(letter));
                    }
                    Step::Copy => {
                        let copy = headers.clone();
                        left.push((std::mem::replace(&mut headers, copy), model.clone()));
                    }
                }
                check(&headers, &model, &asked)?;
            }
            for (headers, model) in &left {
                check(headers, model, &asked)?;
            }
        }
    }
}
