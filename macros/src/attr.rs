//! Reads the attributes' words.

use std::time::Duration;

use postrider_grammar::{Retry, parse_duration};
use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Expr, ExprArray, ExprLit, ExprPath, Ident, Lit, LitStr, Meta, Token};

use crate::mistakes::Mistakes;

/// `name = value`, or `name` alone.
pub struct Word {
    pub name: Ident,
    pub value: Option<Expr>,
}

impl Parse for Word {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let name = input.parse()?;
        let value = if input.parse::<Option<Token![=]>>()?.is_some() { Some(ungrouped(input.parse()?)) } else { None };
        Ok(Self { name, value })
    }
}

/// A part of an attribute.
pub trait Named {
    fn name(&self) -> &Ident;
}

impl Named for Word {
    fn name(&self) -> &Ident {
        &self.name
    }
}

impl Word {
    /// Where to underline a wrong value: the value, or the word if there is none.
    fn place(&self) -> TokenStream {
        self.value.as_ref().map_or_else(|| self.name.to_token_stream(), ToTokens::to_token_stream)
    }
}

/// A literal that a `macro_rules` macro passes on comes in an invisible group.
fn ungrouped(expr: Expr) -> Expr {
    match expr {
        Expr::Group(group) => ungrouped(*group.expr),
        other => other,
    }
}

/// The parts of an attribute, each once; `None` if they cannot be read. `example` is what to write for a lone value.
pub fn parts<P: Parse + Named>(tokens: TokenStream, example: &str, mistakes: &mut Mistakes) -> Option<Vec<P>> {
    use syn::parse::Parser;
    if let Some(TokenTree::Literal(value)) = tokens.clone().into_iter().next() {
        mistakes.at(value, format!("say what this is: `{example}`"));
        return None;
    }
    match Punctuated::<P, Token![,]>::parse_terminated.parse2(tokens) {
        Ok(parts) => Some(first_of_each(parts, mistakes)),
        Err(error) => {
            mistakes.add(error);
            None
        }
    }
}

/// Refuses parts that occur twice.
pub fn first_of_each<P: Named>(parts: impl IntoIterator<Item = P>, mistakes: &mut Mistakes) -> Vec<P> {
    let mut firsts: Vec<P> = Vec::new();
    for part in parts {
        let name = part.name();
        if firsts.iter().any(|first| first.name() == name) {
            mistakes.at(name, format!("`{name}` is written twice; keep one of them"));
        } else {
            firsts.push(part);
        }
    }
    firsts
}

#[derive(Default)]
pub struct ImplWords {
    pub service: Option<LitStr>,
    /// `service` is missing.
    pub service_missing: bool,
    pub queue: Option<LitStr>,
    pub domains: Option<Vec<LitStr>>,
    pub guarantee: Option<Ident>,
    /// The field or header by which a repetition is known.
    pub once_by: Option<LitStr>,
    /// The word itself, if present.
    pub ordered: Option<Ident>,
    /// The word itself, if the actor stops at a message that it would give up.
    pub stops: Option<LitStr>,
    pub prefetch: Option<u16>,
    /// Where the prefetch is written.
    pub prefetch_place: TokenStream,
    pub concurrency: Option<usize>,
    pub timeout: Option<Duration>,
    pub policy: PolicyWords,
}

/// What happens to a message whose handler fails, for a block or one method.
#[derive(Default)]
pub struct PolicyWords {
    pub retry: Option<LitStr>,
    pub give_up: Option<Vec<Ident>>,
    pub discard: Option<Vec<Ident>>,
}

impl PolicyWords {
    /// Whether the word is one of these.
    fn word(&mut self, word: &Word, mistakes: &mut Mistakes) -> bool {
        match word.name.to_string().as_str() {
            "retry" => self.retry = retry(word, mistakes),
            "give_up" => self.give_up = Some(classes(word, &RETRIED, mistakes)),
            "discard" => self.discard = Some(classes(word, &CLASSES, mistakes)),
            _ => return false,
        }
        true
    }

    /// The retry plan, if one is given and can be read.
    pub fn plan(&self) -> Option<Retry> {
        self.retry.as_ref()?.value().parse().ok()
    }
}

const IMPL_WORDS: &str = "service, queue, domains, guarantee, once_by, ordered, on_poison, prefetch, concurrency, timeout, retry, give_up, discard";

