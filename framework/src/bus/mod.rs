//! The outbound flow: the sending calls, how messages are stamped and addressed, and the replies that come back.

mod calls;
mod compose;
mod counters;
mod error;
pub(crate) mod explain;
pub(crate) mod one_way_calls;
mod options;
mod outlet;
mod payload;
pub(crate) mod pending_sends;
mod relay;
mod requests;
mod resend;
mod route;
mod stamp;
mod tap;
mod trace;
mod transaction;

pub use calls::Bus;
pub(crate) use compose::Address;
pub use compose::{Identity, Outgoing, SendHook};
pub use counters::{Counters, Stats};
pub use error::{RemoteError, RequestError, SendError};
pub use options::Options;
pub use outlet::{Outlet, PublishSettings};
pub use payload::Payload;
pub use pending_sends::{Envelopes, HeldLimits};
pub use relay::{RelaySettings, run_relay};
pub use resend::{Resend, Unsent};
pub use route::{channel_key, route};
pub use stamp::Origin;
pub(crate) use stamp::stamp;
pub use tap::{Tap, TapFilter};
pub use trace::TraceContext;
pub use transaction::Transaction;
