//! A customer with a few parcels: places orders, and prints their news until all of them are done. Each line
//! begins with the service that sent the news.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use contracts::{CustomerNotified, InvoiceCreated, OrderPlaced, ParcelDispatched, PaymentTaken, PlaceOrder};
use postrider::{App, Bus, Context, Failure, distributed, print_line};

/// Where the parcels go.
const PARCELS: [(&str, u32); 3] = [("Harbour 1", 400), ("Mill Lane 12", 2_300), ("Station Road 5", 1_000)];

/// The services that handle an order.
const COMPANY: [&str; 5] = ["orders", "invoice", "payment", "shipping", "notification"];
/// How long the customer waits without news.
const PATIENCE: Duration = Duration::from_secs(60);

/// The state of one order.
#[derive(Default)]
struct Known {
    placed: bool,
    invoice: Option<String>,
    paid: bool,
    parcel: Option<String>,
    told: usize,
}

impl Known {
    /// The customer is notified twice: when the order was taken, and when the parcel has left.
    fn is_done(&self) -> bool {
        self.placed && self.invoice.is_some() && self.paid && self.parcel.is_some() && self.told >= 2
    }
}

/// The customer's view of its orders, built from received messages only.
pub struct Desk {
    orders: BTreeMap<u64, Known>,
    events: usize,
}

#[distributed(service = "client")]
impl Desk {
    #[distributed(event = "orders.placed")]
    async fn placed(&mut self, order: OrderPlaced, cx: &Context) {
        print_line(format_args!(
            "orders: order {} is taken, {} g to {} for {}",
            order.order,
            order.grams,
            order.address,
            euros(order.price)
        ));
        self.know(order.order, |known| known.placed = true);
        self.stop_when_done(cx);
    }

    #[distributed(event = "invoice.created")]
    async fn invoiced(&mut self, invoice: InvoiceCreated, cx: &Context) {
        print_line(format_args!(
            "invoice: order {} has invoice {} over {}",
            invoice.order,
            invoice.invoice,
            euros(invoice.amount)
        ));
        self.know(invoice.order, |known| known.invoice = Some(invoice.invoice));
        self.stop_when_done(cx);
    }

    #[distributed(event = "payment.taken")]
    async fn paid(&mut self, payment: PaymentTaken, cx: &Context) {
        print_line(format_args!("payment: order {}, {} paid", payment.order, euros(payment.amount)));
        self.know(payment.order, |known| known.paid = true);
        self.stop_when_done(cx);
    }

    #[distributed(event = "shipping.dispatched")]
    async fn dispatched(&mut self, parcel: ParcelDispatched, cx: &Context) {
        print_line(format_args!("shipping: order {}, parcel {} has left", parcel.order, parcel.parcel));
        self.know(parcel.order, |known| known.parcel = Some(parcel.parcel));
        self.stop_when_done(cx);
    }

    #[distributed(event = "notification.sent")]
    async fn notified(&mut self, notice: CustomerNotified, cx: &Context) {
        print_line(format_args!("notification: order {}, told \"{}\"", notice.order, notice.text));
        self.know(notice.order, |known| known.told += 1);
        self.stop_when_done(cx);
    }
}

impl Desk {
    /// A desk that waits for news of these orders.
    fn waiting_for(orders: impl Iterator<Item = u64>) -> Self {
        Self { orders: orders.map(|order| (order, Known::default())).collect(), events: 0 }
    }

    /// News of other customers' orders is only printed.
    fn know(&mut self, order: u64, news: impl FnOnce(&mut Known)) {
        if let Some(known) = self.orders.get_mut(&order) {
            news(known);
            self.events += 1;
        }
    }

    fn stop_when_done(&self, cx: &Context) {
        if !self.orders.values().all(Known::is_done) {
            return;
        }
        for (order, known) in &self.orders {
            let (invoice, parcel) =
                (known.invoice.as_deref().unwrap_or_default(), known.parcel.as_deref().unwrap_or_default());
            print_line(format_args!(
                "client: order {order}: done; invoice {invoice} is paid, parcel {parcel} is on its way"
            ));
        }
        print_line(format_args!(
            "client: {} commands and {} events went between {} services that know nothing but their messages; \
             next: the same over RabbitMQ (README.md), or a service of your own (docs/first-service.md)",
            self.orders.len(),
            self.events,
            COMPANY.len() + 1
        ));
        cx.stop_app();
    }
}

/// Places the orders.
async fn place_orders(bus: &Bus, first: u64) -> Result<(), Failure> {
    for (order, (address, grams)) in (first..).zip(PARCELS) {
        bus.send(&PlaceOrder { order, address: address.into(), grams }).await?;
    }
    Ok(())
}

/// A small number that differs from run to run, so that messages left over from an earlier run are not taken for this one's.
fn first_order() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() % 100 * 10 + 1
}

fn euros(cents: u64) -> String {
    format!("{}.{:02} EUR", cents / 100, cents % 100)
}

/// The customer as an app of its own. It waits until the whole company is there: an order that is placed before `invoice` has
/// ever run would never be invoiced.
pub fn app(app: App) -> App {
    let first = first_order();
    let orders = first..first + PARCELS.len() as u64;
    app.actor(move || Desk::waiting_for(orders.clone()))
        .configure(|config| config.run.idle = Some(PATIENCE))
        .needs(COMPANY)
        .on_ready(async move |bus: &Bus| place_orders(bus, first).await)
}
