//! Further parameters of handlers, made from the message.

use crate::handler::{Context, Failure};

/// Something a handler can take as a parameter after the message: `async fn create(&self, cmd: Create, tenant: Tenant)`.
///
/// ```
/// use postrider::{Context, Failure, FromContext};
///
/// struct Tenant(String);
///
/// impl FromContext for Tenant {
///     async fn from_context(cx: &Context) -> Result<Self, Failure> {
///         let tenant = cx.header_text("tenant").ok_or_else(|| Failure::rejected("no-tenant", "say for which tenant"))?;
///         Ok(Self(tenant.to_owned()))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "a handler cannot take a parameter of type `{Self}`",
    label = "not made from the message that is handled",
    note = "after the message a handler takes `&Context` and types that implement `postrider::FromContext`",
    note = "the message is one parameter: if this is a part of it, put both into one struct"
)]
pub trait FromContext: Sized {
    /// Makes the value from the message that is being handled.
    ///
    /// # Errors
    /// A failure ends the attempt as if the handler had returned it.
    fn from_context(cx: &Context) -> impl Future<Output = Result<Self, Failure>>;
}
