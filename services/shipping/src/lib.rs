//! The depot: sends a parcel for every order. It neither waits for the payment nor knows about it.

use contracts::{OrderPlaced, ParcelDispatched};
use postrider::{App, Context, Failure, distributed};

/// Stateless.
#[derive(Default)]
pub struct Shipping;

#[distributed(service = "shipping")]
impl Shipping {
    #[distributed(event = "orders.placed")]
    async fn order_placed(&self, order: OrderPlaced, cx: &Context) -> Result<(), Failure> {
        cx.publish(&ParcelDispatched { order: order.order, parcel: format!("PR{:08}", order.order) })?;
        Ok(())
    }
}

/// The service as an app of its own.
pub fn app(app: App) -> App {
    app.actor(Shipping::default)
}
