//! Middleware around handlers.

use std::sync::Arc;

use futures::future::LocalBoxFuture;

use crate::handler::{Invocation, Outcome, Run};

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
    handler: Box<dyn Handle + 'a>,
}

impl<'a> Next<'a> {
    pub(crate) fn shared<S>(rest: &'a [Arc<dyn Middleware>], run: &'a Run<S>, state: &'a S) -> Self {
        Self { rest, handler: Box::new(Shared { run, state }) }
    }

    pub(crate) fn exclusive<S>(rest: &'a [Arc<dyn Middleware>], run: &'a Run<S>, state: &'a mut S) -> Self {
        Self { rest, handler: Box::new(Exclusive { run, state }) }
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
trait Handle {
    fn handle<'b>(self: Box<Self>, invocation: &'b mut Invocation) -> LocalBoxFuture<'b, Outcome>
    where
        Self: 'b;
}

struct Shared<'a, S> {
    run: &'a Run<S>,
    state: &'a S,
}

impl<S> Handle for Shared<'_, S> {
    fn handle<'b>(self: Box<Self>, invocation: &'b mut Invocation) -> LocalBoxFuture<'b, Outcome>
    where
        Self: 'b,
    {
        match self.run {
            Run::Shared(run) => run(self.state, invocation),
            // The lane takes the lock that the row asks for, so the guard always fits.
            Run::Exclusive(_) => unreachable!("an exclusive handler was given shared state"),
        }
    }
}

struct Exclusive<'a, S> {
    run: &'a Run<S>,
    state: &'a mut S,
}

impl<S> Handle for Exclusive<'_, S> {
    fn handle<'b>(self: Box<Self>, invocation: &'b mut Invocation) -> LocalBoxFuture<'b, Outcome>
    where
        Self: 'b,
    {
        match self.run {
            Run::Exclusive(run) => run(self.state, invocation),
            Run::Shared(run) => run(self.state, invocation),
        }
    }
}
