//! The depot: sends a parcel for every order. It does not wait for the payment; it does not even know of it.

use contracts::{OrderPlaced, ParcelDispatched};
use postrider::{App, Context, Failure, distributed};

/// Keeps nothing.
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
