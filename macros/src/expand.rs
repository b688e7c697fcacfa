//! Turns the checked block into code. The code only calls `postrider::private`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{ImplItemFn, Item, ItemImpl, Type};

use crate::ast::{Actor, By, Handler, Parameter};
use crate::attr::{ImplWords, PolicyWords};
use crate::check::{check, conflict};
use crate::compare::{context_checks, contract_checks};
use crate::mistakes::Mistakes;
use crate::tokens::{borrows, is_named};

pub fn distributed(attribute: TokenStream, item: TokenStream) -> TokenStream {
    let mut mistakes = Mistakes::default();
    let block = match syn::parse2::<ItemImpl>(item.clone()) {
        Ok(block) => block,
        Err(error) => return not_a_block(item, error),
    };
    let words = ImplWords::read(attribute, &mut mistakes);
    let mut actor = Actor::read(words, block, &mut mistakes);
    check(&mut actor, &mut mistakes);
    let block = &actor.item;
    let implementation = implementation(&actor, mistakes.is_empty());
    let mistakes = mistakes.into_tokens();
    quote! { #block #implementation #mistakes }
}

fn not_a_block(item: TokenStream, unreadable: syn::Error) -> TokenStream {
    const GOES: &str = "`#[distributed(service = \"…\")]` goes on an impl block: `#[distributed(service = \"invoice\")] impl Invoicing { … }`";
    let error = match (syn::parse2::<ImplItemFn>(item.clone()), syn::parse2::<Item>(item.clone())) {
        (Ok(method), _) => not_in_a_block(&method),
        (_, Ok(Item::Struct(item))) => syn::Error::new(item.ident.span(), GOES),
        (_, Ok(Item::Enum(item))) => syn::Error::new(item.ident.span(), GOES),
        (_, Ok(Item::Trait(item))) => syn::Error::new(item.ident.span(), GOES),
        (_, Ok(item)) => syn::Error::new(item.span(), GOES),
        // The item ends too early. Block and method report it with the same text, which the compiler shows once.
        (Err(error), Err(_)) if item.clone().into_iter().any(|token| token.to_string() == "fn") => error,
        (Err(_), Err(_)) => unreadable,
    };
    let error = error.to_compile_error();
    quote! { #item #error }
}

fn not_in_a_block(method: &ImplItemFn) -> syn::Error {
    let text = if method.sig.receiver().is_some() {
        "`#[distributed(…)]` on a method needs `#[distributed(service = \"…\")]` on its impl block"
    } else {
        "`#[distributed(…)]` goes on a method with `&self` or `&mut self`, in an impl block with `#[distributed(service = \"…\")]`"
    };
    syn::Error::new(method.sig.ident.span(), text)
}

/// Even with mistakes the type implements the trait: the compiler does not report that as well, and still checks the handlers without a
/// mistake.
fn implementation(actor: &Actor, fine: bool) -> TokenStream {
    if actor.item.trait_.is_some() || borrows(&actor.item.self_ty) {
        return TokenStream::new();
    }
    let (generics, ty) = (&actor.item.generics, &actor.item.self_ty);
    let (impl_generics, _, where_clause) = generics.split_for_impl();
    let attributes = if fine { attributes(actor) } else { quote!(::core::unreachable!()) };
    let readable = || actor.handlers.iter().filter(|handler| !handler.mistaken);
    let rows = readable().map(row);
    let concrete = generics.params.is_empty();
    let contracts = readable().filter(|_| concrete).map(|handler| contract_checks(handler, &kind(handler)));
    let contexts = readable().map(|handler| context_checks(handler, concrete));
    let conflicts = if fine { conflicts_under_cfg(actor) } else { TokenStream::new() };
    // The trait's name is what the compiler shows when one type has two annotated blocks.
    quote! {
        #(#contracts)*
        #(#contexts)*
        #[allow(clippy::all, clippy::pedantic)]
        impl #impl_generics ::postrider::private::one_type_has_one_distributed_block__put_all_handlers_into_it_or_make_a_second_type_with_its_own_queue for #ty #where_clause {
            fn attributes() -> ::postrider::private::Attributes {
                #attributes
            }

            fn handlers(table: &mut ::postrider::private::Table<Self>) {
                #conflicts
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
    let (ordered, prefetch, concurrency) = (words.ordered.is_some(), option(words.prefetch), option(words.concurrency));
    let timeout = option(words.timeout.map(|timeout| {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        quote! { ::core::time::Duration::from_millis(#millis) }
    }));
    let policy = policy(&words.policy);
    let (stops, once_by) = (words.stops.is_some(), option(words.once_by.as_ref()));
    quote! {
        ::postrider::private::Attributes {
            actor: #name,
            service: #service,
            queue: #queue,
            domains: #domains,
            guarantee: ::postrider::private::Guarantee::#guarantee,
            once_by: #once_by,
            ordered: #ordered,
            stops_at_poison: #stops,
            prefetch: #prefetch,
            concurrency: #concurrency,
            timeout: #timeout,
            policy: #policy,
        }
    }
}

/// The failure policy that the words give.
fn policy(words: &PolicyWords) -> TokenStream {
    let retry = option(words.retry.as_ref());
    let classes = |classes: &Option<Vec<syn::Ident>>| {
        option(classes.as_ref().map(|classes| quote! { &[#(::postrider::private::FailureClass::#classes),*] }))
    };
    let (give_up, discard) = (classes(&words.give_up), classes(&words.discard));
    quote! { ::postrider::private::PolicyWords { retry: #retry, give_up: #give_up, discard: #discard } }
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
    let policy = policy(&handler.policy);
    let scope = if handler.instance { format_ident!("Instance") } else { format_ident!("Shared") };
    let name = method.to_string();
    let line = quote_spanned!(method.span()=> ::core::line!());
    let names: Vec<_> = (0..handler.parameters.len()).map(|index| format_ident!("parameter_{index}")).collect();
    // Our variables use our own tokens: hygiene might hide them from an identifier with a type's span.
    let context = format_ident!("context");
    let parameters = handler.parameters.iter().zip(&names).map(|(parameter, name)| {
        let ty = &parameter.ty;
        if parameter.by == By::Reference {
            return quote_spanned!(ty.span()=> let #name = <#ty as ::postrider::private::ByReference>::by_reference(&#context););
        }
        let from = if parameter.by == By::MutableReference {
            quote_spanned!(ty.span()=> async |context: &_| <#ty as ::postrider::private::ByMutableReference>::take(context))
        } else if is_named(ty, "Context") {
            quote_spanned!(ty.span()=> { #[allow(unused_imports)] use ::postrider::private::FromOtherContext as _; ::postrider::private::ByValue::<#ty>::from_context })
        } else {
            quote_spanned!(ty.span()=> <#ty as ::postrider::private::FromContext>::from_context)
        };
        quote_spanned! {ty.span()=>
            #[allow(unused_mut)]
            let mut #name = match (#from)(&#context).await {
                ::core::result::Result::Ok(value) => value,
                ::core::result::Result::Err(failure) => return ::postrider::private::not_extracted(&failure),
            };
        }
    });
    let arguments = handler.parameters.iter().zip(&names).map(|(parameter, name)| match parameter.by {
        By::MutableReference => quote_spanned!(parameter.ty.span()=> &mut #name),
        By::Reference | By::Value => quote!(#name),
    });
    let transaction = handler.parameters.iter().find(|parameter| parameter.by == By::MutableReference);
    let transaction = option(transaction.map(
        |Parameter { ty, .. }| quote_spanned!(ty.span()=> <#ty as ::postrider::private::ByMutableReference>::DATABASE),
    ));
    let read = read_message(message);
    let returned = quote_spanned!(output.span()=> <#output as ::postrider::private::Returned>::into_outcome);
    quote! {
        #(#cfgs)*
        table.#add(
            ::postrider::private::HandlerSpec {
                kind: #kind,
                key: #key,
                scope: ::postrider::private::Scope::#scope,
                transaction: #transaction,
                permission: #permission,
                policy: #policy,
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
                let #context = invocation.context();
                #(#parameters)*
                let result = Self::#method(state, message, #(#arguments),*).await;
                #returned(result, invocation)
            }),
        );
    }
}

/// `Bytes` and `String` are read raw. The compiler decides whether a type of that name is the one meant:
/// our inherent method wins over the trait's.
fn read_message(message: &Type) -> TokenStream {
    let invocation = format_ident!("invocation");
    if is_named(message, "Bytes") || is_named(message, "String") {
        return quote_spanned! {message.span()=> {
            #[allow(unused_imports)]
            use ::postrider::private::ReadTyped as _;
            ::postrider::private::Read::<#message>::NEW.read(#invocation)
        }};
    }
    quote_spanned!(message.span()=> ::postrider::private::typed::<#message>(#invocation))
}

/// Two methods that could take the same message, of which at least one is under `#[cfg]`: a mistake if both remain.
fn conflicts_under_cfg(actor: &Actor) -> TokenStream {
    let mut conflicts = TokenStream::new();
    for (index, first) in actor.handlers.iter().enumerate() {
        for second in &actor.handlers[index + 1..] {
            let cfgs = first.cfgs.iter().chain(&second.cfgs);
            if let Some(text) = conflict(first, second) {
                conflicts.extend(quote_spanned!(second.key.span()=> #(#cfgs)* ::core::compile_error!(#text);));
            }
        }
    }
    conflicts
}
