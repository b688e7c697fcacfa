//! Contracts: the key of a message type and the type of its reply. Optional; two services that share a contract share
//! no handler code.

use crate::message::content_encoding::ContentEncoding;
use crate::message::kind::Kind;
use crate::message::media_type::MediaType;

/// A message type with a key. Implemented by `#[derive(Command)]`, `#[derive(Event)]` and `#[derive(Query)]`.
pub trait Contract {
    /// The routing key.
    const KEY: &'static str;
    /// Command, event or query.
    const KIND: Kind;
    /// The encoding of this type; `None` leaves it to the app.
    const MEDIA_TYPE: Option<MediaType> = None;
    /// The compression of this type's messages; `None` for none.
    const CONTENT_ENCODING: Option<ContentEncoding> = None;
    /// Whether the broker may lose the message when it restarts.
    const TRANSIENT: bool = false;
    /// Whether messages of this type are fired: see [`Options::fire`](crate::Options::fire).
    const FIRE: bool = false;
    /// The version of the type's shape; 0 is not sent.
    const SCHEMA_VERSION: u32 = 0;
}

/// A command: `#[derive(Command)] #[message(key = "invoice.create")]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a command",
    label = "not a command",
    note = "`send` takes commands: derive it with `#[derive(Command)] #[message(key = \"service.verb\")]`",
    note = "events are sent with `publish`, queries with `request`"
)]
pub trait Command: Contract {}

/// An event: `#[derive(Event)] #[message(key = "invoice.created")]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event",
    label = "not an event",
    note = "`publish` takes events: derive it with `#[derive(Event)] #[message(key = \"service.happened\")]`",
    note = "commands are sent with `send`, queries with `request`"
)]
pub trait Event: Contract {}

/// A query: `#[derive(Query)] #[message(key = "invoice.issued", reply = u64)]`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a query",
    label = "not a query",
    note = "derive it with `#[derive(Query)] #[message(key = \"service.noun\", reply = Answer)]`"
)]
pub trait Query: Request {}

/// A command or query that can be awaited.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be requested",
    label = "neither command nor query",
    note = "`request` takes commands and queries: derive one with `#[derive(Command)]` or `#[derive(Query)]`",
    note = "nobody answers an event; it is sent with `publish`"
)]
pub trait Request: Contract {
    /// The type of the handler's answer; `()` unless the contract says `reply = …`.
    type Reply;
}