/// Failures that are tried again by default: how they are written, and their variants' names.
const RETRIED: [(&str, &str); 3] = [("transient", "Transient"), ("panic", "Panic"), ("timed_out", "TimedOut")];
/// All failures of a message.
const CLASSES: [(&str, &str); 6] = [
    ("transient", "Transient"),
    ("panic", "Panic"),
    ("timed_out", "TimedOut"),
    ("permanent", "Permanent"),
    ("rejected", "Rejected"),
    ("undecodable", "Undecodable"),
];

impl ImplWords {
    pub fn read(tokens: TokenStream, mistakes: &mut Mistakes) -> Self {
        let mut read = Self::default();
        let words = parts::<Word>(tokens, "service = \"invoice\"", mistakes);
        read.service_missing = words.as_ref().is_some_and(|words| words.iter().all(|word| word.name != "service"));
        for word in words.iter().flatten() {
            read.word(word, mistakes);
        }
        read
    }

    fn word(&mut self, word: &Word, mistakes: &mut Mistakes) {
        match word.name.to_string().as_str() {
            "service" => self.service = text(word, mistakes),
            "queue" => self.queue = text(word, mistakes),
            "domains" => self.domains = Some(texts(word, mistakes)),
            "guarantee" => self.guarantee = guarantee(word, mistakes),
            "ordered" => self.ordered = flag(word, mistakes).then(|| word.name.clone()),
            "once_by" => self.once_by = text(word, mistakes),
            "on_poison" => self.stops = on_poison(word, mistakes),
            "prefetch" => {
                self.prefetch = number(word, u16::MAX.into(), mistakes).map(|n| n as u16);
                self.prefetch_place = word.place();
            }
            "concurrency" => self.concurrency = number(word, 10_000, mistakes).map(|n| n as usize),
            "timeout" => self.timeout = duration(word, mistakes),
            _ if self.policy.word(word, mistakes) => {}
            kind @ ("command" | "event" | "query" | "channel") => mistakes.at(
                &word.name,
                format!("`{kind}` belongs on a method; the impl block takes `#[distributed(service = \"…\")]`"),
            ),
            other => mistakes.at(&word.name, format!("`{other}` is not known here; an impl block takes: {IMPL_WORDS}")),
        }
    }
}

/// One method's attribute.
#[derive(Default)]
pub struct MethodWords {
    pub kind: Option<(Ident, LitStr)>,
    pub instance: bool,
    pub permission: Option<LitStr>,
    pub policy: PolicyWords,
}

impl MethodWords {
    pub fn read(attribute: &Attribute, mistakes: &mut Mistakes) -> Self {
        let mut read = Self::default();
        let tokens = if let Meta::List(list) = &attribute.meta { list.tokens.clone() } else { TokenStream::new() };
        for word in parts::<Word>(tokens, "command = \"invoice.create\"", mistakes).iter().flatten() {
            read.word(word, mistakes);
        }
        if read.kind.is_none() && mistakes.is_empty() {
            mistakes.at(
                attribute,
                "say what the method handles: `command = \"…\"`, `event = \"…\"`, `query = \"…\"` or `channel = \"…\"`",
            );
        }
        read
    }

    fn word(&mut self, word: &Word, mistakes: &mut Mistakes) {
        match word.name.to_string().as_str() {
            "command" | "event" | "query" | "channel" => {
                if self.kind.is_some() {
                    mistakes.at(&word.name, "a method handles one kind; write a second method for the other");
                }
                self.kind = text(word, mistakes).map(|key| (word.name.clone(), key));
            }
            "scope" => match text(word, mistakes) {
                Some(scope) if scope.value() == "instance" => self.instance = true,
                Some(scope) => mistakes.at(
                    scope,
                    "the scope is \"instance\" (every instance gets a copy) or left out (one instance does)",
                ),
                None => {}
            },
            "permission" => self.permission = text(word, mistakes),
            _ if self.policy.word(word, mistakes) => {}
            "service" => {
                mistakes.at(&word.name, "`service` belongs on the impl block: `#[distributed(service = \"…\")] impl …`")
            }
            other => {
                let known = "command, event, query, channel, scope, permission, retry, give_up, discard";
                mistakes.at(&word.name, format!("`{other}` is not known here; a method takes: {known}"));
            }
        }
    }
}

pub fn text(word: &Word, mistakes: &mut Mistakes) -> Option<LitStr> {
    match &word.value {
        Some(Expr::Lit(ExprLit { lit: Lit::Str(text), .. })) => Some(text.clone()),
        _ => {
            mistakes.at(word.place(), format!("write `{} = \"…\"`", word.name));
            None
        }
    }
}

