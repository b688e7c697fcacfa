//! From the checked picture to code. The code only calls `postrider::private`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Item, ItemImpl, Type};

use crate::ast::{Actor, Handler};
use crate::attr::ImplWords;
use crate::check::check;
use crate::mistakes::Mistakes;

pub fn distributed(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let Ok(block) = syn::parse2::<ItemImpl>(item.clone()) else {
        return not_a_block(item);
    };
    let words = ImplWords::read(attribute, &mut mistakes);
    let actor = Actor::read(words, block, &mut mistakes);
    check(&actor, &mut mistakes);
    let block = &actor.item;
    if !mistakes.is_empty() {
        let mistakes = mistakes.into_tokens();
        return quote! { #block #mistakes };
    }
    let implementation = implementation(&actor);
    quote! { #block #implementation }
}

fn not_a_block(item: TokenStream) -> TokenStream {
    let text = if syn::parse2::<syn::ImplItemFn>(item.clone()).is_ok() {
        "`#[distributed(…)]` on a method needs `#[distributed(service = \"…\")]` on its impl block"
    } else {
        "`#[distributed(service = \"…\")]` goes on an impl block: `#[distributed(service = \"invoice\")] impl Invoicing { … }`"
    };
    let place = match syn::parse2::<Item>(item.clone()) {
        Ok(Item::Struct(item)) => item.ident.span(),
        Ok(Item::Fn(item)) => item.sig.ident.span(),
        _ => item.span(),
    };
    let error = syn::Error::new(place, text).to_compile_error();
    quote! { #item #error }
}

fn implementation(actor: &Actor) -> TokenStream {
    let (generics, ty) = (&actor.item.generics, &actor.item.self_ty);
    let (impl_generics, _, where_clause) = generics.split_for_impl();
    let attributes = attributes(actor);
    let rows = actor.handlers.iter().map(row);
    let concrete = generics.params.is_empty();
    let checks = actor.handlers.iter().filter(|_| concrete).map(contract_checks);
    let duplicates = duplicate_check(actor);
    quote! {
        #[allow(clippy::all, clippy::pedantic)]
        impl #impl_generics ::postrider::private::Actor for #ty #where_clause {
            fn attributes() -> ::postrider::private::Attributes {
                #attributes
            }

            fn handlers(table: &mut ::postrider::private::Table<Self>) {
                #(#checks)*
                #duplicates
                #(#rows)*
            }
        }
    }
}

fn attributes(actor: &Actor) -> TokenStream {
    let words = &actor.words;
    let service = words.service.as_ref();
    let name = type_name(&actor.item.self_ty);
    let queue = option(words.queue.as_ref());
    let domains = match &words.domains {
        Some(domains) => quote! { &[#(#domains),*] },
        None => quote! { &[#service] },
    };
    let guarantee = words.guarantee.clone().unwrap_or_else(|| format_ident!("AtLeastOnce"));
    let (ordered, prefetch, concurrency) = (words.ordered, option(words.prefetch), option(words.concurrency));
    let timeout = option(words.timeout.map(|timeout| {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        quote! { ::core::time::Duration::from_millis(#millis) }
    }));
    let attempts = option(words.attempts);
    quote! {
        ::postrider::private::Attributes {
            actor: #name,
            service: #service,
            queue: #queue,
            domains: #domains,
            guarantee: ::postrider::private::Guarantee::#guarantee,
            ordered: #ordered,
            prefetch: #prefetch,
            concurrency: #concurrency,
            timeout: #timeout,
            attempts: #attempts,
        }
    }
}

fn option<T: quote::ToTokens>(value: Option<T>) -> TokenStream {
    match value {
        Some(value) => quote! { ::core::option::Option::Some(#value) },
        None => quote! { ::core::option::Option::None },
    }
}

fn type_name(ty: &Type) -> String {
    match ty {
        Type::Path(path) => path.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default(),
        other => quote!(#other).to_string(),
    }
}

fn kind(handler: &Handler) -> TokenStream {
    let variant = match handler.kind.to_string().as_str() {
        "command" => "Command",
        "event" => "Event",
        "query" => "Query",
        _ => "Channel",
    };
    let variant = format_ident!("{variant}");
    quote! { ::postrider::private::Kind::#variant }
}

fn row(handler: &Handler) -> TokenStream {
    let Handler { key, method, cfgs, message, output, .. } = handler;
    let add = if handler.exclusive { format_ident!("exclusive") } else { format_ident!("shared") };
    let (kind, permission) = (kind(handler), option(handler.permission.as_ref()));
    let scope = if handler.instance { format_ident!("Instance") } else { format_ident!("Shared") };
    let name = method.to_string();
    let line = quote_spanned!(method.span()=> ::core::line!());
    let names: Vec<_> = (0..handler.parameters.len()).map(|index| format_ident!("parameter_{index}")).collect();
    let parameters = handler.parameters.iter().zip(&names).map(|(parameter, name)| {
        let ty = &parameter.ty;
        if parameter.by_reference {
            return quote_spanned!(ty.span()=> let #name = <#ty as ::postrider::private::ByReference>::by_reference(&context););
        }
        quote_spanned! {ty.span()=>
            let #name = match <#ty as ::postrider::private::FromContext>::from_context(&context).await {
                ::core::result::Result::Ok(value) => value,
                ::core::result::Result::Err(failure) => return ::postrider::private::not_extracted(&failure),
            };
        }
    });
    let read = read_message(message);
    let returned = quote_spanned!(output.span()=> <#output as ::postrider::private::Returned>::into_outcome);
    quote! {
        #(#cfgs)*
        table.#add(
            ::postrider::private::HandlerSpec {
                kind: #kind,
                key: #key,
                scope: ::postrider::private::Scope::#scope,
                permission: #permission,
                method: #name,
                file: ::core::file!(),
                line: #line,
            },
            |state, invocation| ::std::boxed::Box::pin(async move {
                let message = match #read {
                    ::core::result::Result::Ok(message) => message,
                    ::core::result::Result::Err(outcome) => return outcome,
                };
                #[allow(unused_variables)]
                let context = invocation.context();
                #(#parameters)*
                let result = Self::#method(state, message, #(#names),*).await;
                #returned(result, invocation)
            }),
        );
    }
}

/// `Bytes` and `String` are read raw. Whether a type of that name is the one we mean is for the compiler to find out:
/// the inherent method of ours wins over the trait's.
fn read_message(message: &Type) -> TokenStream {
    let last = if let Type::Path(path) = message { path.path.segments.last() } else { None };
    if last.is_some_and(|segment| segment.ident == "Bytes" || segment.ident == "String") {
        return quote_spanned! {message.span()=> {
            #[allow(unused_imports)]
            use ::postrider::private::ReadTyped as _;
            ::postrider::private::Read::<#message>::NEW.read(invocation)
        }};
    }
    quote_spanned!(message.span()=> ::postrider::private::typed::<#message>(invocation))
}

/// Compares key, kind and answer with the contract of the message, if it has one.
fn contract_checks(handler: &Handler) -> TokenStream {
    let Handler { key, cfgs, message, output, method, .. } = handler;
    let kind_value = kind(handler);
    let (kind, shown) = (&handler.kind, quote!(#message).to_string());
    let raw = if let Type::Path(path) = message { path.path.get_ident().map(ToString::to_string) } else { None };
    if raw.as_deref() == Some("Self") || quote!(#message #output).to_string().contains("Self") {
        return TokenStream::new();
    }
    let wrong_key = format!("the key of `{method}` differs from the key in the contract of `{shown}`");
    let wrong_kind = format!("`{method}` handles a {kind}, but the contract of `{shown}` is of another kind");
    let wrong_reply = format!("`{method}` does not answer what the contract of `{shown}` promises with `reply = …`");
    // A pattern matches many keys; the contract names one of them.
    let key_check = (!postrider_grammar::is_wildcard(&key.value())).then(|| {
        quote_spanned! {key.span()=>
            #(#cfgs)*
            const _: () = {
                #[allow(unused_imports)]
                use ::postrider::private::NoContract as _;
                assert!(::postrider::private::same_key(#key, ::postrider::private::Probe::<#message>::KEY), #wrong_key);
            };
        }
    });
    let kind_check = quote_spanned! {kind.span()=>
        #(#cfgs)*
        const _: () = {
            #[allow(unused_imports)]
            use ::postrider::private::NoContract as _;
            assert!(::postrider::private::same_kind(#kind_value, ::postrider::private::Probe::<#message>::KIND), #wrong_kind);
        };
    };
    let reply_check = quote_spanned! {output.span()=>
        #(#cfgs)*
        const _: () = {
            #[allow(unused_imports)]
            use ::postrider::private::{AnswersNothing as _, NothingPromised as _};
            assert!(
                !::postrider::private::ReplyProbe::<#message, ::core::marker::PhantomData<()>>::PROMISED
                    || ::postrider::private::ReplyProbe::<#message, #output>::ANSWERS,
                #wrong_reply
            );
        };
    };
    quote! { #key_check #kind_check #reply_check }
}

/// Methods under `#[cfg]` are only compared when it is known which of them remain.
fn duplicate_check(actor: &Actor) -> TokenStream {
    let rows = actor.handlers.iter().map(|handler| {
        let (cfgs, key) = (&handler.cfgs, &handler.key);
        let kind = format!("{} {}", handler.kind, if handler.instance { "instance" } else { "shared" });
        quote! { #(#cfgs)* (#kind, #key) }
    });
    let ty = &actor.item.self_ty;
    quote_spanned! {ty.span()=>
        const _: () = assert!(
            !::postrider::private::has_duplicate(&[#(#rows),*]),
            "two handlers that are both compiled in have the same kind and key"
        );
    }
}
