//! Handlers that keep books: what they write, what they send and that they were run are committed together.

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use postrider::{AnyTx, App, Context, Failure, Payload, Secret, any_db, distributed, sqlx};
use postrider_benches::tally::Tally;
use postrider_benches::work::Work;
use postrider_benches::{Failed, signal};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS bookings (number bigint NOT NULL, text varchar(4000) NOT NULL)";

#[derive(Debug, Parser)]
struct Options {
    /// Where RabbitMQ is
    #[arg(long)]
    broker: String,
    /// Ends after so many
    #[arg(long)]
    messages: u64,
    /// Where the books are
    #[arg(long)]
    store: String,
    #[arg(long, value_enum)]
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// `&mut self`: one after the other, many in one commit
    Exclusive,
    /// The same, each in a commit of its own
    Alone,
    /// `&self`, sixteen at once
    Sixteen,
    /// Only sends, without a transaction, one after the other
    OnlySends,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match actix_rt::System::new().block_on(run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<(), Failed> {
    let tally = Arc::new(Tally::new(options.messages, false));
    let broker = Secret::new(&options.broker);
    let app = app(options, &tally).configure(|config| config.broker = Some(broker));
    let running = app.start_as_configured().await?;
    signal::ready()?;
    signal::done(&tally.measured().await)?;
    running.stop().await;
    Ok(())
}

/// The app that keeps books.
fn app(options: &Options, tally: &Arc<Tally>) -> App {
    let tally = Arc::clone(tally);
    let app = App::new("load");
    let app = match options.kind {
        Kind::Exclusive | Kind::Alone => app.actor_with(async move |setup| {
            setup.prepare_store(TABLE).await?;
            Ok(Exclusive(Arc::clone(&tally)))
        }),
        Kind::Sixteen => app.actor_with(async move |setup| {
            setup.prepare_store(TABLE).await?;
            Ok(Sixteen(Arc::clone(&tally)))
        }),
        Kind::OnlySends => app.actor(move || OnlySends(Arc::clone(&tally))),
    };
    let (store, alone) = (Secret::new(&options.store), options.kind == Kind::Alone);
    app.configure(move |config| {
        config.store = Some(store);
        if alone {
            config.store_settings.shared_commit = 1;
        }
    })
}

struct Exclusive(Arc<Tally>);

#[distributed(service = "load", guarantee = "effectively_once", prefetch = 256, timeout = "5s")]
impl Exclusive {
    #[distributed(command = "load.work")]
    async fn work(&mut self, work: Work, cx: &Context, tx: &mut AnyTx) -> Result<(), Failure> {
        book(&work, cx, tx).await?;
        self.0.count(&work);
        Ok(())
    }
}

struct Sixteen(Arc<Tally>);

#[distributed(service = "load", guarantee = "effectively_once", prefetch = 256, timeout = "5s", concurrency = 16)]
impl Sixteen {
    #[distributed(command = "load.work")]
    async fn work(&self, work: Work, cx: &Context, tx: &mut AnyTx) -> Result<(), Failure> {
        book(&work, cx, tx).await?;
        self.0.count(&work);
        Ok(())
    }
}

struct OnlySends(Arc<Tally>);

#[distributed(service = "load", guarantee = "effectively_once", prefetch = 256, timeout = "5s", concurrency = 1)]
impl OnlySends {
    #[distributed(command = "load.work")]
    async fn work(&self, work: Work, cx: &Context) -> Result<(), Failure> {
        cx.publish_key("load.booked", Payload::msgpack(&work))?;
        self.0.count(&work);
        Ok(())
    }
}

async fn book(work: &Work, cx: &Context, tx: &mut AnyTx) -> Result<(), Failure> {
    let insert = "INSERT INTO bookings (number, text) VALUES ($1, $2)";
    let (number, text) = (work.number.cast_signed(), &work.text);
    let booked = any_db!(tx, conn => sqlx::query(insert).bind(number).bind(text).execute(conn).await.map(drop));
    booked.map_err(|error| Failure::transient(error.to_string()))?;
    cx.publish_key("load.booked", Payload::msgpack(work))?;
    Ok(())
}
