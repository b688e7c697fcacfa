//! The cashier: takes the money for every invoice.

use std::collections::HashSet;

use contracts::{Cents, InvoiceCreated, PaymentTaken};
use postrider::{App, Context, Failure, distributed};

/// Remembers paid invoices, so that a message that arrives twice takes the money once. Only as long as the process lives:
/// data that must survive belongs in a store.
#[derive(Default)]
pub struct Payments {
    paid: HashSet<String>,
    taken: Cents,
}

#[distributed(service = "payment")]
impl Payments {
    #[distributed(event = "invoice.created")]
    async fn invoice_created(&mut self, invoice: InvoiceCreated, cx: &Context) -> Result<(), Failure> {
        if self.paid.insert(invoice.invoice.clone()) {
            self.taken += invoice.amount;
        }
        // Published each time: the first run may have failed after the money was taken.
        cx.publish(&PaymentTaken { invoice: invoice.invoice, order: invoice.order, amount: invoice.amount })?;
        Ok(())
    }
}

/// The service as an app of its own.
pub fn app(app: App) -> App {
    app.actor(Payments::default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[postrider::test]
    async fn an_invoice_that_comes_twice_is_paid_once() {
        let (mut payments, cx) = (Payments::default(), Context::for_test());
        let invoice = InvoiceCreated { invoice: "INV-00007".into(), order: 7, amount: 470 };
        payments.invoice_created(invoice.clone(), &cx).await.unwrap();
        payments.invoice_created(invoice, &cx).await.unwrap();
        assert_eq!(payments.taken, 470);
        assert_eq!(cx.sent_of::<PaymentTaken>().len(), 2, "whoever asks again is told again");
    }
}
