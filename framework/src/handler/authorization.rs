//! Middleware that checks permissions.

use futures::future::LocalBoxFuture;

use crate::handler::{FailureClass, Invocation, Middleware, Next, Outcome};
use crate::message::{Problem, Secret};

/// Middleware that checks whether the sender has the handler's permission. For a handler with `permission = "…"`, a function gets
/// the message's bearer token and the permission, and returns `Ok` or a problem. Handlers without a permission are not checked.
///
/// ```
/// use postrider::{App, Authorization, Problem};
///
/// let app = App::new("invoice").middleware(Authorization::new(|token, permission| {
///     match token {
///         Some(token) if token.reveal() == "the office's token" && permission == "invoice.write" => Ok(()),
///         _ => Err(Problem::new(Problem::DENIED, "ask the office for a token")),
///     }
/// }));
/// # let _ = app;
/// ```
pub struct Authorization<F> {
    allows: F,
}

impl<F> Authorization<F>
where
    F: Fn(Option<&Secret>, &str) -> Result<(), Problem> + Send + Sync + 'static,
{
    /// Calls `allows(token, permission)` before each handler that names a permission.
    pub const fn new(allows: F) -> Self {
        Self { allows }
    }
}

impl<F> Middleware for Authorization<F>
where
    F: Fn(Option<&Secret>, &str) -> Result<(), Problem> + Send + Sync + 'static,
{
    fn handle<'a>(&'a self, invocation: &'a mut Invocation, next: Next<'a>) -> LocalBoxFuture<'a, Outcome> {
        Box::pin(async move {
            let Some(permission) = invocation.spec().permission else { return next.run(invocation).await };
            let token = invocation.envelope().bearer_token().map(Secret::new);
            match (self.allows)(token.as_ref(), permission) {
                Ok(()) => next.run(invocation).await,
                Err(problem) => {
                    let log = format!("the sender lacks the permission {permission:?}: {problem}");
                    Outcome::Failed(crate::handler::Failed { class: FailureClass::Rejected, problem, log })
                }
            }
        })
    }
}
