//! Accounting: writes an invoice for every order.

use std::fmt;

use contracts::{CreateInvoice, InvoiceCreated, IssuedInvoices, OrderPlaced};
use postrider::sqlx;
use postrider::{AnyTx, App, Context, HandlerError, SendError, any_db, distributed};

/// The invoices' table.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS invoices (
    number text PRIMARY KEY, order_number bigint NOT NULL UNIQUE, amount bigint NOT NULL)";

/// Stateless: the invoices are in the database.
pub struct Invoicing;

/// Why no invoice was written.
#[derive(Debug, HandlerError)]
pub enum InvoiceError {
    /// The amount is zero.
    #[rejected(code = "nothing-to-pay")]
    NothingToPay,
    /// It could not be written down.
    #[transient(from)]
    Database(sqlx::Error),
    /// The event could not be sent.
    #[transient(from)]
    Send(SendError),
}

impl fmt::Display for InvoiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingToPay => f.write_str("an invoice needs an amount above zero"),
            Self::Database(error) => error.fmt(f),
            Self::Send(error) => error.fmt(f),
        }
    }
}

/// With `&mut self` one message is handled after the other, and those that wait share a commit.
#[distributed(service = "invoice", guarantee = "effectively_once")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(
        &mut self,
        asked: CreateInvoice,
        cx: &Context,
        tx: &mut AnyTx,
    ) -> Result<InvoiceCreated, InvoiceError> {
        if asked.amount == 0 {
            return Err(InvoiceError::NothingToPay);
        }
        // Two different messages may ask for the invoice of one order. The first one's is written, and both are told of it.
        let invoice = format!("INV-{:05}", asked.order);
        let (order, amount) = (asked.order.cast_signed(), asked.amount.cast_signed());
        let insert =
            "INSERT INTO invoices (number, order_number, amount) VALUES ($1, $2, $3) ON CONFLICT (number) DO NOTHING";
        any_db!(tx, conn => sqlx::query(insert).bind(&invoice).bind(order).bind(amount).execute(conn).await.map(drop))?;
        let look = "SELECT amount FROM invoices WHERE number = $1";
        let written: i64 = any_db!(tx, conn => sqlx::query_scalar(look).bind(&invoice).fetch_one(conn).await)?;
        let created = InvoiceCreated { invoice, order: asked.order, amount: written.cast_unsigned() };
        cx.publish(&created)?; // leaves exactly if the invoice is committed
        Ok(created) // the reply, if the caller awaits one
    }

    #[distributed(query = "invoice.issued")]
    async fn issued(&self, _: IssuedInvoices, tx: &mut AnyTx) -> Result<u64, InvoiceError> {
        let count = "SELECT count(*) FROM invoices";
        let count: i64 = any_db!(tx, conn => sqlx::query_scalar(count).fetch_one(conn).await)?;
        Ok(count.cast_unsigned())
    }

    #[distributed(event = "orders.placed")]
    async fn order_placed(&mut self, order: OrderPlaced, cx: &Context, tx: &mut AnyTx) -> Result<(), InvoiceError> {
        self.create(CreateInvoice { order: order.order, amount: order.price }, cx, tx).await?;
        Ok(())
    }
}

/// The service as an app of its own. It needs a store.
pub fn app(app: App) -> App {
    app.actor_with(async |setup| {
        setup.prepare_store(TABLE).await?;
        Ok(Invoicing)
    })
}

#[cfg(test)]
mod tests {
    use postrider::testing::TestApp;
    use postrider::{MessageId, Secret};

    use super::*;

    #[postrider::test]
    async fn an_invoice_is_announced_and_counted() {
        let file = std::env::temp_dir().join(format!("invoice-{}.db", MessageId::new()));
        let store = Secret::new(format!("sqlite:{}", file.display()));
        let test = TestApp::start(app(App::new("invoice").configure(move |config| config.store = Some(store)))).await;
        let created = test.request(&CreateInvoice { order: 7, amount: 470 }).await.unwrap();
        assert_eq!(created.invoice, "INV-00007");
        test.settled().await;
        assert_eq!(test.published::<InvoiceCreated>(), [created]);
        assert_eq!(test.request(&IssuedInvoices).await.unwrap(), 1);
    }
}
