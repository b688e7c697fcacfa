//! `#[derive(Command)]`, `#[derive(Event)]`, `#[derive(Query)]`.

use postrider_grammar::check_key;
use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{DeriveInput, Ident, LitStr, Meta, Token, Type};

use crate::attr::{Named, Word, first_of_each, flag, number, parts, text};
use crate::mistakes::Mistakes;

#[derive(Default)]
struct Words {
    key: Option<LitStr>,
    reply: Option<Type>,
    transient: bool,
    fire: bool,
    media_type: Option<LitStr>,
    encoding: Option<Ident>,
    schema_version: u32,
}

/// `reply = Type` beside words with expressions.
enum Part {
    Reply(Ident, Box<Type>),
    Word(Word),
}

impl syn::parse::Parse for Part {
    fn parse(input: syn::parse::ParseStream<'_>) -> syn::Result<Self> {
        let ahead = input.fork();
        if let Ok(name) = ahead.parse::<Ident>()
            && name == "reply"
            && ahead.peek(Token![=])
        {
            input.parse::<Ident>()?;
            input.parse::<Token![=]>()?;
            return Ok(Self::Reply(name, input.parse()?));
        }
        Ok(Self::Word(input.parse()?))
    }
}

impl Named for Part {
    fn name(&self) -> &Ident {
        match self {
            Self::Reply(name, _) => name,
            Self::Word(word) => &word.name,
        }
    }
}

pub fn derive(contract: &str, item: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(item) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error(),
    };
    let mut mistakes = Mistakes::default();
    let mut words = read(contract, &input, &mut mistakes);
    check(contract, &input, &mut words, &mut mistakes);
    // Even with mistakes the type implements the trait, so that the compiler does not also report the missing implementation.
    let implementation = expand(contract, &input, &words);
    let mistakes = mistakes.into_tokens();
    quote! { #implementation #mistakes }
}

fn read(contract: &str, input: &DeriveInput, mistakes: &mut Mistakes) -> Words {
    let mut read = Vec::new();
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("message")) {
        let Meta::List(list) = &attribute.meta else {
            mistakes.at(attribute, "write `#[message(key = \"…\")]`");
            continue;
        };
        read.extend(parts::<Part>(list.tokens.clone(), "key = \"invoice.create\"", mistakes).into_iter().flatten());
    }
    let mut words = Words::default();
    for part in first_of_each(read, mistakes) {
        words.take(contract, part, mistakes);
    }
    words
}

impl Words {
    fn take(&mut self, contract: &str, part: Part, mistakes: &mut Mistakes) {
        let word = match part {
            Part::Reply(name, _) if contract == "Event" => {
                mistakes.at(name, "nobody answers an event; a command or query has a reply");
                return;
            }
            Part::Reply(_, ty) => {
                self.reply = Some(*ty);
                return;
            }
            Part::Word(word) => word,
        };
        match word.name.to_string().as_str() {
            "key" => self.key = text(&word, mistakes),
            "transient" => self.transient = flag(&word, mistakes),
            "fire" if contract == "Query" => mistakes.at(&word.name, "somebody waits for the answer to a query: it cannot be fired"),
            "fire" => self.fire = flag(&word, mistakes),
            "media_type" => self.media_type = text(&word, mistakes),
            "encoding" => self.encoding = text(&word, mistakes).and_then(|encoding| encoding_of(&encoding, mistakes)),
            "schema_version" => self.schema_version = number(&word, u32::MAX.into(), mistakes).unwrap_or(0) as u32,
            other => mistakes.at(
                &word.name,
                format!(
                    "`{other}` is not known here; a message has: key, reply, transient, fire, media_type, encoding, schema_version"
                ),
            ),
        }
    }
}

/// The variant of `ContentEncoding` that a word names.
fn encoding_of(encoding: &LitStr, mistakes: &mut Mistakes) -> Option<Ident> {
    match encoding.value().as_str() {
        "gzip" => Some(format_ident!("Gzip")),
        "zstd" => Some(format_ident!("Zstd")),
        other => {
            mistakes.at(encoding, format!("a message is sent in \"gzip\" or \"zstd\", not in {other:?}"));
            None
        }
    }
}

fn check(contract: &str, input: &DeriveInput, words: &mut Words, mistakes: &mut Mistakes) {
    if let Some(key) = &words.key {
        if let Err(error) = check_key(&key.value()) {
            mistakes.at(key, error);
            words.key = None;
        }
    } else if mistakes.is_empty() {
        mistakes.at(&input.ident, "give the message its key: `#[message(key = \"service.verb\")]`");
    }
    if contract == "Query" && words.reply.is_none() && mistakes.is_empty() {
        mistakes.at(&input.ident, "say what answers the query: `#[message(key = \"…\", reply = Answer)]`");
    }
}

fn expand(contract: &str, input: &DeriveInput, words: &Words) -> TokenStream {
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let trait_name = format_ident!("{contract}");
    let (transient, fire, schema_version) = (words.transient, words.fire, words.schema_version);
    // An empty key is one with a mistake; no handler is compared with it.
    let key = words.key.as_ref().map_or_else(|| quote!(""), |key| quote!(#key));
    let media_type = words.media_type.as_ref().map(|media_type| {
        quote! {
            const MEDIA_TYPE: ::core::option::Option<::postrider::private::MediaType> =
                ::core::option::Option::Some(::postrider::private::MediaType::from_static(#media_type));
        }
    });
    let encoding = words.encoding.as_ref().map(|encoding| {
        quote! {
            const CONTENT_ENCODING: ::core::option::Option<::postrider::private::ContentEncoding> =
                ::core::option::Option::Some(::postrider::private::ContentEncoding::#encoding);
        }
    });
    // Without a known reply the query trait is not implemented: any type put here would not be the one its callers expect.
    let reply = words.reply.as_ref().map(|ty| quote!(#ty)).or_else(|| (contract == "Command").then(|| quote!(())));
    let answered = reply.map(|reply| {
        quote! {
            impl #impl_generics ::postrider::private::Request for #name #type_generics #where_clause {
                type Reply = #reply;
            }
        }
    });
    let kind = (contract == "Event" || answered.is_some()).then(|| {
        quote! {
            impl #impl_generics ::postrider::private::#trait_name for #name #type_generics #where_clause {}
        }
    });
    quote! {
        impl #impl_generics ::postrider::private::Contract for #name #type_generics #where_clause {
            const KEY: &'static str = #key;
            const KIND: ::postrider::private::Kind = ::postrider::private::Kind::#trait_name;
            const TRANSIENT: bool = #transient;
            const FIRE: bool = #fire;
            const SCHEMA_VERSION: u32 = #schema_version;
            #media_type
            #encoding
        }
        #kind
        #answered
    }
}
