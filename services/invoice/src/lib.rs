//! Accounting: writes an invoice for every order.

use std::fmt;

use contracts::{CreateInvoice, InvoiceCreated, IssuedInvoices, OrderPlaced};
use postrider::{App, Context, HandlerError, SendError, distributed};

/// Memory is this instance's own and may be rebuilt at any time; what must survive belongs in a store.
#[derive(Default)]
pub struct Invoicing {
    issued_since_start: u64,
}

/// Why no invoice was written.
#[derive(Debug, HandlerError)]
pub enum InvoiceError {
    /// The amount is zero.
    #[rejected(code = "nothing-to-pay")]
    NothingToPay,
    /// The event could not be sent.
    #[transient(from)]
    Send(SendError),
}

impl fmt::Display for InvoiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NothingToPay => f.write_str("an invoice needs an amount above zero"),
            Self::Send(error) => error.fmt(f),
        }
    }
}

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&mut self, asked: CreateInvoice, cx: &Context) -> Result<InvoiceCreated, InvoiceError> {
        if asked.amount == 0 {
            return Err(InvoiceError::NothingToPay);
        }
        // The number is derived from the order, so handling it twice writes the same invoice.
        let invoice = format!("INV-{:05}", asked.order);
        let created = InvoiceCreated { invoice, order: asked.order, amount: asked.amount };
        cx.publish(&created)?; // leaves only if this handler succeeds
        self.issued_since_start += 1;
        Ok(created) // the reply, if the caller awaits one
    }

    #[distributed(query = "invoice.issued")]
    async fn issued(&self, _: IssuedInvoices) -> Result<u64, InvoiceError> {
        Ok(self.issued_since_start)
    }

    #[distributed(event = "orders.placed")]
    async fn order_placed(&mut self, order: OrderPlaced, cx: &Context) -> Result<(), InvoiceError> {
        self.create(CreateInvoice { order: order.order, amount: order.price }, cx).await?;
        Ok(())
    }
}

/// The service as an app of its own.
pub fn app(app: App) -> App {
    app.actor(Invoicing::default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[postrider::test]
    async fn an_invoice_is_announced_and_counted() {
        let (mut invoicing, cx) = (Invoicing::default(), Context::for_test());
        let created = invoicing.create(CreateInvoice { order: 7, amount: 470 }, &cx).await.unwrap();
        assert_eq!(created.invoice, "INV-00007");
        assert_eq!(cx.sent_of::<InvoiceCreated>(), [created]);
        assert_eq!(invoicing.issued(IssuedInvoices).await.unwrap(), 1);
    }
}
