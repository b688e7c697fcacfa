//! What the macros accept.

mod any_parameters;
mod any_results;
mod block_with_all_words;
mod contracts_of_all_kinds;
mod errors_of_all_meanings;
mod generic_block;
mod handlers_from_a_macro;
mod handlers_that_exclude_each_other;
mod keys_that_do_not_meet;
mod method_with_all_words;
mod method_without_the_attribute;
mod other_attributes;

use postrider::handler::{Actor, Handlers};

/// The handlers of an actor in the order of their methods, as "method: kind key".
fn handlers<A: Actor>() -> Vec<String> {
    let handlers = Handlers::of::<A>();
    let specs = handlers.rows().iter().map(|row| row.spec);
    specs.map(|spec| format!("{}: {} {}", spec.method, spec.kind.as_str(), spec.key)).collect()
}
