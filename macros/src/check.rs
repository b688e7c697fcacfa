//! Finds mistakes in a block whose words were read.

use postrider_grammar::{
    CONSUMER_TIMEOUT, DEFAULT_PREFETCH, check_key, check_pattern, check_queue, check_service, check_word, domain,
    is_wildcard, patterns_overlap, show_duration,
};

use crate::ast::{Actor, Handler};
use crate::attr::PolicyWords;
use crate::mistakes::Mistakes;
use crate::tokens::borrows;

pub fn check(actor: &mut Actor, mistakes: &mut Mistakes) {
    check_block(actor, mistakes);
    for index in 0..actor.handlers.len() {
        let mut here = Mistakes::default();
        check_handler(&actor.handlers[index], actor, &mut here);
        actor.handlers[index].mistaken = !here.is_empty();
        mistakes.absorb(here);
    }
    for (index, first) in actor.handlers.iter().enumerate() {
        for second in &actor.handlers[index + 1..] {
            check_pair(first, second, mistakes);
        }
    }
}

fn check_block(actor: &Actor, mistakes: &mut Mistakes) {
    let words = &actor.words;
    if borrows(&actor.item.self_ty) {
        mistakes.at(&actor.item.self_ty, "an actor borrows nothing: it owns its state for as long as the app runs");
    }
    if words.service_missing {
        mistakes.at(&actor.item.self_ty, "say which service this actor belongs to: `#[distributed(service = \"…\")]`");
    }
    if let Some(service) = &words.service
        && let Err(error) = check_service(&service.value())
    {
        mistakes.at(service, error);
    }
    if let Some(queue) = &words.queue
        && let Err(error) = check_queue(&queue.value())
    {
        mistakes.at(queue, error);
    }
    for domain in words.domains.iter().flatten() {
        if check_word("domain", &domain.value()).is_err() {
            mistakes
                .at(domain, "a domain is the first word of a key: one word of a-z, 0-9 and '-', such as \"invoice\"");
        }
    }
    if let Some(ordered) = &words.ordered
        && words.guarantee.as_ref().is_some_and(|guarantee| guarantee == "AtMostOnce")
    {
        mistakes.at(
            ordered,
            "`ordered` needs `at_least_once`: a message that is not kept until it is handled has no order to keep",
        );
    }
    if let Some(once_by) = &words.once_by
        && words.guarantee.as_ref().is_none_or(|guarantee| guarantee != "EffectivelyOnce")
    {
        mistakes.at(once_by, "`once_by` says how a repetition is known; add `guarantee = \"effectively_once\"`");
    }
    if let Some(stops) = &words.stops
        && words.ordered.is_none()
    {
        mistakes.at(stops, "`on_poison = \"stop\"` is for actors whose order matters; add `ordered`");
    }
    if words.ordered.is_some() {
        check_order(&words.policy, mistakes);
    }
    check_prefetch(actor, mistakes);
    if actor.handlers.is_empty() && mistakes.is_empty() {
        mistakes.at(
            &actor.item.self_ty,
            "no method is annotated; write `#[distributed(command = \"…\")]` (or event, query, channel) on one",
        );
    }
}

/// Refuses a prefetch that exclusive handlers, one after the other, cannot work off before the broker closes the channel.
fn check_prefetch(actor: &Actor, mistakes: &mut Mistakes) {
    let (Some(prefetch), Some(timeout)) = (actor.words.prefetch, actor.words.timeout) else { return };
    let most = (CONSUMER_TIMEOUT.as_secs_f64() / timeout.as_secs_f64()).clamp(1.0, f64::from(u16::MAX)) as u16;
    let exclusive = actor.handlers.iter().any(|handler| handler.exclusive && handler.cfgs.is_empty());
    if exclusive && prefetch > most && prefetch != DEFAULT_PREFETCH {
        mistakes.at(
            &actor.words.prefetch_place,
            format!(
                "{prefetch} deliveries held, handled one after the other by `&mut self` for up to {} each, take longer than RabbitMQ's consumer time-out of {}; write `prefetch = {most}` or less, or a shorter `timeout`. For a broker with a longer time-out set the prefetch in the configuration, beside `consumer_timeout`",
                show_duration(timeout),
                show_duration(CONSUMER_TIMEOUT)
            ),
        );
    }
}

