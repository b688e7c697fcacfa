//! Looks at tokens where the parsed item does not say enough.

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens;
use syn::Type;

/// Whether the identifier occurs anywhere.
pub fn mentions(tokens: &impl ToTokens, name: &str) -> bool {
    any(tokens.to_token_stream(), &|_, token| matches!(token, TokenTree::Ident(ident) if ident == name))
}

/// Whether a type has a reference or a lifetime other than `'static`.
pub fn borrows(ty: &Type) -> bool {
    any(ty.to_token_stream(), &|before, token| match token {
        TokenTree::Punct(punct) => punct.as_char() == '&',
        TokenTree::Ident(ident) => before == Some('\'') && ident != "static",
        _ => false,
    })
}

/// Whether the last word of the type's path is `name`. Only the compiler knows which type that is.
pub fn is_named(ty: &Type, name: &str) -> bool {
    let last = if let Type::Path(path) = ty { path.path.segments.last() } else { None };
    last.is_some_and(|segment| segment.ident == name)
}

/// A type that a `macro_rules` macro passes on comes in an invisible group.
pub fn ungrouped(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => ungrouped(&group.elem),
        other => other,
    }
}

/// Whether a token is the one searched for; `found` also gets the punctuation before it.
fn any(tokens: TokenStream, found: &dyn Fn(Option<char>, &TokenTree) -> bool) -> bool {
    let mut before = None;
    for token in tokens {
        if found(before, &token) {
            return true;
        }
        before = if let TokenTree::Punct(punct) = &token { Some(punct.as_char()) } else { None };
        if let TokenTree::Group(group) = token
            && any(group.stream(), found)
        {
            return true;
        }
    }
    false
}
