//! Errors of handlers, and what each class means for the message.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use crate::message::Problem;

/// What a handler's error means for the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// It may succeed later, so it is tried again.
    Transient,
    /// It will never succeed, so it is dead-lettered.
    Permanent,
    /// The service refuses the message and tells the caller why.
    Rejected,
}

/// An error that a handler may return. Derive it: `#[derive(HandlerError)]` with `#[transient]`, `#[permanent]` or
/// `#[rejected(code = "…")]` on each variant. There is no blanket implementation, so that nobody forgets to say
/// what an error means; [`Failure`] takes any error as transient.
#[diagnostic::on_unimplemented(
    message = "a handler cannot fail with `{Self}`: nothing says whether the message should be tried again",
    label = "an error without a meaning",
    note = "derive it: `#[derive(HandlerError)]` with `#[transient]`, `#[permanent]` or `#[rejected(code = \"…\")]` on each variant",
    note = "or return `Result<_, postrider::Failure>`, which takes any error through `?` as transient"
)]
pub trait HandlerError: fmt::Display {
    /// What it means for the message.
    fn class(&self) -> Class;

    /// A word for programs, set by `#[rejected(code = "…")]` and `#[permanent(code = "…")]`.
    fn code(&self) -> &str {
        Problem::FAILED
    }

    /// The text for the caller. A rejection shows its `Display`; any other error is for the log only.
    fn caller_text(&self) -> String {
        match self.class() {
            Class::Rejected => self.to_string(),
            Class::Transient | Class::Permanent => "the service failed to handle the message; its log says why".into(),
        }
    }

    /// The text for the log.
    fn log_text(&self) -> String {
        self.to_string()
    }

    /// The error that caused it, if it is one of a library. A database's deadlock is found here.
    fn source_error(&self) -> Option<&(dyn Error + 'static)> {
        None
    }

    /// Further details for programs, sent to the caller.
    fn details(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }
}

/// Any error, as a handler's failure. Through `?` it is transient; [`Failure::permanent`], [`Failure::permanent_code`] and
/// [`Failure::rejected`] say otherwise.
///
/// ```
/// # use postrider::Failure;
/// fn parse(text: &str) -> Result<u32, Failure> {
///     if text.is_empty() {
///         return Err(Failure::rejected("empty", "write a number"));
///     }
///     text.parse().map_err(Failure::permanent)
/// }
/// # assert!(parse("7").is_ok());
/// ```
pub struct Failure {
    class: Class,
    problem: Problem,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// It may succeed later.
    pub fn transient(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Class::Transient, error.into())
    }

    /// It will never succeed.
    pub fn permanent(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(Class::Permanent, error.into())
    }

    /// It will never succeed, and programs are told why: the code goes to the caller and into the dead letter. The error is for
    /// the log only, as with [`Failure::permanent`].
    pub fn permanent_code(code: impl Into<String>, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        let failure = Self::permanent(error);
        let text = failure.problem.text.clone();
        Self { problem: Problem::new(code, text), ..failure }
    }

    /// The service refuses the message; code and text go to the caller.
    pub fn rejected(code: impl Into<String>, text: impl Into<String>) -> Self {
        Self { class: Class::Rejected, problem: Problem::new(code, text), source: None }
    }

    /// This failure with one more detail for the caller.
    #[must_use]
    pub fn with_detail(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.problem = self.problem.with_detail(name, value);
        self
    }

    fn new(class: Class, source: Box<dyn Error + Send + Sync>) -> Self {
        let text = "the service failed to handle the message; its log says why";
        Self { class, problem: Problem::new(Problem::FAILED, text), source: Some(source) }
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::transient(error)
    }
}

impl HandlerError for Failure {
    fn class(&self) -> Class {
        self.class
    }

    fn code(&self) -> &str {
        &self.problem.code
    }

    fn caller_text(&self) -> String {
        self.problem.text.clone()
    }

    fn source_error(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }

    fn details(&self) -> BTreeMap<String, String> {
        self.problem.details.clone()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(error) = &self.source else { return write!(f, "{}", self.problem) };
        write!(f, "{error}")?;
        let mut source = error.source();
        // Chains of errors are short. The limit guards against a chain that runs in a circle.
        for _ in 0..8 {
            let Some(inner) = source else { break };
            write!(f, ": {inner}")?;
            source = inner.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.class)
    }
}