/// A delayed attempt would let later messages overtake.
fn check_order(policy: &PolicyWords, mistakes: &mut Mistakes) {
    if let Some(retry) = &policy.retry
        && policy.plan().is_some_and(|plan| plan.delays.count() > 0)
    {
        mistakes.at(retry, "`ordered` keeps the queue's order, which a delayed attempt would break; write the attempts in place alone, such as \"5\"");
    }
}

/// The domains that the block owns; none if a mistake leaves that open.
fn owned_domains(actor: &Actor) -> Vec<String> {
    let domains: Vec<String> = match &actor.words.domains {
        Some(domains) => domains.iter().map(syn::LitStr::value).collect(),
        None => actor.words.service.iter().map(syn::LitStr::value).collect(),
    };
    if domains.iter().all(|domain| check_word("domain", domain).is_ok()) { domains } else { Vec::new() }
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
    check_policy(handler, actor, &kind, mistakes);
    let owned = owned_domains(actor);
    let needs_owner = kind == "command" || kind == "query";
    if needs_owner && !owned.is_empty() && !owned.iter().any(|owned| owned == domain(&key)) {
        mistakes.at(&handler.key, foreign(&key, &owned, actor));
    }
}

/// What to write instead of a key whose domain is not owned.
fn foreign(key: &str, owned: &[String], actor: &Actor) -> String {
    let service = actor.words.service.as_ref().map(syn::LitStr::value).unwrap_or_default();
    let first = owned.first().map_or("", String::as_str);
    let Some((domain, rest)) = key.split_once('.') else {
        return format!(
            "a key begins with its domain; did you mean \"{first}.{key}\"? Service {service:?} owns {owned:?}"
        );
    };
    format!(
        "service {service:?} does not own the domain {domain:?}; it owns {owned:?}. Did you mean \"{first}.{rest}\"? If the service is to own {domain:?} too, write `domains = [{}, {domain:?}]` on the block",
        owned.iter().map(|owned| format!("{owned:?}")).collect::<Vec<_>>().join(", ")
    )
}

fn check_policy(handler: &Handler, actor: &Actor, kind: &str, mistakes: &mut Mistakes) {
    let Handler { policy, .. } = handler;
    let said = policy.retry.is_some() || policy.give_up.is_some() || policy.discard.is_some();
    if kind == "query" && said {
        mistakes.at(
            &handler.kind,
            "a query is never tried again and leaves no dead letter: its caller gets the failure; leave out `retry`, `give_up` and `discard`",
        );
    }
    if actor.words.ordered.is_some() {
        check_order(policy, mistakes);
    }
    if let Some(retry) = &policy.retry
        && handler.instance
        && policy.plan().is_some_and(|plan| plan.delays.count() > 0)
    {
        mistakes.at(
            retry,
            "the queue of an instance ends with it, so there is no later for its messages; write the attempts in place alone, such as \"5\"",
        );
    }
}

fn check_pair(first: &Handler, second: &Handler, mistakes: &mut Mistakes) {
    // Methods under `#[cfg]` may exclude each other; the expansion reports those that remain.
    if !first.cfgs.is_empty() || !second.cfgs.is_empty() {
        return;
    }
    let Some(text) = conflict(first, second) else { return };
    if first.key.value() == second.key.value() {
        mistakes.at(&first.key, text.clone());
    }
    mistakes.at(&second.key, text);
}

/// Why two methods cannot both be handlers of one actor.
pub fn conflict(first: &Handler, second: &Handler) -> Option<String> {
    let (a, b) = (first.key.value(), second.key.value());
    let kind = &first.kind;
    if *kind != second.kind || first.instance != second.instance {
        return None;
    }
    if a == b {
        return Some(format!(
            "`{}` and `{}` both handle the {kind} {a:?}; a message goes to one method",
            first.method, second.method
        ));
    }
    let overlap = *kind == "event" && (is_wildcard(&a) || is_wildcard(&b)) && patterns_overlap(&a, &b);
    overlap.then(|| {
        format!(
            "some keys match both {a:?} (`{}`) and {b:?}, and which handler comes first would be chance; narrow one of them, or put this handler into a second actor with `queue = \"…\"`",
            first.method
        )
    })
}
