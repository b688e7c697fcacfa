//! The store in a PostgreSQL database.
//!
//! Each lane's sessions are connections of their own, opened on the thread that uses them. Several statements travel in one text, so that
//! a message costs two round trips beside those of its handler.

mod errors;
mod news;
mod outbox;
mod reach;
mod schema;
mod session;
mod statements;
mod status;
mod text;

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
pub use sqlx::Postgres;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, raw_sql};
use tokio::time::timeout;

use crate::adapter::postgres::errors::{Failed, failed};
use crate::adapter::postgres::news::PgNews;
use crate::adapter::postgres::outbox::PgOutbox;
use crate::adapter::postgres::reach::Reach;
use crate::adapter::postgres::session::PgSession;
use crate::store::{ActorNumber, Database, News, Outbox, Session, Store, StoreError, StoreStatus, Tables};

impl Database for Postgres {
    type Connection = PgConnection;
    const NAME: &'static str = "postgres";
}

/// How long opening a connection may take.
const CONNECT_FOR: Duration = Duration::from_secs(10);

/// A store in a PostgreSQL database.
pub struct PgStore {
    shown: Arc<str>,
    namespace: Arc<str>,
    reach: Reach,
}

impl PgStore {
    /// Connects. Transactions of handlers go through the pooler, if there is one; the relay and the tables need the database itself.
    ///
    /// # Errors
    /// When an address is not one, the server refuses or does not answer, the tables cannot be used, or the pooler leads to another
    /// database.
    pub async fn open(
        address: &str,
        pooler: Option<&str>,
        namespace: &str,
        tables: Tables,
    ) -> Result<Self, StoreError> {
        let reach = Reach::of(address, pooler)?;
        let shown: Arc<str> = shown(&reach.direct).into();
        let store = Self { shown, namespace: namespace.into(), reach };
        let mut connection = store.connect().await?;
        match tables {
            Tables::Migrate => schema::migrate(&mut connection, &store.shown).await?,
            Tables::AsTheyAre => schema::judge(&mut connection, &store.shown).await?,
        }
        let checked = timeout(CONNECT_FOR, store.reach.check(&mut connection, &store.shown)).await;
        checked.map_err(|_| store.late())??;
        connection.close().await.map_err(|error| store.failed(&error))?;
        Ok(store)
    }

    async fn connect(&self) -> Result<PgConnection, StoreError> {
        match timeout(CONNECT_FOR, PgConnection::connect_with(&self.reach.direct)).await {
            Ok(connected) => connected.map_err(|error| failed(&self.shown, Failed::Opening, &error)),
            Err(_) => Err(self.late()),
        }
    }

    async fn forget(&self, statement: &'static str, older: Duration, most: usize) -> Result<usize, StoreError> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let mut connection = self.connect().await?;
        let forgotten = sqlx::query(statement).bind(older.as_secs_f64()).bind(most).execute(&mut connection).await;
        let forgotten = forgotten.map_err(|error| self.failed(&error))?;
        connection.close().await.map_err(|error| self.failed(&error))?;
        Ok(usize::try_from(forgotten.rows_affected()).unwrap_or(usize::MAX))
    }

    fn late(&self) -> StoreError {
        StoreError::Unavailable {
            store: self.shown.to_string(),
            reason: format!("no answer within {CONNECT_FOR:?}; is the server up, and does the address name it?"),
        }
    }

    fn failed(&self, error: &sqlx::Error) -> StoreError {
        failed(&self.shown, Failed::Working, error)
    }
}

/// The parameters of an address that the client knows. It ignores others and logs their values, which may be secrets.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

fn only_known_parameters(address: &str) -> Result<(), StoreError> {
    let Some((_, parameters)) = address.split_once('?') else { return Ok(()) };
    let names = parameters.split('&').map(|parameter| parameter.split('=').next().unwrap_or_default());
    let mut unknown =
        names.filter(|name| !name.is_empty() && !PARAMETERS.contains(name) && !name.starts_with("options["));
    match unknown.next() {
        None => Ok(()),
        Some(name) => Err(StoreError::Address {
            store: "postgres://…".into(),
            reason: format!("there is no parameter {name:?}; there are {}", PARAMETERS.join(", ")),
        }),
    }
}

