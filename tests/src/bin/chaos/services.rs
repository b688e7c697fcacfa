//! The services under fault, each in processes of its own. They print what their handlers do: `began ID ATTEMPT`, the id when it is
//! handled, `ended ID`.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider::broker::Names;
use postrider::{App, Context, Failure, Payload, Secret, distributed};

/// The namespace of a run, which has its broker to itself.
pub const NAMESPACE: &str = "chaos";
/// One in this many messages fails at its first attempt.
const ONE_FAILS_OF: u64 = 97;
/// How long a keeper takes for a message, so that the backlog lasts.
const KEEPING: Duration = Duration::from_millis(100);

/// Whether the beginning and end of each run are printed too.
static TELLS_RUNS: AtomicBool = AtomicBool::new(false);

/// Writes at once: a printed line has happened, whatever happens to this process afterwards.
fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// One run of a handler. It ends when it is dropped, also when the handler was dropped.
struct Run(String);

impl Run {
    fn begin(cx: &Context) -> std::io::Result<Self> {
        let id = cx.envelope().id.to_string();
        if TELLS_RUNS.load(Ordering::Relaxed) {
            say(&format!("began {id} {}", cx.attempt()))?;
        }
        Ok(Self(id))
    }

    fn handled(&self) -> std::io::Result<()> {
        say(&self.0)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if TELLS_RUNS.load(Ordering::Relaxed) {
            // The reader is gone.
            let _ = say(&format!("ended {}", self.0));
        }
    }
}

struct Worker;

#[distributed(service = "worker", retry = "1 then 100ms, 1s, 5s")]
impl Worker {
    #[distributed(command = "worker.do")]
    async fn act(&self, number: u64, cx: &Context) -> Result<(), Failure> {
        let run = Run::begin(cx)?;
        if number.is_multiple_of(ONE_FAILS_OF) && cx.attempt() == 1 {
            return Err(Failure::transient("the first attempt fails on purpose"));
        }
        run.handled()?;
        Ok(())
    }

    /// Sends a message that may be refused.
    #[distributed(command = "worker.pass")]
    async fn pass(&self, number: u64, cx: &Context) -> Result<(), Failure> {
        let run = Run::begin(cx)?;
        let id = passed_on(&cx.envelope().id.to_string());
        cx.send_key_with("keeper.do", Payload::msgpack(&number), |o| o.id(id))?;
        run.handled()?;
        Ok(())
    }
}

/// The id of the message that the handler sends on.
pub fn passed_on(id: &str) -> String {
    format!("{id}.on")
}

/// Ordered.
struct Keeper;

#[distributed(service = "keeper", ordered = true)]
impl Keeper {
    #[distributed(command = "keeper.do")]
    async fn keep(&mut self, _: u64, cx: &Context) -> Result<(), Failure> {
        keep(cx).await
    }
}

/// Has the default plan.
struct Helper;

#[distributed(service = "keeper", queue = "helper")]
impl Helper {
    #[distributed(command = "keeper.help")]
    async fn help(&mut self, _: u64, cx: &Context) -> Result<(), Failure> {
        keep(cx).await
    }
}

async fn keep(cx: &Context) -> Result<(), Failure> {
    let run = Run::begin(cx)?;
    tokio::time::sleep(KEEPING).await;
    run.handled()?;
    Ok(())
}

/// The app in the namespace of the run.
pub fn configured(app: App, url: &str) -> App {
    let url = Secret::new(url);
    app.configure(|config| {
        config.broker = Some(url);
        config.namespace = Names::new(NAMESPACE).expect("a word");
        config.publish.confirm_timeout = Duration::from_secs(10);
    })
}

/// One consumer process, until it is told to stop.
pub async fn consume(url: &str, is_keeper: bool, tells_runs: bool) {
    TELLS_RUNS.store(tells_runs, Ordering::Relaxed);
    let app = if is_keeper {
        App::new("keeper").actor(|| Keeper).actor(|| Helper)
    } else {
        App::new("worker").actor(|| Worker)
    };
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).expect("signals");
    let running = configured(app, url).start_as_configured().await.expect("the consumer starts");
    terminate.recv().await;
    running.stop().await;
}
