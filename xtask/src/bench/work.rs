//! The work that is measured: which processes do it, on each side.

use crate::bench::role::{BOOKS, Measured, OURS, PLAIN, Role, done, run};

/// Which side does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Ours,
    /// The bare client, used as its documentation shows.
    Plain,
    /// The bare client, used as efficiently as we can: acknowledgements and confirms in bulk.
    Clever,
    /// The same, with Postrider's promises: its properties and headers, returned if no queue takes it, confirmed.
    Promising,
}

/// The kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    Publish,
    /// Publishing messages that are fired.
    Fire,
    Consume,
    Both,
    /// Requests, this many outstanding.
    Rpc(u64),
    Fanout,
    LowRate,
    InProcess,
    /// Keeping books in a database.
    Books(Books),
}

/// How books are kept, and in which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Books {
    /// One message after the other, PostgreSQL.
    Exclusive,
    /// The same, SQLite.
    ExclusiveSqlite,
    /// Each in a commit of its own.
    Alone,
    Sixteen,
    /// The handler only sends.
    OnlySends,
}

/// The result of one run.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    pub per_second: f64,
    /// All measured processes together, in microseconds per message.
    pub cpu_us: f64,
    /// In microseconds.
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    /// The peak memory of the largest measured process.
    pub peak_kib: u64,
}

/// A broker, a database, and for how long each side works in each round.
pub struct Bench {
    pub url: String,
    /// The PostgreSQL for books; `None` if none of the chosen work keeps any.
    pub postgres: Option<String>,
    pub seconds: f64,
}

/// The services that get the same events.
const SUBSCRIBERS: [&str; 3] = ["first", "second", "third"];
/// Messages a second, when few are sent.
pub const LOW_RATE: u64 = 500;

impl Work {
    /// How many messages keep the plain client busy for a second, roughly.
    fn usual_rate(self) -> f64 {
        match self {
            Work::Publish | Work::Fire | Work::Consume => 40_000.0,
            Work::Both => 20_000.0,
            Work::Rpc(1) => 2_500.0,
            Work::Rpc(_) => 20_000.0,
            Work::Fanout => 8_000.0,
            Work::LowRate => LOW_RATE as f64,
            Work::InProcess => 400_000.0,
            Work::Books(_) => 2_000.0,
        }
    }
}

impl Bench {
    /// Makes the queues of both sides.
    pub fn prepare(&self) -> Result<(), String> {
        done(OURS, &["--broker", &self.url, "consume", "--messages", "0"])?;
        done(PLAIN, &["--broker", &self.url, "declare", "plain.load"])?;
        for service in SUBSCRIBERS {
            done(OURS, &["--broker", &self.url, "subscribe", "--service", service, "--messages", "0"])?;
            done(PLAIN, &["--broker", &self.url, "declare", &format!("plain.{service}"), "--event"])?;
        }
        Ok(())
    }

    /// Runs the work once on one side.
    pub fn once(&self, work: Work, side: Side) -> Result<Sample, String> {
        let messages = ((work.usual_rate() * self.seconds) as u64).max(100).to_string();
        match work {
            Work::Publish => self.publish(side, &["--messages", &messages]),
            Work::Fire if side == Side::Ours => self.publish(side, &["--fire", "--messages", &messages]),
            Work::Fire => self.publish(side, &["--messages", &messages]),
            Work::Consume => {
                self.fill(side, &messages)?;
                Ok(sample(&[self.consumer(side, &["--messages", &messages])?.measured()?]))
            }
            Work::Both => {
                let consumer = self.consumer(side, &["--messages", &messages])?;
                let published = run(program(side), &self.publisher(side, &["--messages", &messages]))?;
                Ok(sample(&[consumer.measured()?, published]))
            }
            Work::LowRate => {
                let rate = LOW_RATE.to_string();
                let consumer = self.consumer(side, &["--messages", &messages, "--timed"])?;
                let published = run(program(side), &self.publisher(side, &["--messages", &messages, "--rate", &rate]))?;
                Ok(sample(&[consumer.measured()?, published]))
            }
            Work::Rpc(outstanding) => self.rpc(side, &messages, outstanding),
            Work::Fanout => self.fanout(side, &messages),
            Work::Books(books) => self.books(side, books, &messages),
            Work::InProcess => {
                let (program, role) = if side == Side::Ours { (OURS, "chain") } else { (PLAIN, "actor") };
                Ok(sample(&[run(program, &[role, &messages, "256"])?]))
            }
        }
    }

