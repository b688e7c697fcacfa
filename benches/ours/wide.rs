//! An app of many handlers and actors, to measure what their number costs.

use std::sync::OnceLock;
use std::time::Duration;

use clap::Args;
use futures::future::LocalBoxFuture;
use postrider::codec::{self, Limits};
use postrider::handler::{Actor, Attributes, FailureClass, Guarantee, HandlerSpec, PolicyWords, Scope, Table};
use postrider::{App, Invocation, Kind, Outcome};
use postrider_benches::measured::Meter;
use postrider_benches::tally::Tally;
use postrider_benches::work::Work;
use postrider_benches::{Failed, signal};

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[arg(long, default_value_t = 1)]
    actors: usize,
    /// Of each actor
    #[arg(long, default_value_t = 1)]
    handlers: usize,
    /// Ends after so many; with 0 it measures what ten seconds without any cost
    #[arg(long)]
    messages: u64,
    /// The most deliveries that each actor has at once
    #[arg(long, default_value_t = 256)]
    prefetch: u16,
}

/// How long an idle process is measured.
const IDLE: Duration = Duration::from_secs(10);

/// The handlers of each actor, and the meter; the table is made before there is a state.
static HANDLERS: OnceLock<usize> = OnceLock::new();
static PREFETCH: OnceLock<u16> = OnceLock::new();
static TALLY: OnceLock<Tally> = OnceLock::new();

/// The keys of an app, in turn.
pub(crate) fn keys(actors: usize, handlers: usize) -> Vec<String> {
    (0..handlers).flat_map(|handler| (0..actors).map(move |actor| key(actor, handler))).collect()
}

fn key(actor: usize, handler: usize) -> String {
    format!("wide.a{actor}.h{handler}")
}

struct Wide<const N: usize>;

impl<const N: usize> Actor for Wide<N> {
    fn attributes() -> Attributes {
        Attributes {
            actor: "Wide",
            service: "wide",
            queue: Some(format!("a{N}").leak()),
            domains: &["wide"],
            guarantee: Guarantee::AtLeastOnce,
            ordered: false,
            stops_at_poison: false,
            prefetch: PREFETCH.get().copied(),
            once_by: None,
            concurrency: None,
            // So short that thousands of deliveries fit into the consumer time-out.
            timeout: Some(Duration::from_millis(250)),
            policy: PolicyWords::default(),
        }
    }

    fn handlers(table: &mut Table<Self>) {
        for handler in 0..HANDLERS.get().copied().unwrap_or(1) {
            let spec = HandlerSpec {
                kind: Kind::Command,
                key: key(N, handler).leak(),
                scope: Scope::Shared,
                transaction: None,
                permission: None,
                policy: PolicyWords::default(),
                method: "take",
                file: file!(),
                line: line!(),
            };
            table.exclusive(spec, take);
        }
    }
}

fn take<'a, const N: usize>(_: &'a mut Wide<N>, invocation: &'a mut Invocation) -> LocalBoxFuture<'a, Outcome> {
    Box::pin(async {
        let envelope = invocation.envelope();
        match codec::decode::<Work>(&envelope.payload, &envelope.media_type, &Limits::default()) {
            Ok(work) => {
                if let Some(tally) = TALLY.get() {
                    tally.count(&work);
                }
                Outcome::Done(None)
            }
            Err(error) => Outcome::failed(FailureClass::Undecodable, "undecodable", error.to_string()),
        }
    })
}

macro_rules! actors {
    ($($number:literal)*) => {
        fn with_actors(mut app: App, actors: usize) -> App {
            $(if $number < actors {
                app = app.actor(|| Wide::<$number>);
            })*
            app
        }
    };
}

actors! {
    0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42
    43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64 65 66 67 68 69 70 71 72 73 74 75 76 77 78 79 80 81 82
    83 84 85 86 87 88 89 90 91 92 93 94 95 96 97 98 99
}

/// Prints the cost of starting, then of handling.
pub(crate) async fn run(broker: Option<String>, options: &Options) -> Result<(), Failed> {
    let tally = TALLY.get_or_init(|| Tally::new(options.messages, false));
    HANDLERS.get_or_init(|| options.handlers);
    PREFETCH.get_or_init(|| options.prefetch);
    let starting = Meter::start();
    let running = crate::start(with_actors(App::new("wide"), options.actors), broker).await?;
    signal::done(&starting.stop(1, None))?;
    signal::ready()?;
    let measured = if options.messages > 0 {
        tally.measured().await
    } else {
        let idle = Meter::start();
        tokio::time::sleep(IDLE).await;
        idle.stop(1, None)
    };
    signal::done(&measured)?;
    running.stop().await;
    Ok(())
}
