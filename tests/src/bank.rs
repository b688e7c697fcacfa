//! A service whose effects must happen once: it books amounts in its database and tells of each booking.

use postrider::sqlx;
use postrider::{AnyTx, App, Context, HandlerError, Postgres, Sqlite, distributed};
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

/// Books an amount on whichever database it is.
///
/// # Errors
/// When the statement fails.
pub async fn book(tx: &mut AnyTx, message: &str, amount: i64) -> Result<(), sqlx::Error> {
    let insert = "INSERT INTO bookings (message, amount) VALUES ($1, $2)";
    if let Some(conn) = tx.conn_of::<Sqlite>() {
        sqlx::query(insert).bind(message).bind(amount).execute(conn).await?;
    } else if let Some(conn) = tx.conn_of::<Postgres>() {
        sqlx::query(insert).bind(message).bind(amount).execute(conn).await?;
    }
    Ok(())
}

/// The bank: one booking after the other.
#[derive(Default)]
pub struct Bank {
    /// What was booked since this state was made.
    booked: i64,
}

#[distributed(service = "bank", guarantee = "effectively_once")]
impl Bank {
    #[distributed(command = "bank.book")]
    async fn book(&mut self, book: Book, cx: &Context, tx: &mut AnyTx) -> Result<i64, Refused> {
        if book.amount == 0 {
            return Err(Refused::Nothing);
        }
        self::book(tx, cx.id().as_str(), book.amount).await?;
        cx.publish_key("bank.booked", postrider::Payload::json(&book.amount))?;
        self.booked += book.amount;
        Ok(self.booked)
    }

    /// Takes its time, and books the number of its attempt.
    #[distributed(command = "bank.slow")]
    async fn slow(&mut self, _: Book, cx: &Context, tx: &mut AnyTx) -> Result<(), Refused> {
        self::book(tx, cx.id().as_str(), cx.attempt().into()).await?;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        Ok(())
    }
}

/// Hears of each booking, once.
pub struct Auditor;

#[distributed(service = "audit", guarantee = "effectively_once")]
impl Auditor {
    #[distributed(event = "bank.booked")]
    async fn booked(&mut self, amount: i64, cx: &Context, tx: &mut AnyTx) -> Result<(), Refused> {
        Ok(book(tx, cx.id().as_str(), amount).await?)
    }
}

/// The bank as an app. Its table must be there.
pub fn bank() -> App {
    App::new("bank").actor(Bank::default)
}

/// The auditor as an app.
pub fn audit() -> App {
    App::new("audit").actor(|| Auditor)
}
