//! Middleware around handlers.

use std::sync::Arc;

use futures::future::LocalBoxFuture;

use crate::handler::{Invocation, Outcome, Run, State};

/// Runs around handlers: `app.middleware(async |invocation: &mut Invocation, next: Next<'_>| next.run(invocation).await)`.
/// The first one added is the outermost. A middleware that does not call `next` ends the attempt with its own outcome.
pub trait Middleware: Send + Sync + 'static {
    /// Handles the invocation, usually by calling `next`.
    fn handle<'a>(&'a self, invocation: &'a mut Invocation, next: Next<'a>) -> LocalBoxFuture<'a, Outcome>;
}

impl<F> Middleware for F
where
    F: AsyncFn(&mut Invocation, Next<'_>) -> Outcome + Send + Sync + 'static,
{
    fn handle<'a>(&'a self, invocation: &'a mut Invocation, next: Next<'a>) -> LocalBoxFuture<'a, Outcome> {
        Box::pin(async move { self(invocation, next).await })
    }
}

/// The rest of the chain after a middleware: the other middleware, then the handler.
pub struct Next<'a> {
    rest: &'a [Arc<dyn Middleware>],
    handler: Last<'a>,
}

impl<'a> Next<'a> {
    pub(crate) fn shared(rest: &'a [Arc<dyn Middleware>], run: &'a Run, state: &'a State) -> Self {
        Self { rest, handler: Last::Shared(run, state) }
    }

    pub(crate) fn exclusive(rest: &'a [Arc<dyn Middleware>], run: &'a Run, state: &'a mut State) -> Self {
        Self { rest, handler: Last::Exclusive(run, state) }
    }

    /// Runs the next middleware or the handler.
    pub async fn run(self, invocation: &mut Invocation) -> Outcome {
        match self.rest.split_first() {
            Some((first, rest)) => first.handle(invocation, Next { rest, handler: self.handler }).await,
            None => self.handler.handle(invocation).await,
        }
    }
}

/// The handler at the end, with the state it takes.
enum Last<'a> {
    Shared(&'a Run, &'a State),
    Exclusive(&'a Run, &'a mut State),
}

impl<'a> Last<'a> {
    fn handle<'b>(self, invocation: &'b mut Invocation) -> LocalBoxFuture<'b, Outcome>
    where
        'a: 'b,
    {
        match self {
            Self::Exclusive(Run::Exclusive(run), state) => run(state, invocation),
            Self::Exclusive(Run::Shared(run), state) => run(state, invocation),
            Self::Shared(Run::Shared(run), state) => run(state, invocation),
            // The lane takes the lock that the row asks for, so the guard always fits.
            Self::Shared(Run::Exclusive(_), _) => unreachable!("an exclusive handler was given shared state"),
        }
    }
}
