//! A service whose effects must happen once: it books amounts in its database and tells of each booking.

use std::path::{Path, PathBuf};
use std::time::Duration;

use postrider::sqlx::sqlite::SqliteConnectOptions;
use postrider::sqlx::{self, ConnectOptions};
use postrider::{App, Context, Failure, HandlerError, MessageId, Sqlite, Tx, distributed};
use serde::{Deserialize, Serialize};

/// Asks for one booking.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Book {
    /// What is booked.
    pub amount: i64,
}

/// Why the bank refuses.
#[derive(Debug, HandlerError, thiserror::Error)]
pub enum Refused {
    /// Nothing to book.
    #[error("an amount of zero is no booking")]
    #[rejected(code = "nothing")]
    Nothing,
    /// The database failed.
    #[error("{0}")]
    #[transient]
    Database(#[from] sqlx::Error),
    /// Sending failed.
    #[error("{0}")]
    #[transient]
    Sending(#[from] postrider::SendError),
}

/// Makes the bank's own table.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS bookings (id INTEGER PRIMARY KEY AUTOINCREMENT, message TEXT NOT NULL, amount INTEGER NOT NULL)";

/// The bank: one booking after the other.
#[derive(Default)]
pub struct Bank {
    /// What was booked since this state was made.
    booked: i64,
}

#[distributed(service = "bank", guarantee = "effectively_once")]
impl Bank {
    #[distributed(command = "bank.book")]
    async fn book(&mut self, book: Book, cx: &Context, tx: &mut Tx<Sqlite>) -> Result<i64, Refused> {
        if book.amount == 0 {
            return Err(Refused::Nothing);
        }
        let insert = sqlx::query("INSERT INTO bookings (message, amount) VALUES (?, ?)");
        insert.bind(cx.id().as_str()).bind(book.amount).execute(tx.conn()).await?;
        cx.publish_key("bank.booked", postrider::Payload::json(&book.amount))?;
        self.booked += book.amount;
        Ok(self.booked)
    }
}

/// Hears of each booking, once.
pub struct Auditor;

#[distributed(service = "audit", guarantee = "effectively_once")]
impl Auditor {
    #[distributed(event = "bank.booked")]
    async fn booked(&mut self, amount: i64, cx: &Context, tx: &mut Tx<Sqlite>) -> Result<(), Refused> {
        let insert = sqlx::query("INSERT INTO bookings (message, amount) VALUES (?, ?)");
        insert.bind(cx.id().as_str()).bind(amount).execute(tx.conn()).await?;
        Ok(())
    }
}

/// The bank as an app. Its table must be there.
#[must_use]
pub fn bank() -> App {
    App::new("bank").actor(Bank::default)
}

/// The auditor as an app.
#[must_use]
pub fn audit() -> App {
    App::new("audit").actor(|| Auditor)
}

/// A database file of one test, removed when dropped.
pub struct File {
    folder: PathBuf,
}

impl Default for File {
    fn default() -> Self {
        Self::new()
    }
}

impl File {
    /// A new file in a folder of its own.
    ///
    /// # Panics
    /// When the system's temporary folder cannot be written.
    #[must_use]
    pub fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("postrider-store-{}", MessageId::new()));
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
        Self { folder }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.join("store.db")
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> String {
        format!("sqlite:{}", self.path().display())
    }

    /// A connection of the test's own.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub async fn connect(&self) -> sqlx::SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path()).create_if_missing(true);
        options.busy_timeout(Duration::from_secs(30)).connect().await.expect("the file opens")
    }

    /// Makes the bank's table.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn with_bookings(self) -> Self {
        sqlx::raw_sql("PRAGMA journal_mode = WAL").execute(&mut self.connect().await).await.expect("WAL");
        sqlx::raw_sql(TABLE).execute(&mut self.connect().await).await.expect("the table is made");
        self
    }

    /// One number from the database.
    ///
    /// # Panics
    /// When the query fails.
    pub async fn number(&self, query: &'static str) -> i64 {
        let mut connection = self.connect().await;
        sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap_or_else(|error| panic!("{query}: {error}"))
    }

    /// The amounts in the order of their booking.
    ///
    /// # Panics
    /// When the query fails.
    pub async fn amounts(&self) -> Vec<i64> {
        let mut connection = self.connect().await;
        sqlx::query_scalar("SELECT amount FROM bookings ORDER BY id").fetch_all(&mut connection).await.expect("the table is there")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A failure of a test's own handler.
#[must_use]
pub fn failed(text: &str) -> Failure {
    Failure::transient(text)
}