/// The address without its password.
fn shown(options: &PgConnectOptions) -> String {
    let database = options.get_database().unwrap_or(options.get_username());
    format!("postgres://{}@{}:{}/{database}", options.get_username(), options.get_host(), options.get_port())
}

impl Store for PgStore {
    fn database(&self) -> &'static str {
        Postgres::NAME
    }

    fn describe(&self) -> &str {
        &self.shown
    }

    fn has_one_writer(&self) -> bool {
        false
    }

    fn writes_outside(&self) -> bool {
        self.reach.is_pooled()
    }

    fn session(&self) -> BoxFuture<'_, Result<Box<dyn Session>, StoreError>> {
        Box::pin(async move {
            let (store, namespace) = (Arc::clone(&self.shown), Arc::clone(&self.namespace));
            let opening = PgSession::open(store, namespace, self.reach.clone());
            let session = timeout(CONNECT_FOR, opening).await.map_err(|_| self.late())??;
            Ok(Box::new(session) as Box<dyn Session>)
        })
    }

    fn actor<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<ActorNumber, StoreError>> {
        Box::pin(async move {
            let name = format!("{}:{name}", self.namespace);
            let mut connection = self.connect().await?;
            let number = async {
                let look = "SELECT number FROM postrider_actors WHERE name = $1";
                // Mostly it is there; an insert that finds it would use up a number.
                let found: Option<i16> = sqlx::query_scalar(look).bind(&name).fetch_optional(&mut connection).await?;
                if let Some(number) = found {
                    return Ok(number);
                }
                let insert = "INSERT INTO postrider_actors (name) VALUES ($1) ON CONFLICT DO NOTHING";
                sqlx::query(insert).bind(&name).execute(&mut connection).await?;
                sqlx::query_scalar(look).bind(&name).fetch_one(&mut connection).await
            };
            let number = number.await.map(ActorNumber).map_err(|error| self.failed(&error))?;
            connection.close().await.map_err(|error| self.failed(&error))?;
            Ok(number)
        })
    }

    fn outbox(&self) -> BoxFuture<'_, Result<Box<dyn Outbox>, StoreError>> {
        Box::pin(async move {
            let connection = self.connect().await?;
            let outbox = PgOutbox::new(Arc::clone(&self.shown), Arc::clone(&self.namespace), connection);
            Ok(Box::new(outbox) as Box<dyn Outbox>)
        })
    }

    fn news(&self) -> BoxFuture<'_, Result<Box<dyn News>, StoreError>> {
        Box::pin(async move {
            let opening = PgNews::open(Arc::clone(&self.shown), &self.namespace, &self.reach.direct);
            let news = timeout(CONNECT_FOR, opening).await.map_err(|_| self.late())??;
            Ok(Box::new(news) as Box<dyn News>)
        })
    }

    fn forget_handled(&self, older: Duration, most: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        // `now()` rather than `clock_timestamp()`: an index is only searched for a time that stands still.
        let forget = "DELETE FROM postrider_inbox WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM postrider_inbox WHERE handled_at < now() - make_interval(secs => $1) LIMIT $2))";
        Box::pin(self.forget(forget, older, most))
    }

    fn forget_sent(&self, older: Duration, most: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        let forget = "DELETE FROM postrider_sent WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM postrider_sent WHERE sent_at < now() - make_interval(secs => $1) LIMIT $2))";
        Box::pin(self.forget(forget, older, most))
    }

    fn prepare<'a>(&'a self, statements: &'a str) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async move {
            let mut connection = self.connect().await?;
            let lock = schema::LOCK;
            let text = AssertSqlSafe(format!("BEGIN; SELECT pg_advisory_xact_lock({lock}); {statements}\n; COMMIT"));
            let prepared = raw_sql(text).execute(&mut connection).await;
            prepared.map(drop).map_err(|error| failed(&self.shown, Failed::Preparing, &error))
        })
    }

    fn status(&self) -> BoxFuture<'_, Result<StoreStatus, StoreError>> {
        Box::pin(async move {
            let outbox = self.outbox().await?.status().await?;
            status::status(&mut self.connect().await?, &self.shown, &self.namespace, outbox).await
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<Vec<String>, StoreError>> {
        Box::pin(async move { status::check(&mut self.connect().await?, &self.shown).await })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
