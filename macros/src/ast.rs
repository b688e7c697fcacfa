//! The macros' own representation of an annotated impl block.

use syn::spanned::Spanned;
use syn::{
    Attribute, FnArg, Ident, ImplItem, ImplItemFn, ItemImpl, LitStr, Meta, Receiver, ReceiverKind, ReturnType, Type,
};

use crate::attr::{ImplWords, MethodWords, PolicyWords};
use crate::mistakes::Mistakes;
use crate::parameters::check_parts;
use crate::tokens::{borrows, is_named, mentions, ungrouped};

pub struct Actor {
    pub words: ImplWords,
    /// The block as it is emitted: without our attributes.
    pub item: ItemImpl,
    pub handlers: Vec<Handler>,
}

pub struct Handler {
    pub kind: Ident,
    pub key: LitStr,
    pub instance: bool,
    pub permission: Option<LitStr>,
    pub policy: PolicyWords,
    pub method: Ident,
    pub cfgs: Vec<Attribute>,
    pub exclusive: bool,
    pub message: Type,
    pub parameters: Vec<Parameter>,
    pub output: Type,
    /// Its words do not fit together. That mistake is reported, and no other about this handler.
    pub mistaken: bool,
}

/// How a handler takes a parameter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    Value,
    Reference,
    /// A transaction.
    MutableReference,
}

pub struct Parameter {
    pub ty: Type,
    pub by: By,
}

impl Actor {
    pub fn read(words: ImplWords, mut item: ItemImpl, mistakes: &mut Mistakes) -> Self {
        if let Some((path, _)) = &item.trait_ {
            mistakes.at(path, "`#[distributed]` goes on an inherent impl block: `impl Type { … }` without a trait");
        }
        let mut handlers = Vec::new();
        for member in &mut item.items {
            if let ImplItem::Fn(method) = member {
                handlers.extend(read_method(method, mistakes));
            }
        }
        Self { words, item, handlers }
    }
}

/// Takes our attribute off a method, and makes a handler of it if it has one.
fn read_method(method: &mut ImplItemFn, mistakes: &mut Mistakes) -> Option<Handler> {
    let mut ours = Vec::new();
    method.attrs.retain(|attribute| {
        let is_ours = attribute.path().segments.last().is_some_and(|segment| segment.ident == "distributed");
        if is_ours {
            ours.push(attribute.clone());
        }
        !is_ours && !is_hidden(attribute, mistakes)
    });
    let attribute = ours.first()?;
    if let Some(second) = ours.get(1) {
        mistakes.at(second, "a method has one `#[distributed(…)]`; write a second method for the other key");
    }
    let mut here = Mistakes::default();
    let words = MethodWords::read(attribute, &mut here);
    let signature = read_signature(method, &mut here);
    let handler = words.kind.zip(signature).map(|((kind, key), signature)| Handler {
        kind,
        key,
        instance: words.instance,
        permission: words.permission,
        policy: words.policy,
        method: method.sig.ident.clone(),
        cfgs: method.attrs.iter().filter(|attribute| attribute.path().is_ident("cfg")).cloned().collect(),
        exclusive: signature.exclusive,
        message: signature.message,
        parameters: signature.parameters,
        output: signature.output,
        mistaken: false,
    });
    let fine = here.is_empty();
    mistakes.absorb(here);
    handler.filter(|_| fine)
}

/// Whether the attribute is ours inside a `cfg_attr`, which is a mistake.
fn is_hidden(attribute: &Attribute, mistakes: &mut Mistakes) -> bool {
    let hidden = match &attribute.meta {
        Meta::List(list) => list.path.is_ident("cfg_attr") && mentions(&list.tokens, "distributed"),
        _ => false,
    };
    if hidden {
        let text = "`cfg_attr(…, distributed(…))` cannot be seen by the impl block's attribute; write two methods with `#[cfg(…)]` and a plain `#[distributed(…)]` each";
        mistakes.at(attribute, text);
    }
    hidden
}

struct Signature {
    exclusive: bool,
    message: Type,
    parameters: Vec<Parameter>,
    output: Type,
}

fn read_signature(method: &ImplItemFn, mistakes: &mut Mistakes) -> Option<Signature> {
    let signature = &method.sig;
    if signature.asyncness.is_none() {
        mistakes.at(signature.fn_token, "a handler is an `async fn`; write `async` in front");
    }
    if signature.generics.type_params().next().is_some() || signature.generics.const_params().next().is_some() {
        mistakes.at(&signature.generics, "a handler has no type parameters: its message must be one type");
    }
    let mut inputs = signature.inputs.iter();
    let exclusive = match inputs.next() {
        Some(FnArg::Receiver(receiver)) => read_receiver(receiver, mistakes),
        _ => {
            mistakes.at(
                &signature.ident,
                "a handler takes `&self` (beside others) or `&mut self` (alone) as its first parameter",
            );
            return None;
        }
    };
    let types: Vec<&Type> = inputs
        .filter_map(|input| if let FnArg::Typed(typed) = input { Some(ungrouped(&typed.ty)) } else { None })
        .collect();
    for ty in types.iter().filter(|ty| matches!(ty, Type::ImplTrait(_))) {
        mistakes.at(ty, "write the name of a type: a handler's parameters have one type each");
    }
    let Some((message, rest)) = types.split_first() else {
        mistakes.at(&signature.ident, "a handler takes the message as its first parameter after `self`: `message: MyMessage`, or `_: ()` for none");
        return None;
    };
    if !check_parts(&signature.ident, signature.inputs.iter().skip(1), mistakes) {
        check_message(message, mistakes);
    }
    let parameters: Vec<Parameter> = rest.iter().map(|ty| read_parameter(ty, mistakes)).collect();
    if let Some(second) = parameters.iter().filter(|parameter| parameter.by == By::MutableReference).nth(1) {
        mistakes.at(&second.ty, "a handler has one transaction");
    }
    let output = match &signature.output {
        ReturnType::Default => syn::parse_quote_spanned!(signature.span()=> ()),
        ReturnType::Type(_, ty) => (**ty).clone(),
    };
    Some(Signature { exclusive, message: (*message).clone(), parameters, output })
}

/// Whether the handler takes the actor exclusively.
fn read_receiver(receiver: &Receiver, mistakes: &mut Mistakes) -> bool {
    if let ReceiverKind::Reference(_, _, mutability) = &receiver.kind {
        return mutability.is_some();
    }
    mistakes
        .at(receiver, "a handler takes `&self` (beside others) or `&mut self` (alone), as the actor keeps its state");
    false
}

fn check_message(message: &Type, mistakes: &mut Mistakes) {
    if let Type::Reference(reference) = message {
        mistakes.at(
            reference,
            "the first parameter after `self` is the message, taken by value; `&Context` comes after it",
        );
    } else if borrows(message) {
        mistakes.at(
            message,
            "a message owns its data: use a type that borrows nothing (`String` rather than `&str`), or write `'static` for a lifetime that `Cow` fields need",
        );
    }
}

fn read_parameter(ty: &Type, mistakes: &mut Mistakes) -> Parameter {
    let Type::Reference(reference) = ty else { return Parameter { ty: ty.clone(), by: By::Value } };
    let (ty, mutable) = (ungrouped(&reference.elem).clone(), reference.mutability.is_some());
    if mutable && is_named(&ty, "Context") {
        mistakes.at(&ty, "nothing but `self` and a transaction is taken by `&mut`; write `&Context`");
    }
    Parameter { ty, by: if mutable { By::MutableReference } else { By::Reference } }
}
