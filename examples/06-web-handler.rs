//! A web server whose handlers send a command and ask a query.
//!
//! Run with: cargo run -p examples --example web-handler -- --demo
//!
//! With `--demo` it calls itself and ends; without it serves until Ctrl-C. It prints:
//!
//! ```text
//! listening
//! POST /cook?dish=soup&plates=2: 202 Accepted
//! GET /cooked?dish=soup: 200 OK {"dish":"soup","plates":2}
//! GET /cooked?dish=stone: 422 Unprocessable Entity stone is not on the menu
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{Query as UrlQuery, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use postrider::{App, Bus, Command, Failure, Query, RequestError, SendError, distributed, print_line};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Asks the kitchen to cook.
#[derive(Serialize, Deserialize, Command)]
#[message(key = "kitchen.cook")]
struct Cook {
    dish: String,
    plates: u32,
}

/// Asks how many plates of a dish were cooked.
#[derive(Serialize, Deserialize, Query)]
#[message(key = "kitchen.cooked", reply = Plates)]
struct Cooked {
    dish: String,
}

/// The answer to it.
#[derive(Serialize, Deserialize)]
struct Plates {
    dish: String,
    plates: u32,
}

/// The plates of each dish.
struct Kitchen {
    plates: BTreeMap<String, u32>,
}

#[distributed(service = "kitchen")]
impl Kitchen {
    #[distributed(command = "kitchen.cook")]
    async fn cook(&mut self, order: Cook) -> Result<(), Failure> {
        let plates = self.plates.get_mut(&order.dish).ok_or_else(|| not_on_the_menu(&order.dish))?;
        *plates += order.plates;
        Ok(())
    }

    #[distributed(query = "kitchen.cooked")]
    async fn cooked(&self, asked: Cooked) -> Result<Plates, Failure> {
        let plates = self.plates.get(&asked.dish).ok_or_else(|| not_on_the_menu(&asked.dish))?;
        Ok(Plates { dish: asked.dish, plates: *plates })
    }
}

impl Kitchen {
    fn with_menu() -> Self {
        Self { plates: BTreeMap::from([("soup".into(), 0), ("stew".into(), 0)]) }
    }
}

fn not_on_the_menu(dish: &str) -> Failure {
    Failure::rejected("not-on-the-menu", format!("{dish} is not on the menu"))
}

/// Accepted means that the broker has the command; the kitchen handles it a moment later.
async fn post_cook(State(bus): State<Bus>, UrlQuery(order): UrlQuery<Cook>) -> Result<StatusCode, WebError> {
    bus.send(&order).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn get_cooked(State(bus): State<Bus>, UrlQuery(asked): UrlQuery<Cooked>) -> Result<Json<Plates>, WebError> {
    Ok(Json(bus.request_with(&asked, |o| o.timeout(Duration::from_secs(5))).await?))
}

/// The HTTP answer when the bus returns an error.
struct WebError(StatusCode, String);

impl From<SendError> for WebError {
    fn from(error: SendError) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<RequestError> for WebError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Remote(error) => Self(StatusCode::UNPROCESSABLE_ENTITY, error.problem.text),
            RequestError::TimedOut { .. } => Self(StatusCode::GATEWAY_TIMEOUT, error.to_string()),
            other => Self(StatusCode::SERVICE_UNAVAILABLE, other.to_string()),
        }
    }
}

impl axum::response::IntoResponse for WebError {
    fn into_response(self) -> axum::response::Response {
        (self.0, self.1).into_response()
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let running = App::new("web").actor(Kitchen::with_menu).start().await?;
    let routes = Router::new().route("/cook", post(post_cook)).route("/cooked", get(get_cooked));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    print_line("listening");
    let _ = writeln!(std::io::stderr(), "on http://{address}");
    let server = axum::serve(listener, routes.with_state(running.bus().clone()));
    if std::env::args().any(|argument| argument == "--demo") {
        tokio::select! {
            ended = server.into_future() => ended?,
            shown = demo(address) => shown?,
        }
    } else {
        let stop = async {
            // Without signals it serves until it is killed.
            let _ = tokio::signal::ctrl_c().await;
        };
        server.with_graceful_shutdown(stop).await?;
    }
    running.stop().await;
    Ok(())
}

/// Plays the browser.
async fn demo(address: SocketAddr) -> Result<(), Box<dyn Error>> {
    print_line(format_args!(
        "POST /cook?dish=soup&plates=2: {}",
        call(address, "POST", "/cook?dish=soup&plates=2").await?
    ));
    let mut soup = String::new();
    for _ in 0..500 {
        soup = call(address, "GET", "/cooked?dish=soup").await?;
        if !soup.contains(r#""plates":0"#) {
            break; // the command has been handled
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    print_line(format_args!("GET /cooked?dish=soup: {soup}"));
    print_line(format_args!("GET /cooked?dish=stone: {}", call(address, "GET", "/cooked?dish=stone").await?));
    Ok(())
}

/// One HTTP call; the answer's status and body.
async fn call(address: SocketAddr, method: &str, path: &str) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("an answer without an end of its head")?;
    let status =
        head.lines().next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).ok_or("an answer without status")?;
    Ok(format!("{status} {body}").trim_end().to_owned())
}