    /// Handles a full queue.
    fn books(&self, side: Side, books: Books, messages: &str) -> Result<Sample, String> {
        let sqlite = format!(
            "sqlite:{}",
            std::env::temp_dir().join(format!("postrider-bench-{}.db", std::process::id())).display()
        );
        let store = match books {
            Books::ExclusiveSqlite => sqlite.clone(),
            _ => self.postgres.clone().ok_or("no PostgreSQL")?,
        };
        self.fill(side, messages)?;
        let mut words = vec!["--store", &store, "--messages", messages];
        let broker = ["--broker", self.url.as_str()];
        if side == Side::Ours {
            words.splice(..0, broker);
            words.extend([
                "--kind",
                match books {
                    Books::Exclusive | Books::ExclusiveSqlite => "exclusive",
                    Books::Alone => "alone",
                    Books::Sixteen => "sixteen",
                    Books::OnlySends => "only-sends",
                },
            ]);
        } else {
            words.splice(..0, broker.into_iter().chain(["books"]));
            words.extend(["--queue", queue(side)]);
            words.extend(if side == Side::Clever { &["--shared"][..] } else { &[] });
            words.extend(if books == Books::Sixteen { &["--concurrency", "16"][..] } else { &[] });
            words.extend(if books == Books::OnlySends { &["--only-sends"][..] } else { &[] });
        }
        let program = if side == Side::Ours { BOOKS } else { program(side) };
        let measured = Role::ready(program, &words)?.measured();
        for file in [&sqlite, &format!("{sqlite}-wal"), &format!("{sqlite}-shm")] {
            // With PostgreSQL there is none.
            let _ = std::fs::remove_file(file.trim_start_matches("sqlite:"));
        }
        Ok(sample(&[measured?]))
    }

    fn publish(&self, side: Side, words: &[&str]) -> Result<Sample, String> {
        let published = run(program(side), &self.publisher(side, words))?;
        done(PLAIN, &["--broker", &self.url, "purge", queue(side)])?;
        Ok(sample(&[published]))
    }

    /// Fills a side's queue with messages of the kind that it sends itself.
    pub fn fill(&self, side: Side, messages: &str) -> Result<(), String> {
        let filler = if side == Side::Plain { Side::Clever } else { side };
        run(program(filler), &self.publisher(filler, &["--messages", messages])).map(drop)
    }

    fn publisher<'a>(&'a self, side: Side, more: &[&'a str]) -> Vec<&'a str> {
        let mut words = vec!["--broker", self.url.as_str(), "publish"];
        match side {
            Side::Ours => {}
            Side::Plain => words.extend(["--queue", queue(side)]),
            Side::Clever => words.extend(["--queue", queue(side), "--polled"]),
            Side::Promising => words.extend(["--queue", queue(side), "--polled", "--promises"]),
        }
        words.extend(more);
        words
    }

    pub fn consumer(&self, side: Side, more: &[&str]) -> Result<Role, String> {
        let mut words = vec!["--broker", self.url.as_str(), "consume"];
        match side {
            Side::Ours => {}
            Side::Plain => words.extend(["--queue", queue(side)]),
            Side::Clever | Side::Promising => words.extend(["--queue", queue(side), "--coalesce", "64"]),
        }
        words.extend(more);
        Role::ready(program(side), &words)
    }

    fn rpc(&self, side: Side, messages: &str, outstanding: u64) -> Result<Sample, String> {
        let (broker, outstanding) = (["--broker", self.url.as_str()], outstanding.to_string());
        let serve: &[&str] = if side == Side::Ours { &["serve"] } else { &["serve", "plain.echo"] };
        let queue: &[&str] = if side == Side::Ours { &[] } else { &["--queue", "plain.echo"] };
        let more: &[&str] = if side == Side::Promising { &["--promises"] } else { &[] };
        let mut server = Role::ready(program(side), &[&broker, serve, more].concat())?;
        let ask = ["ask", "--messages", messages, "--outstanding", &outstanding];
        let asked = run(program(side), &[&broker, &ask[..], queue, more].concat())?;
        server.go()?;
        server.ended()?;
        Ok(sample(&[asked]))
    }

    fn fanout(&self, side: Side, messages: &str) -> Result<Sample, String> {
        let (ours, broker) = (side == Side::Ours, ["--broker", self.url.as_str()]);
        let mut consumers = Vec::new();
        for service in SUBSCRIBERS {
            let plain = format!("plain.{service}");
            let consume = if ours { ["subscribe", "--service", service] } else { ["consume", "--queue", &plain] };
            consumers.push(Role::ready(program(side), &[&broker, &consume[..], &["--messages", messages]].concat())?);
        }
        let event: &[&str] = if ours { &["--event"] } else { &[] };
        run(program(side), &[&broker, &["publish", "--messages", messages][..], event].concat())?;
        let handled = consumers.iter().map(Role::measured).collect::<Result<Vec<_>, _>>()?;
        let mut all = sample(&handled);
        // Per consumer, on average.
        all.cpu_us /= SUBSCRIBERS.len() as f64;
        Ok(all)
    }
}

fn program(side: Side) -> &'static str {
    if side == Side::Ours { OURS } else { PLAIN }
}

/// The queue of a side.
pub fn queue(side: Side) -> &'static str {
    if side == Side::Ours { "postrider.load" } else { "plain.load" }
}

/// The slowest process gives the rate of all; processor times are added.
fn sample(measured: &[Measured]) -> Sample {
    let per_second = measured.iter().map(|one| one.messages as f64 / one.seconds).fold(f64::INFINITY, f64::min);
    let cpu_us = measured.iter().map(|one| one.cpu_seconds * 1e6 / one.messages as f64).sum();
    let latency = measured.iter().find_map(|one| one.latency);
    let of = |pick: fn(&crate::bench::role::Latency) -> f64| latency.as_ref().map_or(f64::NAN, pick);
    let peak_kib = measured.iter().map(|one| one.peak_kib).max().unwrap_or_default();
    let (p50, p90, p99) = (of(|latency| latency.p50), of(|latency| latency.p90), of(|latency| latency.p99));
    Sample { per_second, cpu_us, p50, p90, p99, peak_kib }
}
