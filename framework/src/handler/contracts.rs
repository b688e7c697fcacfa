//! Compile-time checks of message contracts, used by the code that the macros generate.
#![doc(hidden)]

use std::marker::PhantomData;

use crate::handler::returned::Returned;
use crate::message::{Contract, Kind, Request};

/// The contract of a message type at compile time: an inherent constant for contracts, the trait's default for all other types.
pub struct Probe<T>(PhantomData<T>);

impl<T: Contract> Probe<T> {
    pub const CONTRACT: Option<(Kind, &'static str)> = Some((T::KIND, T::KEY));
}

pub trait NoContract {
    const CONTRACT: Option<(Kind, &'static str)> = None;
}

impl<T> NoContract for Probe<T> {}

/// Whether a handler may return `R`.
pub struct ReturnProbe<R>(PhantomData<R>);

impl<R: Returned> ReturnProbe<R> {
    pub const RETURNS: bool = true;
}

pub trait NothingReturned {
    const RETURNS: bool = false;
}

impl<R> NothingReturned for ReturnProbe<R> {}

/// Whether a handler that returns `R` answers what the contract `M` promises.
pub struct ReplyProbe<M, R>(PhantomData<(M, R)>);

impl<M: Request> ReplyProbe<M, PhantomData<()>> {
    pub const PROMISED: bool = true;
}

pub trait NothingPromised {
    const PROMISED: bool = false;
}

impl<M, R> NothingPromised for ReplyProbe<M, R> {}

impl<M: Request<Reply = T>, T, E> ReplyProbe<M, Result<T, E>> {
    pub const ANSWERS: bool = true;
}

impl<M: Request<Reply = ()>> ReplyProbe<M, ()> {
    pub const ANSWERS: bool = true;
}

pub trait AnswersNothing {
    const ANSWERS: bool = false;
}

impl<M, R> AnswersNothing for ReplyProbe<M, R> {}

/// The most bytes of a text made at compile time; a longer one is cut. Two keys and two names fit.
const MAX_TEXT_BYTES: usize = 1_000;

/// A text made at compile time.
pub struct Text {
    bytes: [u8; MAX_TEXT_BYTES],
    length: usize,
}

impl Text {
    const fn of(parts: &[&str]) -> Self {
        let mut text = Self { bytes: [0; MAX_TEXT_BYTES], length: 0 };
        let mut part = 0;
        while part < parts.len() {
            let (bytes, mut at) = (parts[part].as_bytes(), 0);
            while at < bytes.len() && text.length < MAX_TEXT_BYTES {
                text.bytes[text.length] = bytes[at];
                text.length += 1;
                at += 1;
            }
            part += 1;
        }
        text
    }

    #[must_use]
    pub const fn as_str(&self) -> &str {
        match std::str::from_utf8(self.bytes.split_at(self.length).0) {
            Ok(text) => text,
            Err(_) => "another contract",
        }
    }
}

/// The error text if the contract has another kind than its handler. `ours` begins the sentence.
#[must_use]
pub const fn wrong_kind(kind: Kind, contract: Option<(Kind, &str)>, ours: &str) -> Option<Text> {
    match contract {
        Some((theirs, key)) if !same_kind(kind, contract) => Some(difference(ours, theirs, key)),
        _ => None,
    }
}

/// The error text if the contract has the same kind and another key.
#[must_use]
pub const fn wrong_key(kind: Kind, key: &str, contract: Option<(Kind, &str)>, ours: &str) -> Option<Text> {
    match contract {
        Some((theirs, other)) if same_kind(kind, contract) && !other.is_empty() && !same(key, other) => {
            Some(difference(ours, theirs, other))
        }
        _ => None,
    }
}

const fn difference(ours: &str, kind: Kind, key: &str) -> Text {
    let kind = kind.as_str();
    Text::of(&[ours, kind, " \"", key, "\"; write `", kind, " = \"", key, "\"` here, or change the contract"])
}

/// Whether the contract has the handler's kind. A contract with an empty key passes, because its mistake is reported where it is
/// defined.
#[must_use]
pub const fn same_kind(kind: Kind, contract: Option<(Kind, &str)>) -> bool {
    match contract {
        Some((theirs, key)) => key.is_empty() || kind as u8 == theirs as u8,
        None => true,
    }
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}
