//! Compares a handler with the contract of its message, and finds a context that is taken by value. The compiler compares, because
//! a macro sees no types.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;

use crate::ast::{By, Handler, Parameter};
use crate::tokens::{is_named, mentions};

/// Compares kind, key and answer with the contract of the message, if it has one. Only the first difference is reported. `kind` is the
/// handler's kind as a value.
pub fn contract_checks(handler: &Handler, kind: &TokenStream) -> TokenStream {
    let Handler { key, cfgs, message, output, method, .. } = handler;
    let (word, shown) = (&handler.kind, quote!(#message).to_string());
    // A constant cannot name the `Self` of the block around it.
    if mentions(message, "Self") || mentions(output, "Self") {
        return TokenStream::new();
    }
    let ours = format!("`{method}` handles the {word} \"{}\", but `{shown}` is the contract of the ", key.value());
    let wrong_reply = format!(
        "the answer of `{method}` is not the one in the contract of `{shown}`: its `reply = …`, or `()` without one"
    );
    let kind_check = quote_spanned! {word.span()=>
        #(#cfgs)*
        const _: () = {
            #[allow(unused_imports)]
            use ::postrider::private::NoContract as _;
            if let ::core::option::Option::Some(text) =
                &::postrider::private::wrong_kind(#kind, ::postrider::private::Probe::<#message>::CONTRACT, #ours)
            {
                ::core::panic!("{}", text.as_str())
            }
        };
    };
    // A pattern matches many keys; the contract names one of them.
    let key_check = (!postrider_grammar::is_wildcard(&key.value())).then(|| {
        quote_spanned! {key.span()=>
            #(#cfgs)*
            const _: () = {
                #[allow(unused_imports)]
                use ::postrider::private::NoContract as _;
                if let ::core::option::Option::Some(text) =
                    &::postrider::private::wrong_key(#kind, #key, ::postrider::private::Probe::<#message>::CONTRACT, #ours)
                {
                    ::core::panic!("{}", text.as_str())
                }
            };
        }
    });
    // A type that cannot be returned is reported at the return type; a wrong kind is reported above.
    let reply_check = quote_spanned! {output.span()=>
        #(#cfgs)*
        const _: () = {
            #[allow(unused_imports)]
            use ::postrider::private::{AnswersNothing as _, NoContract as _, NothingPromised as _, NothingReturned as _};
            assert!(
                !::postrider::private::ReplyProbe::<#message, ::core::marker::PhantomData<()>>::PROMISED
                    || !::postrider::private::ReturnProbe::<#output>::RETURNS
                    || !::postrider::private::same_kind(#kind, ::postrider::private::Probe::<#message>::CONTRACT)
                    || ::postrider::private::ReplyProbe::<#message, #output>::ANSWERS,
                #wrong_reply
            );
        };
    };
    quote! { #kind_check #key_check #reply_check }
}

/// Reports a context that is taken by value. A type of another crate may have the same name. A constant cannot name the type parameters of
/// the block around it, so a longer path is checked only in a block without any.
pub fn context_checks(handler: &Handler, concrete: bool) -> TokenStream {
    let cfgs = &handler.cfgs;
    let nameable = |ty: &syn::Type| match ty {
        syn::Type::Path(path) => concrete && !mentions(ty, "Self") || path.path.get_ident().is_some(),
        _ => false,
    };
    let by_value = handler.parameters.iter().filter(|parameter| parameter.by == By::Value);
    let by_value = by_value.filter(|Parameter { ty, .. }| is_named(ty, "Context") && nameable(ty));
    let checks = by_value.map(|parameter| {
        let ty = &parameter.ty;
        quote_spanned! {ty.span()=>
            #(#cfgs)*
            const _: () = {
                #[allow(unused_imports)]
                use ::postrider::private::OtherContext as _;
                assert!(!::postrider::private::ByValue::<#ty>::IS_OURS, "a handler takes the context by reference; write `&Context`");
            };
        }
    });
    quote! { #(#checks)* }
}
