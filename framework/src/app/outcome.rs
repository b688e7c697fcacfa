//! Results of starting and stopping an app.

use tokio_util::sync::CancellationToken;

use crate::broker::BrokerError;

/// Why an app did not start. Contains every problem that was found.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", problems.join("\n"))]
pub struct StartError {
    /// One sentence each, with the value and the remedy.
    pub problems: Vec<String>,
}

impl From<BrokerError> for StartError {
    fn from(error: BrokerError) -> Self {
        Self { problems: vec![error.to_string()] }
    }
}

impl From<String> for StartError {
    fn from(problem: String) -> Self {
        Self { problems: vec![problem] }
    }
}

/// How an app stopped.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StopReport {
    /// Deliveries that were requeued unhandled.
    pub given_back: u64,
    /// Handlers that were dropped because they did not finish in time.
    pub abandoned: bool,
    /// Why the app stopped by itself, if a failure stopped it.
    pub failure: Option<String>,
}

/// Awaits a step of the start, unless the process is told to stop first.
pub(super) async fn unless<T, E: Into<StartError>>(
    ended: &CancellationToken,
    waiting: impl Future<Output = Result<T, E>>,
) -> Result<T, StartError> {
    tokio::select! {
        result = waiting => result.map_err(Into::into),
        () = ended.cancelled() => Err(StartError::from("stopped before it had started".to_owned())),
    }
}
