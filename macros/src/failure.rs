//! `#[derive(HandlerError)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Data, DeriveInput, Fields, Ident, LitStr, Meta, Type};

use crate::attr::{Word, flag, parts, text};
use crate::mistakes::Mistakes;

/// What one variant (or the whole struct) means.
struct Meaning {
    class: Ident,
    code: Option<LitStr>,
    from: bool,
}

/// A variant, or the whole struct.
struct Case<'a> {
    place: &'a Ident,
    path: TokenStream,
    meaning: Meaning,
    fields: &'a Fields,
}

const WRITE: &str = "say what this error means: `#[transient]` (tried again), `#[permanent]` (never again) or `#[rejected(code = \"…\")]` (the caller is told)";

pub fn derive(item: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(item) {
        Ok(input) => input,
        Err(error) => return error.to_compile_error(),
    };
    let mut mistakes = Mistakes::default();
    let mut cases = Vec::new();
    match &input.data {
        Data::Struct(data) => {
            if let Some(meaning) = meaning(&input.attrs, &input.ident, &mut mistakes) {
                cases.push(Case { place: &input.ident, path: quote!(Self), meaning, fields: &data.fields });
            }
        }
        Data::Enum(data) => {
            for variant in &data.variants {
                let name = &variant.ident;
                if let Some(meaning) = meaning(&variant.attrs, name, &mut mistakes) {
                    cases.push(Case { place: name, path: quote!(Self::#name), meaning, fields: &variant.fields });
                }
            }
        }
        Data::Union(_) => mistakes.at(&input.ident, "an error is a struct or an enum"),
    }
    let conversions: Vec<_> = cases
        .iter()
        .filter(|case| case.meaning.from)
        .filter_map(|case| conversion(&input, case, &mut mistakes))
        .collect();
    let implementation = implementation(&input, &cases, mistakes.is_empty());
    let mistakes = mistakes.into_tokens();
    quote! { #implementation #(#conversions)* #mistakes }
}

/// Even with mistakes the type implements the trait, so that the compiler does not also report the missing implementation.
fn implementation(input: &DeriveInput, cases: &[Case<'_>], fine: bool) -> TokenStream {
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let classes = cases.iter().map(|Case { path, meaning, .. }| {
        let class = &meaning.class;
        quote!(#path { .. } => ::postrider::private::Class::#class)
    });
    let codes = cases.iter().map(|Case { path, meaning, .. }| {
        let code = meaning.code.as_ref().map_or_else(|| quote!("failed"), |code| quote!(#code));
        quote!(#path { .. } => #code)
    });
    // The error inside, where a variant has nothing else.
    let sources =
        cases.iter().filter(|case| matches!(case.fields, Fields::Unnamed(fields) if fields.unnamed.len() == 1));
    let sources =
        sources.map(|Case { path, .. }| quote!(#path(inner) => ::postrider::private::SourceOf(inner).source_error()));
    let (class, code, source) = if fine {
        (
            quote!(match *self { #(#classes),* }),
            quote!(match *self { #(#codes),* }),
            quote!(match self { #(#sources,)* #[allow(unreachable_patterns)] _ => ::core::option::Option::None }),
        )
    } else {
        (quote!(::core::unreachable!()), quote!(::core::unreachable!()), quote!(::core::unreachable!()))
    };
    quote! {
        impl #impl_generics ::postrider::private::HandlerError for #name #type_generics #where_clause {
            fn class(&self) -> ::postrider::private::Class {
                #class
            }

            fn code(&self) -> &str {
                #code
            }

            fn source_error(&self) -> ::core::option::Option<&(dyn ::std::error::Error + 'static)> {
                #[allow(unused_imports)]
                use ::postrider::private::NoSource as _;
                #source
            }
        }
    }
}

fn meaning(attributes: &[Attribute], place: &Ident, mistakes: &mut Mistakes) -> Option<Meaning> {
    let ours = |attribute: &&Attribute| {
        ["transient", "permanent", "rejected"].iter().any(|word| attribute.path().is_ident(word))
    };
    let mut found = attributes.iter().filter(ours);
    let Some(attribute) = found.next() else {
        mistakes.at(place, WRITE);
        return None;
    };
    if let Some(second) = found.next() {
        mistakes.at(second, "one meaning is enough: an error is transient, permanent or rejected");
    }
    let rejected = attribute.path().is_ident("rejected");
    let coded = rejected || attribute.path().is_ident("permanent");
    let class = if rejected {
        "Rejected"
    } else if attribute.path().is_ident("permanent") {
        "Permanent"
    } else {
        "Transient"
    };
    let mut meaning = Meaning { class: Ident::new(class, place.span()), code: None, from: false };
    let mut code_missing = rejected;
    if let Meta::NameValue(_) = &attribute.meta {
        mistakes.at(attribute, WRITE);
        return None;
    }
    if let Meta::List(list) = &attribute.meta {
        for word in parts::<Word>(list.tokens.clone(), "code = \"unknown-order\"", mistakes).iter().flatten() {
            match word.name.to_string().as_str() {
                "code" if coded => {
                    code_missing = false;
                    meaning.code = text(word, mistakes);
                }
                "from" if !rejected => meaning.from = flag(word, mistakes),
                other => mistakes.at(&word.name, format!("`{other}` is not known here; write `#[transient(from)]`, `#[permanent(from, code = \"…\")]` (both may be left out) or `#[rejected(code = \"…\")]`")),
            }
        }
    }
    if code_missing {
        mistakes.at(attribute, "a rejection has a code for programs: `#[rejected(code = \"unknown-order\")]`");
    }
    Some(meaning)
}

fn conversion(input: &DeriveInput, case: &Case<'_>, mistakes: &mut Mistakes) -> Option<TokenStream> {
    let types: Vec<&Type> = match case.fields {
        Fields::Unnamed(fields) => fields.unnamed.iter().map(|field| &field.ty).collect(),
        _ => Vec::new(),
    };
    let [ty] = types[..] else {
        mistakes.at(case.place, "`from` needs exactly one unnamed field, such as `Send(SendError)`");
        return None;
    };
    let (name, path) = (&input.ident, &case.path);
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    Some(quote! {
        impl #impl_generics ::core::convert::From<#ty> for #name #type_generics #where_clause {
            fn from(error: #ty) -> Self {
                #path(error)
            }
        }
    })
}