/// The texts of a list; none if there is a mistake.
fn texts(word: &Word, mistakes: &mut Mistakes) -> Vec<LitStr> {
    let as_text = |expr: &Expr| match ungrouped(expr.clone()) {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text),
        _ => None,
    };
    let read = match &word.value {
        Some(Expr::Array(ExprArray { elems, .. })) => elems.iter().map(as_text).collect::<Option<Vec<_>>>(),
        _ => None,
    };
    let read = read.unwrap_or_default();
    if read.is_empty() {
        mistakes.at(word.place(), format!("write `{} = [\"…\", \"…\"]`", word.name));
    }
    read
}

pub fn flag(word: &Word, mistakes: &mut Mistakes) -> bool {
    match &word.value {
        None => true,
        Some(Expr::Lit(ExprLit { lit: Lit::Bool(flag), .. })) => flag.value,
        Some(other) => {
            mistakes.at(other, format!("write `{0} = true`, `{0} = false`, or `{0}` alone", word.name));
            false
        }
    }
}

pub fn number(word: &Word, most: u64, mistakes: &mut Mistakes) -> Option<u64> {
    let read = match &word.value {
        Some(Expr::Lit(ExprLit { lit: Lit::Int(number), .. })) => number.base10_parse::<u64>().ok(),
        _ => None,
    };
    let read = read.filter(|number| (1..=most).contains(number));
    if read.is_none() {
        mistakes.at(word.place(), format!("write `{} = n` with a number from 1 to {most}", word.name));
    }
    read
}

fn guarantee(word: &Word, mistakes: &mut Mistakes) -> Option<Ident> {
    let name = match &word.value {
        Some(Expr::Lit(ExprLit { lit: Lit::Str(text), .. })) => Some(text.value()),
        Some(Expr::Path(ExprPath { path, .. })) => path.get_ident().map(ToString::to_string),
        _ => None,
    };
    let variant = match name.as_deref() {
        Some("at_most_once") => "AtMostOnce",
        Some("at_least_once") => "AtLeastOnce",
        Some("effectively_once") => "EffectivelyOnce",
        _ => {
            mistakes.at(
                word.place(),
                "the guarantee is `at_most_once`, `at_least_once` (the default) or `effectively_once`",
            );
            return None;
        }
    };
    Some(Ident::new(variant, word.name.span()))
}

/// Whether the actor stops at a message that it would give up.
fn on_poison(word: &Word, mistakes: &mut Mistakes) -> Option<LitStr> {
    let text = text(word, mistakes)?;
    match text.value().as_str() {
        "stop" => Some(text),
        "dead_letter" => None,
        _ => {
            mistakes.at(text, "on_poison is \"dead_letter\" (the default: the next message is handled) or \"stop\" (nothing is, until somebody resumes the actor)");
            None
        }
    }
}

fn retry(word: &Word, mistakes: &mut Mistakes) -> Option<LitStr> {
    let text = text(word, mistakes)?;
    if let Err(error) = text.value().parse::<Retry>() {
        mistakes.at(&text, error);
        return None;
    }
    Some(text)
}

/// A list of failures, as their variants' names.
fn classes(word: &Word, known: &[(&str, &str)], mistakes: &mut Mistakes) -> Vec<Ident> {
    let mut read = Vec::new();
    for text in texts(word, mistakes) {
        match known.iter().find(|(written, _)| *written == text.value()) {
            Some((_, ours)) => read.push(Ident::new(ours, text.span())),
            None => {
                let written: Vec<&str> = known.iter().map(|(written, _)| *written).collect();
                mistakes.at(
                    &text,
                    format!(
                        "{:?} is no failure that `{}` takes; it takes: {}",
                        text.value(),
                        word.name,
                        written.join(", ")
                    ),
                );
            }
        }
    }
    read
}

fn duration(word: &Word, mistakes: &mut Mistakes) -> Option<Duration> {
    let written = match &word.value {
        Some(Expr::Lit(ExprLit { lit: Lit::Str(text), .. })) => text.value(),
        _ => String::new(),
    };
    let read = parse_duration(&written);
    if read.is_none() {
        let text = "write a duration above zero with its unit: \"500ms\", \"30s\", \"2m\", \"1h\"";
        mistakes.at(word.place(), text);
    }
    read
}
