//! The cashier: takes the money for every invoice, from the account of all customers into the till.

use std::fmt;

use contracts::{Balance, InvoiceCreated, MoneySoFar, PaymentTaken};
use postrider::sqlx;
use postrider::{AnyTx, App, Context, HandlerError, SendError, any_db, distributed};

/// What each account has. Money only moves between them, so their sum is always zero.
const TABLES: &str = "CREATE TABLE IF NOT EXISTS accounts (name text PRIMARY KEY, cents bigint NOT NULL);
    CREATE TABLE IF NOT EXISTS payments (invoice text PRIMARY KEY, cents bigint NOT NULL)";
const CUSTOMERS: &str = "customers";
const TILL: &str = "till";

/// Stateless: the money is in the database.
pub struct Payments;

/// Why no money was taken.
#[derive(Debug, HandlerError)]
pub enum PaymentError {
    /// It could not be written down.
    #[transient(from)]
    Database(sqlx::Error),
    /// The event could not be sent.
    #[transient(from)]
    Send(SendError),
}

impl fmt::Display for PaymentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Database(error) => error.fmt(f),
            Self::Send(error) => error.fmt(f),
        }
    }
}

#[distributed(service = "payment", guarantee = "effectively_once")]
impl Payments {
    /// An event that comes twice is handled once. Another event about the same invoice takes no money, and whoever sent it is told.
    #[distributed(event = "invoice.created")]
    async fn invoice_created(
        &mut self,
        invoice: InvoiceCreated,
        cx: &Context,
        tx: &mut AnyTx,
    ) -> Result<(), PaymentError> {
        let InvoiceCreated { invoice, order, amount } = invoice;
        let pay = "INSERT INTO payments (invoice, cents) VALUES ($1, $2) ON CONFLICT (invoice) DO NOTHING";
        let cents = amount.cast_signed();
        let pay = any_db!(tx, conn => sqlx::query(pay).bind(&invoice).bind(cents).execute(conn).await.map(|done| done.rows_affected()));
        if pay? == 1 {
            book(tx, CUSTOMERS, -cents).await?;
            book(tx, TILL, cents).await?;
        }
        cx.publish(&PaymentTaken { invoice, order, amount })?;
        Ok(())
    }

    #[distributed(query = "payment.balance")]
    async fn balance(&self, _: MoneySoFar, tx: &mut AnyTx) -> Result<Balance, PaymentError> {
        Ok(Balance { customers: cents(tx, CUSTOMERS).await?, till: cents(tx, TILL).await? })
    }
}

/// Adds cents to an account.
async fn book(tx: &mut AnyTx, account: &str, cents: i64) -> Result<(), sqlx::Error> {
    let add = "INSERT INTO accounts (name, cents) VALUES ($1, $2)
        ON CONFLICT (name) DO UPDATE SET cents = accounts.cents + excluded.cents";
    any_db!(tx, conn => sqlx::query(add).bind(account).bind(cents).execute(conn).await.map(drop))
}

/// What an account has.
async fn cents(tx: &mut AnyTx, account: &str) -> Result<i64, sqlx::Error> {
    let look = "SELECT cents FROM accounts WHERE name = $1";
    let found: Option<i64> = any_db!(tx, conn => sqlx::query_scalar(look).bind(account).fetch_optional(conn).await)?;
    Ok(found.unwrap_or(0))
}

/// The service as an app of its own. It needs a store.
pub fn app(app: App) -> App {
    app.actor_with(async |setup| {
        setup.prepare_store(TABLES).await?;
        Ok(Payments)
    })
}

#[cfg(test)]
mod tests {
    use postrider::message::Key;
    use postrider::testing::TestApp;
    use postrider::{Envelope, Kind, MediaType, MessageId, Secret};

    use super::*;

    #[postrider::test]
    async fn an_event_that_comes_twice_takes_the_money_once() {
        let file = std::env::temp_dir().join(format!("payment-{}.db", MessageId::new()));
        let store = Secret::new(format!("sqlite:{}", file.display()));
        let test = TestApp::start(app(App::new("payment").configure(move |config| config.store = Some(store)))).await;
        let invoice = InvoiceCreated { invoice: "INV-00007".into(), order: 7, amount: 470 };
        let payload = serde_json::to_vec(&invoice).unwrap();
        let key = Key::new("invoice.created").unwrap();
        let event = Envelope::new(Kind::Event, key, MediaType::JSON, payload.into());
        for _ in 0..2 {
            test.bus().dispatch_with(event.clone(), |options| options.as_owner()).await.unwrap();
        }
        test.settled().await;
        let balance = test.request(&MoneySoFar).await.unwrap();
        assert_eq!((balance.till, balance.customers), (470, -470));
        assert_eq!(test.published::<PaymentTaken>().len(), 1);
    }
}
