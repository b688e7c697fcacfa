//! The delivery company under faults, with its books in a database: `cargo xtask chaos --minutes 1 --seed 7 --store sqlite`.
//!
//! Customers place orders, some of them twice. Meanwhile services are killed, stopped and frozen, and so are the broker and the
//! database. In the end each order must be written down, invoiced and paid once, to the cent.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use postrider::broker::Names;
use postrider::operate::{DeadFilter, DeadLetters};
use postrider::sqlx::{self, Connection, PgConnection, SqliteConnection};
use postrider::{App, MessageId, Payload, Running, Secret};
use postrider_tests::node::{Node, send};
use postrider_tests::postgres::Postgres;
use serde_json::json;

use crate::world::LOOK;

/// The services that keep books.
const SERVICES: [&str; 3] = ["orders", "invoice", "payment"];
const NAMESPACE: &str = "company";
/// How many customers place orders at once.
const CUSTOMERS: u64 = 4;
/// The pause between two orders of a customer.
const PAUSE: Duration = Duration::from_millis(15);
/// One order in so many is placed twice, by the same message.
const TWICE: u64 = 10;
/// A run with fewer orders proves little and fails.
const LEAST_ORDERS: u64 = 500;
/// How long the company may take for what is left when all faults are over.
const SETTLE: Duration = Duration::from_secs(180);
/// How long the books must not change any more in the end.
const QUIET: Duration = Duration::from_secs(5);
/// What a parcel costs, as `services/orders` has it.
const PRICE: fn(u64) -> u64 = |grams| 350 + 120 * grams.div_ceil(1_000);

#[derive(Debug, Clone, Copy)]
enum Fault {
    Killed,
    Stopped,
    Frozen,
    BrokerKilled,
    BrokerFrozen,
    DatabaseKilled,
    DatabaseFrozen,
}

const FAULTS: [Fault; 7] = [
    Fault::Killed,
    Fault::Stopped,
    Fault::Frozen,
    Fault::BrokerKilled,
    Fault::BrokerFrozen,
    Fault::DatabaseKilled,
    Fault::DatabaseFrozen,
];

/// What the customers have ordered.
#[derive(Default)]
struct Ordered {
    orders: AtomicU64,
    cents: AtomicU64,
    twice: AtomicU64,
    stop: AtomicBool,
}

/// The books as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Books {
    orders: i64,
    invoices: i64,
    invoiced: i64,
    till: i64,
    customers: i64,
    unsent: i64,
}

struct Company {
    node: Node,
    postgres: Option<Postgres>,
    folder: PathBuf,
    services: Vec<Child>,
}

