//! Serves `/live` and `/ready` over HTTP, for whatever monitors the process.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Returns whether the app is ready, and a JSON report that says why not.
pub type Readiness = Arc<dyn Fn() -> (bool, String) + Send + Sync>;

/// Binds the address, so that a wrong one fails at startup.
///
/// # Errors
/// If the address cannot be bound; the text is one sentence with the address.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address}: {error}"))
}

/// Serves until the token is cancelled: `/live` with 200, `/ready` with 200 or 503 and the report.
pub async fn serve(listener: TcpListener, readiness: Readiness, stop: CancellationToken) {
    let ready = move || {
        let (ready, report) = readiness();
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        async move { (status, [(CONTENT_TYPE, "application/json")], report).into_response() }
    };
    let router = Router::new().route("/live", get(|| async { "live\n" })).route("/ready", get(ready));
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = serving.await {
        tracing::error!(%error, "health is served no longer");
    }
}
