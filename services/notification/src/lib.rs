//! The customer desk: tells the customer what happens to the parcel.

use contracts::{CustomerNotified, OrderPlaced, ParcelDispatched};
use postrider::{App, Context, Failure, distributed};

/// Stateless.
#[derive(Default)]
pub struct Notifications;

#[distributed(service = "notification")]
impl Notifications {
    #[distributed(event = "orders.placed")]
    async fn order_placed(&self, order: OrderPlaced, cx: &Context) -> Result<(), Failure> {
        notify(cx, order.order, format!("thank you, your parcel will go to {}", order.address))
    }

    #[distributed(event = "shipping.dispatched")]
    async fn parcel_dispatched(&self, parcel: ParcelDispatched, cx: &Context) -> Result<(), Failure> {
        notify(cx, parcel.order, format!("your parcel {} is on its way", parcel.parcel))
    }
}

/// A real company would send a mail here; other services see the event.
fn notify(cx: &Context, order: u64, text: String) -> Result<(), Failure> {
    cx.publish(&CustomerNotified { order, text })?;
    Ok(())
}

/// The service as an app of its own.
pub fn app(app: App) -> App {
    app.actor(Notifications::default)
}
