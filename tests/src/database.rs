//! A database of one test: a SQLite file, or a database in PostgreSQL.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postrider::sqlx::sqlite::SqliteConnectOptions;
use postrider::sqlx::{self, AssertSqlSafe, ConnectOptions, Connection, PgConnection, SqliteConnection};
use postrider::{App, MessageId, Secret};

use crate::pooler::Pooler;
use crate::postgres::ADDRESS_VARIABLE;

/// The table of the bank's bookings.
const IN_SQLITE: &str = "PRAGMA journal_mode = WAL;
CREATE TABLE bookings (id INTEGER PRIMARY KEY AUTOINCREMENT, message TEXT NOT NULL, amount INTEGER NOT NULL)";
const IN_POSTGRES: &str =
    "CREATE TABLE bookings (id bigint GENERATED ALWAYS AS IDENTITY, message text NOT NULL, amount bigint NOT NULL)";

/// Which database a test uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file.
    Sqlite,
    /// A database of a server.
    Postgres,
    /// The same behind a pooler in transaction mode.
    Pooled,
}

/// A database of one test, with the table of the bank's bookings. Dropping it removes a file; a server's databases go with the server.
pub struct Database {
    place: Place,
}

enum Place {
    File(PathBuf),
    Server(String),
    Pooled(String, Arc<Pooler>),
}

/// The address of the PostgreSQL that the suites share.
///
/// # Panics
/// When there is none; the text says how to get one.
#[must_use]
pub fn postgres_address() -> String {
    std::env::var(ADDRESS_VARIABLE).unwrap_or_else(|_| {
        panic!("this test needs a PostgreSQL: run `cargo xtask test --only once`, which starts one, or set {ADDRESS_VARIABLE}=postgres://user:password@host:port/database for a user who may create databases")
    })
}

impl Database {
    /// A new, empty database with the bank's table.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn new(kind: Kind) -> Self {
        let database = Self::empty(kind).await;
        let table = if kind == Kind::Sqlite { IN_SQLITE } else { IN_POSTGRES };
        database.run(table).await;
        database
    }

    /// A new, empty database.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn empty(kind: Kind) -> Self {
        let id = MessageId::new();
        let place = match kind {
            Kind::Sqlite => {
                let folder = std::env::temp_dir().join(format!("postrider-store-{id}"));
                std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
                Place::File(folder)
            }
            Kind::Postgres => Place::Server(Self::on_server(&postgres_address()).await),
            Kind::Pooled => {
                let server = postgres_address();
                Place::Pooled(Self::on_server(&server).await, Pooler::shared(&server))
            }
        };
        Self { place }
    }

    /// A new database with the bank's table on this server; `address` names any database of it.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn on(address: &str) -> Self {
        let database = Self { place: Place::Server(Self::on_server(address).await) };
        database.run(IN_POSTGRES).await;
        database
    }

    async fn on_server(address: &str) -> String {
        let name = format!("t{}", MessageId::new().as_str().replace('-', ""));
        let mut connection = PgConnection::connect(address).await.expect("PostgreSQL answers");
        let create = format!("CREATE DATABASE {name}");
        sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut connection).await.expect("this user may create databases");
        let (server, _) = address.rsplit_once('/').expect("an address with a database");
        format!("{server}/{name}")
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.place {
            Place::File(folder) => format!("sqlite:{}", folder.join("store.db").display()),
            Place::Server(address) | Place::Pooled(address, _) => address.clone(),
        }
    }

    /// The folder of a file.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn folder(&self) -> &Path {
        let Place::File(folder) = &self.place else { panic!("it is no file") };
        folder
    }

    /// The address of its pooler, if it has one.
    #[must_use]
    pub fn pooler(&self) -> Option<String> {
        let Place::Pooled(address, pooler) = &self.place else { return None };
        address.rsplit_once('/').map(|(_, name)| pooler.address(name))
    }

    /// The app with this database as its store.
    pub fn of(&self, app: App) -> App {
        let address = self.address();
        let pooler = self.pooler();
        app.configure(move |config| {
            config.store = Some(Secret::new(address));
            config.store_pooler = pooler.map(Secret::new);
        })
    }

    async fn sqlite(folder: &Path) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(folder.join("store.db")).create_if_missing(true);
        options.busy_timeout(Duration::from_secs(30)).connect().await.expect("the file opens")
    }

    /// Runs statements.
    ///
    /// # Panics
    /// When one fails.
    pub async fn run(&self, statements: &str) {
        let text = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
        let ran = match &self.place {
            Place::File(folder) => text.execute(&mut Self::sqlite(folder).await).await.map(drop),
            Place::Server(address) | Place::Pooled(address, _) => {
                let mut connection = PgConnection::connect(address).await.expect("PostgreSQL answers");
                text.execute(&mut connection).await.map(drop)
            }
        };
        ran.unwrap_or_else(|error| panic!("{statements}: {error}"));
    }

    /// Numbers from the database.
    ///
    /// # Panics
    /// When the query fails.
    pub async fn numbers(&self, query: &'static str) -> Vec<i64> {
        let text = sqlx::query_scalar(query);
        let found = match &self.place {
            Place::File(folder) => text.fetch_all(&mut Self::sqlite(folder).await).await,
            Place::Server(address) | Place::Pooled(address, _) => {
                let mut connection = PgConnection::connect(address).await.expect("PostgreSQL answers");
                sqlx::query_scalar(query).fetch_all(&mut connection).await
            }
        };
        found.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// How many rows a table has.
    pub async fn count(&self, table: &str) -> i64 {
        let query: &'static str = match table {
            "bookings" => "SELECT count(*) FROM bookings",
            "inbox" => "SELECT count(*) FROM postrider_inbox",
            "outbox" => "SELECT count(*) FROM postrider_outbox",
            "parked" => "SELECT count(*) FROM postrider_outbox WHERE parked_because IS NOT NULL",
            "leases" => "SELECT count(*) FROM postrider_leases",
            other => panic!("no table {other}"),
        };
        self.numbers(query).await.remove(0)
    }

    /// The amounts in the order of their booking.
    pub async fn amounts(&self) -> Vec<i64> {
        self.numbers("SELECT amount FROM bookings ORDER BY id").await
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Place::File(folder) = &self.place {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}
