//! What a service handles: the table of handlers, what a handler gets and what it gives back.

mod authorization;
mod context;
mod contracts;
mod decode;
mod extract;
mod failure;
mod for_test;
mod invocation;
mod lane_load;
mod middleware;
mod outcome;
mod own_answers;
mod policy;
mod returned;
mod spec;
mod table;
mod transaction;
mod waiting;

pub mod private;

pub use crate::bus::{Envelopes, HeldLimits};
pub use authorization::Authorization;
pub use context::Context;
pub use extract::FromContext;
pub use failure::{Class, Failure, HandlerError};
pub use invocation::{Environment, Invocation, Work};
pub use lane_load::{LaneLoad, LaneLoads};
pub use middleware::{Middleware, Next};
pub use outcome::{Asked, Failed, FailureClass, Outcome, Reply};
pub use own_answers::{Answers, HoldsUp, OwnAnswers, OwnRequest};
pub use policy::{Policy, PolicyWords};
pub use postrider_grammar::{Delays, Retry};
pub use spec::{Actor, Attributes, Guarantee, HandlerSpec, Lane, Scope};
pub use table::{ExclusiveFn, Handlers, Row, Run, SharedFn, State, Table};
pub use transaction::{AnyTx, Hindered, Lending, Tx};
pub use waiting::{Runs, Waiters};
