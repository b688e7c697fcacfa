//! The macros of Postrider. Use them through the crate `postrider`.
//!
//! Each macro reads its attribute, builds its own representation of the item, checks it, and expands. All mistakes are
//! reported at once, and the item itself is emitted even then.

mod ast;
mod attr;
mod check;
mod compare;
mod contract;
mod expand;
mod failure;
mod mistakes;
mod parameters;
mod test_attr;
mod tokens;

use proc_macro::TokenStream;

/// Makes an impl block a service actor: `#[distributed(service = "invoice")]` on the block,
/// `#[distributed(command = "invoice.create")]` (or `event`, `query`, `channel`) on its methods. A method without the
/// attribute is not reachable from outside.
///
/// On the block: `service`, `queue` (a second actor of the service), `domains` (default: the service's name),
/// `guarantee` (`at_most_once`, `at_least_once`, `effectively_once`), `once_by`, `ordered`, `on_poison = "stop"`, `prefetch`, `concurrency`,
/// `timeout = "30s"`, `retry` (`"none"`, `"blocking"`, `"delayed"`, `"3 then 1s, 10s, 1m"`, `"1 then 1s..10m x8"`),
/// `give_up = ["panic"]` (failures after which a message is not tried again: `transient`, `panic`, `timed_out`),
/// `discard = ["rejected"]` (failures whose message is dropped in the end instead of dead-lettered: those and `permanent`,
/// `rejected`, `undecodable`).
///
/// On a method: one kind with its key, `permission`, for events `scope = "instance"`, and `retry`, `give_up` and
/// `discard` where it differs from its block.
#[proc_macro_attribute]
pub fn distributed(attribute: TokenStream, item: TokenStream) -> TokenStream {
    expand::distributed(attribute.into(), item.into()).into()
}

/// A command's contract: `#[message(key = "invoice.create", reply = InvoiceCreated)]`. Further words: `transient`,
/// `fire`, `media_type = "application/json"`, `encoding = "zstd"`, `schema_version = 2`.
#[proc_macro_derive(Command, attributes(message))]
pub fn derive_command(item: TokenStream) -> TokenStream {
    contract::derive("Command", item.into()).into()
}

/// An event's contract: `#[message(key = "invoice.created")]`. Further words as for a command, without `reply`.
#[proc_macro_derive(Event, attributes(message))]
pub fn derive_event(item: TokenStream) -> TokenStream {
    contract::derive("Event", item.into()).into()
}

/// A query's contract: `#[message(key = "invoice.issued", reply = u64)]`. Further words as for a command.
#[proc_macro_derive(Query, attributes(message))]
pub fn derive_query(item: TokenStream) -> TokenStream {
    contract::derive("Query", item.into()).into()
}

/// What an error means for the message: `#[transient]`, `#[permanent]` or `#[rejected(code = "…")]` on the type or on
/// each variant. `#[transient(from)]` and `#[permanent(from)]` also take the one field's type through `?`.
/// A permanent error may have a code too: `#[permanent(code = "…")]`.
/// The type must implement `Display`, which is the text for the log and, of a rejection, for the caller.
#[proc_macro_derive(HandlerError, attributes(transient, permanent, rejected))]
pub fn derive_handler_error(item: TokenStream) -> TokenStream {
    failure::derive(item.into()).into()
}

/// A test that may start actors: `#[postrider::test] async fn orders_are_announced() { … }`.
#[proc_macro_attribute]
pub fn test(attribute: TokenStream, item: TokenStream) -> TokenStream {
    test_attr::expand(attribute.into(), item.into()).into()
}