impl Drop for Company {
    fn drop(&mut self) {
        for service in &mut self.services {
            let _ = service.kill();
            let _ = service.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Runs the company for this long under faults of this seed.
pub async fn run(time: Duration, seed: u64, store: &str) -> Result<(), String> {
    let postgres = match store {
        "sqlite" => None,
        "postgres" => Some(Postgres::start()?),
        other => return Err(format!("--store {other}: write sqlite or postgres")),
    };
    println!("seed {seed}, {time:?}, books in {store}");
    let folder = std::env::temp_dir().join(format!("postrider-company-{}", MessageId::new()));
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let mut company = Company { node: Node::start()?, postgres, folder, services: Vec::new() };
    company.services = SERVICES.iter().map(|name| company.start(name)).collect::<Result<_, _>>()?;
    let (url, namespace) = (company.node.url(), Names::new(NAMESPACE).map_err(|error| error.to_string())?);
    let customers = App::new("customers").configure(move |config| {
        (config.broker, config.namespace) = (Some(Secret::new(url)), namespace);
    });
    let customers = customers.start_as_configured().await.map_err(|error| error.to_string())?;
    customers.bus().wait_for_services(SERVICES, Duration::from_secs(60)).await.map_err(|error| error.to_string())?;
    let customers = Arc::new(customers);
    let ordered = Arc::<Ordered>::default();
    let tasks: Vec<_> = (0..CUSTOMERS)
        .map(|number| tokio::spawn(place(Arc::clone(&customers), Arc::clone(&ordered), seed, number)))
        .collect();
    let mut rng = fastrand::Rng::with_seed(seed);
    let (begin, mut order, mut faults) = (Instant::now(), Vec::new(), 0);
    // Each fault happens at least once, however short the time is.
    while begin.elapsed() < time || faults < FAULTS.len() {
        if order.is_empty() {
            order = FAULTS.to_vec();
            rng.shuffle(&mut order);
        }
        let Some(fault) = order.pop() else { continue };
        company.make(fault, &mut rng).await?;
        faults += 1;
        tokio::time::sleep(Duration::from_millis(rng.u64(500..2_500))).await;
    }
    ordered.stop.store(true, Ordering::SeqCst);
    for task in tasks {
        task.await.map_err(|error| error.to_string())?;
    }
    company.settle(&ordered, &customers).await?;
    println!("{faults} faults; {}", ordered.told());
    Ok(())
}

fn signal(signal: &str, pid: u32) -> Result<(), String> {
    if send(signal, pid) { Ok(()) } else { Err(format!("no process {pid} takes {signal}")) }
}

/// Places orders until it is told to stop.
async fn place(customers: Arc<Running>, ordered: Arc<Ordered>, seed: u64, customer: u64) {
    let mut rng = fastrand::Rng::with_seed(seed + customer);
    while !ordered.stop.load(Ordering::SeqCst) {
        let (number, grams) = (ordered.orders.fetch_add(1, Ordering::SeqCst), rng.u64(1..20_000));
        ordered.cents.fetch_add(PRICE(grams), Ordering::SeqCst);
        let order = json!({ "order": number, "address": format!("Harbour {number}"), "grams": grams });
        let mut times = 1;
        if number % TWICE == 0 {
            times = 2;
            ordered.twice.fetch_add(1, Ordering::SeqCst);
        }
        for _ in 0..times {
            // An order whose placing failed may have been placed all the same; the same message is sent again.
            let place = || {
                let id = format!("order-{number}");
                customers.bus().send_key_with("orders.place", Payload::json(&order), move |o| o.id(id.as_str()))
            };
            while place().await.is_err() {
                tokio::time::sleep(LOOK).await;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Ordered {
    fn told(&self) -> String {
        let (cents, twice) = (self.cents.load(Ordering::SeqCst), self.twice.load(Ordering::SeqCst));
        format!(
            "{} orders, {twice} of them placed twice: each written down, invoiced and paid once, {}.{:02} EUR in the till",
            self.orders.load(Ordering::SeqCst),
            cents / 100,
            cents % 100
        )
    }

    fn wanted(&self) -> Books {
        let (orders, cents) = (self.orders.load(Ordering::SeqCst), self.cents.load(Ordering::SeqCst));
        let (orders, cents) = (orders.cast_signed(), cents.cast_signed());
        Books { orders, invoices: orders, invoiced: cents, till: cents, customers: -cents, unsent: 0 }
    }
}

impl Company {
    fn start(&self, name: &str) -> Result<Child, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name(name);
        let mut command = Command::new(&program);
        command.env("POSTRIDER_BROKER", self.node.url()).env("POSTRIDER_NAMESPACE", NAMESPACE);
        command
            .env("POSTRIDER_STORE", self.store(name))
            .env("POSTRIDER_START_TIMEOUT", "60s")
            .env("POSTRIDER_STOP_TIMEOUT", "5s");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join(format!("{name}.log")));
        let log = log.map_err(|error| error.to_string())?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().map_err(|error| format!("{}: {error}", program.display()))
    }

    fn store(&self, name: &str) -> String {
        match &self.postgres {
            Some(postgres) => postgres.address("postgres"),
            None => format!("sqlite:{}", self.folder.join(format!("{name}.db")).display()),
        }
    }

    async fn make(&mut self, fault: Fault, rng: &mut fastrand::Rng) -> Result<(), String> {
        let victim = rng.usize(..SERVICES.len());
        let pause = |range| tokio::time::sleep(Duration::from_millis(range));
        println!("{fault:?} {}", SERVICES[victim]);
        match fault {
            Fault::Killed => self.end(victim, "KILL", rng).await?,
            Fault::Stopped => self.end(victim, "TERM", rng).await?,
            Fault::Frozen => {
                // Some for longer than the relay's lease.
                let pid = self.services[victim].id();
                signal("STOP", pid)?;
                pause(rng.u64(200..14_000)).await;
                signal("CONT", pid)?;
            }
            Fault::BrokerKilled => {
                self.node.kill()?;
                pause(rng.u64(0..2_000)).await;
                self.node.restart()?;
            }
            Fault::BrokerFrozen => {
                self.node.freeze()?;
                pause(rng.u64(200..6_000)).await;
                self.node.thaw()?;
            }
            Fault::DatabaseKilled => match &mut self.postgres {
                Some(postgres) => {
                    postgres.kill();
                    pause(rng.u64(0..3_000)).await;
                    postgres.run()?;
                }
                None => self.lock_file(victim, rng.u64(100..4_000)).await?,
            },
            Fault::DatabaseFrozen => match &self.postgres {
                Some(postgres) => {
                    postgres.freeze(true);
                    pause(rng.u64(200..20_000)).await;
                    postgres.freeze(false);
                }
                None => self.lock_file(victim, rng.u64(5_000..8_000)).await?,
            },
        }
        Ok(())
    }

    /// Ends a service and starts it again.
    async fn end(&mut self, victim: usize, with: &str, rng: &mut fastrand::Rng) -> Result<(), String> {
        signal(with, self.services[victim].id())?;
        let begin = Instant::now();
        while matches!(self.services[victim].try_wait(), Ok(None)) {
            if begin.elapsed() > SETTLE {
                return Err(format!("{} did not end after {with}", SERVICES[victim]));
            }
            tokio::time::sleep(LOOK).await;
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(0..1_000))).await;
        self.services[victim] = self.start(SERVICES[victim])?;
        Ok(())
    }

    /// Somebody else locks a service's file.
    async fn lock_file(&self, victim: usize, millis: u64) -> Result<(), String> {
        let said = |error: sqlx::Error| error.to_string();
        let mut connection = SqliteConnection::connect(&self.store(SERVICES[victim])).await.map_err(said)?;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut connection).await.map_err(said)?;
        tokio::time::sleep(Duration::from_millis(millis)).await;
        sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.map(drop).map_err(said)
    }

    /// Starts again what has ended by itself, waits until the books are as they must be, and that they stay so.
    async fn settle(&mut self, ordered: &Ordered, customers: &Running) -> Result<(), String> {
        let (begin, wanted) = (Instant::now(), ordered.wanted());
        let mut last = Err("the books were not read".to_owned());
        while begin.elapsed() < SETTLE && last != Ok(wanted) {
            for (place, name) in SERVICES.iter().enumerate() {
                if !matches!(self.services[place].try_wait(), Ok(None)) {
                    self.services[place] = self.start(name)?;
                }
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            last = self.books().await;
        }
        if last == Ok(wanted) {
            tokio::time::sleep(QUIET).await;
            last = self.books().await;
        }
        let letters =
            DeadLetters::new(customers.bus()).list(&DeadFilter::all()).await.map_err(|error| error.to_string())?;
        for letter in letters.iter().take(5) {
            println!("dead letter: {}", letter.to_json());
        }
        if last != Ok(wanted) || !letters.is_empty() {
            return Err(format!("{} dead letters; the books say {last:?} instead of {wanted:?}", letters.len()));
        }
        if ordered.orders.load(Ordering::SeqCst) < LEAST_ORDERS {
            return Err(format!("only {wanted:?}: fewer than {LEAST_ORDERS} orders prove little"));
        }
        Ok(())
    }

    async fn books(&self) -> Result<Books, String> {
        let account = |name: &str| format!("SELECT coalesce(sum(cents), 0) FROM accounts WHERE name = '{name}'");
        let mut unsent = 0;
        for name in SERVICES {
            unsent += self.ask(name, "SELECT count(*) FROM postrider_outbox").await?;
            if self.postgres.is_some() {
                break;
            }
        }
        Ok(Books {
            orders: self.ask("orders", "SELECT count(*) FROM orders").await?,
            invoices: self.ask("invoice", "SELECT count(*) FROM invoices").await?,
            invoiced: self.ask("invoice", "SELECT coalesce(sum(amount), 0) FROM invoices").await?,
            till: self.ask("payment", &account("till")).await?,
            customers: self.ask("payment", &account("customers")).await?,
            unsent,
        })
    }

    async fn ask(&self, service: &str, query: &str) -> Result<i64, String> {
        let query = sqlx::AssertSqlSafe(
            query.replace("coalesce(sum(", "cast(coalesce(sum(").replace(", 0)", ", 0) AS bigint)"),
        );
        let address = self.store(service);
        let found = if self.postgres.is_some() {
            let mut connection = PgConnection::connect(&address).await.map_err(|error| error.to_string())?;
            sqlx::query_scalar(query).fetch_one(&mut connection).await
        } else {
            let mut connection = SqliteConnection::connect(&address).await.map_err(|error| error.to_string())?;
            sqlx::query_scalar(query).fetch_one(&mut connection).await
        };
        found.map_err(|error| error.to_string())
    }
}
