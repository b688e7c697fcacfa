//! A web handler that places an order in a database and sends a command, both or neither; and an actor that takes the money
//! for it once, although its command comes twice.
//!
//! Run with: cargo run -p examples --example effects-once
//!
//! It uses a new SQLite file, or the one that `POSTRIDER_STORE` names. It prints:
//!
//! ```text
//! POST /orders?id=7: 201 Created
//! took the money for order 7
//! POST /orders?id=7: 409 Conflict order 7 was placed before
//! the command for order 7 came 2 times, and 1 payment was taken
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query as UrlQuery, State};
use axum::http::StatusCode;
use axum::routing::post;
use postrider::{App, Bus, Command, Context, Event, Failure, MessageId, Running, Secret, Sqlite, Tx};
use postrider::{distributed, print_line, sqlx};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Asks the cashier to take the money for an order.
#[derive(Serialize, Deserialize, Command)]
#[message(key = "cashier.take")]
struct Take {
    id: i64,
}

/// The money was taken.
#[derive(Serialize, Deserialize, Event)]
#[message(key = "cashier.taken")]
struct Taken {
    id: i64,
}

struct Cashier;

#[distributed(service = "cashier", guarantee = "effectively_once")]
impl Cashier {
    /// What it writes, what it publishes, and that this command was handled, are committed together.
    #[distributed(command = "cashier.take")]
    async fn take(&mut self, order: Take, cx: &Context, tx: &mut Tx<Sqlite>) -> Result<(), Failure> {
        sqlx::query("INSERT INTO payments (id) VALUES (?)").bind(order.id).execute(tx.conn()).await?;
        cx.publish(&Taken { id: order.id })?;
        Ok(())
    }

    #[distributed(event = "cashier.taken")]
    async fn taken(&mut self, taken: Taken) {
        print_line(format_args!("took the money for order {}", taken.id));
    }
}

/// The command leaves exactly if the order is placed.
async fn place(State(bus): State<Bus>, UrlQuery(order): UrlQuery<Take>) -> Result<StatusCode, (StatusCode, String)> {
    let failed = |error: &dyn Error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    let mut tx = bus.transaction::<Sqlite>().await.map_err(|error| failed(&error))?;
    let placed = sqlx::query("INSERT INTO orders (id) VALUES (?)").bind(order.id).execute(tx.conn()).await;
    if placed.is_err() {
        // `tx` is dropped here: nothing was written, and nothing leaves.
        return Err((StatusCode::CONFLICT, format!("order {} was placed before", order.id)));
    }
    tx.send_with(&order, |o| o.id(format!("order-{}", order.id))).map_err(|error| failed(&error))?;
    tx.commit().await.map_err(|error| failed(&error))?;
    Ok(StatusCode::CREATED)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = std::env::temp_dir().join(format!("effects-once-{}.db", MessageId::new()));
    let address = Secret::new(format!("sqlite:{}", file.display()));
    let app = App::new("cashier").actor(|| Cashier).configure(|config| config.store = Some(address));
    let running = app.start().await?;
    make_tables(&running).await?;
    let routes = Router::new().route("/orders", post(place)).with_state(running.bus().clone());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::select! {
        ended = axum::serve(listener, routes).into_future() => ended?,
        shown = demo(address, &running) => shown?,
    }
    running.stop().await;
    for ending in ["", "-wal", "-shm"] {
        // With a store of your own there is no such file.
        let _ = std::fs::remove_file(format!("{}{ending}", file.display()));
    }
    Ok(())
}

async fn make_tables(running: &Running) -> Result<(), Box<dyn Error>> {
    let mut tx = running.bus().transaction::<Sqlite>().await?;
    let tables = "CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY);
        CREATE TABLE IF NOT EXISTS payments (number INTEGER PRIMARY KEY, id INTEGER NOT NULL)";
    sqlx::raw_sql(tables).execute(tx.conn()).await?;
    Ok(tx.commit().await?)
}

/// Plays the browser, and a sender that repeats itself.
async fn demo(address: SocketAddr, running: &Running) -> Result<(), Box<dyn Error>> {
    print_line(format_args!("POST /orders?id=7: {}", call(address, "/orders?id=7").await?));
    until(|| running.stats().handled == 2).await;
    print_line(format_args!("POST /orders?id=7: {}", call(address, "/orders?id=7").await?));
    running.bus().send_with(&Take { id: 7 }, |o| o.id("order-7")).await?;
    until(|| running.stats().duplicates == 1).await;
    let mut tx = running.bus().transaction::<Sqlite>().await?;
    let taken: i64 = sqlx::query_scalar("SELECT count(*) FROM payments").fetch_one(tx.conn()).await?;
    print_line(format_args!("the command for order 7 came 2 times, and {taken} payment was taken"));
    Ok(())
}

async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// One HTTP call; the answer's status and body.
async fn call(address: SocketAddr, path: &str) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("an answer without an end of its head")?;
    let status =
        head.lines().next().and_then(|line| line.strip_prefix("HTTP/1.1 ")).ok_or("an answer without status")?;
    Ok(format!("{status} {body}").trim_end().to_owned())
}
