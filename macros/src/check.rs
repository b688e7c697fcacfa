//! What can be wrong with a block whose words were read.

use postrider_grammar::{check_key, check_pattern, check_queue, check_service, domain, is_wildcard, patterns_overlap};

use crate::ast::{Actor, Handler};
use crate::mistakes::Mistakes;

pub fn check(actor: &Actor, mistakes: &mut Mistakes) {
    check_block(actor, mistakes);
    for handler in &actor.handlers {
        check_handler(handler, actor, mistakes);
    }
    for (index, first) in actor.handlers.iter().enumerate() {
        for second in &actor.handlers[index + 1..] {
            check_pair(first, second, mistakes);
        }
    }
}

fn check_block(actor: &Actor, mistakes: &mut Mistakes) {
    let words = &actor.words;
    match &words.service {
        None => mistakes
            .at(&actor.item.self_ty, "say which service this actor belongs to: `#[distributed(service = \"…\")]`"),
        Some(service) => {
            if let Err(error) = check_service(&service.value()) {
                mistakes.at(service, error);
            }
        }
    }
    if let Some(queue) = &words.queue
        && let Err(error) = check_queue(&queue.value())
    {
        mistakes.at(queue, error);
    }
    for domain in words.domains.iter().flatten() {
        if check_service(&domain.value()).is_err() {
            mistakes
                .at(domain, "a domain is the first word of a key: one word of a-z, 0-9 and '-', such as \"invoice\"");
        }
    }
    if words.ordered && words.guarantee.as_ref().is_some_and(|guarantee| guarantee == "AtMostOnce") {
        mistakes.at(
            &actor.item.self_ty,
            "`ordered` needs `at_least_once`: a message that is not kept until it is handled has no order to keep",
        );
    }
    if actor.handlers.is_empty() && mistakes.is_empty() {
        mistakes.at(
            &actor.item.self_ty,
            "no method is annotated; write `#[distributed(command = \"…\")]` (or event, query, channel) on one",
        );
    }
}

fn owned_domains(actor: &Actor) -> Vec<String> {
    match &actor.words.domains {
        Some(domains) => domains.iter().map(syn::LitStr::value).collect(),
        None => actor.words.service.iter().map(syn::LitStr::value).collect(),
    }
}

fn check_handler(handler: &Handler, actor: &Actor, mistakes: &mut Mistakes) {
    let key = handler.key.value();
    let kind = handler.kind.to_string();
    let checked = if kind == "event" { check_pattern(&key) } else { check_key(&key) };
    if let Err(error) = checked {
        mistakes.at(&handler.key, error);
        return;
    }
    if handler.instance && kind != "event" {
        mistakes
            .at(&handler.kind, "only events go to every instance; a command, query or channel message is handled once");
    }
    let owned = owned_domains(actor);
    let needs_owner = kind == "command" || kind == "query";
    if needs_owner && !owned.is_empty() && !owned.iter().any(|owned| owned == domain(&key)) {
        let service = actor.words.service.as_ref().map(syn::LitStr::value).unwrap_or_default();
        let text = format!(
            "service {service:?} does not own the domain {:?}; it owns {owned:?}. Use a key of an owned domain, or add the domain: `domains = [\"{service}\", {:?}]`",
            domain(&key),
            domain(&key)
        );
        mistakes.at(&handler.key, text);
    }
}

fn check_pair(first: &Handler, second: &Handler, mistakes: &mut Mistakes) {
    let (a, b) = (first.key.value(), second.key.value());
    let kind = first.kind.to_string();
    // Methods under `#[cfg]` may exclude each other; a constant in the expansion looks at those that remain.
    let conditional = !first.cfgs.is_empty() || !second.cfgs.is_empty();
    if second.kind != kind || first.instance != second.instance || conditional {
        return;
    }
    if a == b {
        let text = |other: &Handler| format!("two handlers for {kind} {a:?}: the other one is `{}`", other.method);
        mistakes.at(&first.key, text(second));
        mistakes.at(&second.key, text(first));
    } else if kind == "event" && (is_wildcard(&a) || is_wildcard(&b)) && patterns_overlap(&a, &b) {
        let text = format!(
            "some keys match both {a:?} (`{}`) and {b:?}, and which handler comes first would be chance; narrow one of them, or put this handler into a second actor with `queue = \"…\"`",
            first.method
        );
        mistakes.at(&second.key, text);
    }
}
