//! `#[derive(HandlerError)]`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Data, DeriveInput, Fields, Ident, LitStr, Meta, Type};

use crate::attr::{text, words};
use crate::mistakes::Mistakes;

/// What one variant (or the whole struct) means.
struct Meaning {
    class: Ident,
    code: Option<LitStr>,
    from: bool,
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
                cases.push((quote!(Self { .. }), quote!(Self), meaning, &data.fields));
            }
        }
        Data::Enum(data) => {
            for variant in &data.variants {
                let name = &variant.ident;
                if let Some(meaning) = meaning(&variant.attrs, name, &mut mistakes) {
                    cases.push((quote!(Self::#name { .. }), quote!(Self::#name), meaning, &variant.fields));
                }
            }
        }
        Data::Union(_) => mistakes.at(&input.ident, "an error is a struct or an enum"),
    }
    let conversions: Vec<_> = cases
        .iter()
        .filter(|(_, _, meaning, _)| meaning.from)
        .filter_map(|(_, constructor, _, fields)| conversion(&input, constructor, fields, &mut mistakes))
        .collect();
    if !mistakes.is_empty() {
        return mistakes.into_tokens();
    }
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let classes = cases.iter().map(|(pattern, _, meaning, _)| {
        let class = &meaning.class;
        quote!(#pattern => ::postrider::private::Class::#class)
    });
    let codes = cases.iter().map(|(pattern, _, meaning, _)| {
        let code = meaning.code.as_ref().map_or_else(|| quote!("failed"), |code| quote!(#code));
        quote!(#pattern => #code)
    });
    quote! {
        impl #impl_generics ::postrider::private::HandlerError for #name #type_generics #where_clause {
            fn class(&self) -> ::postrider::private::Class {
                match self { #(#classes),* }
            }

            fn code(&self) -> &str {
                match self { #(#codes),* }
            }
        }
        #(#conversions)*
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
    let class = if rejected {
        "Rejected"
    } else if attribute.path().is_ident("permanent") {
        "Permanent"
    } else {
        "Transient"
    };
    let mut meaning = Meaning { class: Ident::new(class, place.span()), code: None, from: false };
    if let Meta::List(list) = &attribute.meta {
        for word in words(list.tokens.clone(), mistakes) {
            match word.name.to_string().as_str() {
                "code" if rejected => meaning.code = text(&word, mistakes),
                "from" if !rejected => meaning.from = true,
                other => mistakes.at(&word.name, format!("`{other}` is not known here; write `#[transient(from)]`, `#[permanent(from)]` or `#[rejected(code = \"…\")]`")),
            }
        }
    }
    if rejected && meaning.code.is_none() {
        mistakes.at(attribute, "a rejection has a code for programs: `#[rejected(code = \"unknown-order\")]`");
    }
    Some(meaning)
}

fn conversion(
    input: &DeriveInput,
    constructor: &TokenStream,
    fields: &Fields,
    mistakes: &mut Mistakes,
) -> Option<TokenStream> {
    let Fields::Unnamed(unnamed) = fields else {
        mistakes.at(&input.ident, "`from` needs a variant with one unnamed field, such as `Send(SendError)`");
        return None;
    };
    let types: Vec<&Type> = unnamed.unnamed.iter().map(|field| &field.ty).collect();
    let [ty] = types[..] else {
        mistakes.at(unnamed, "`from` needs exactly one field");
        return None;
    };
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    Some(quote! {
        impl #impl_generics ::core::convert::From<#ty> for #name #type_generics #where_clause {
            fn from(error: #ty) -> Self {
                #constructor(error)
            }
        }
    })
}
