//! The office: takes orders and announces them.

use contracts::{Cents, OrderPlaced, PlaceOrder};
use postrider::{App, Context, Failure, distributed};

/// What every parcel costs.
const BASE_PRICE: Cents = 350;
/// The price of each kilogram or part of one.
const PRICE_PER_KILOGRAM: Cents = 120;

/// Stateless: the order travels in the event.
#[derive(Default)]
pub struct Orders;

#[distributed(service = "orders")]
impl Orders {
    #[distributed(command = "orders.place")]
    async fn place(&self, order: PlaceOrder, cx: &Context) -> Result<(), Failure> {
        if order.grams == 0 {
            return Err(Failure::rejected("weightless", "a parcel weighs something; say how many grams"));
        }
        let price = BASE_PRICE + PRICE_PER_KILOGRAM * Cents::from(order.grams.div_ceil(1_000));
        cx.publish(&OrderPlaced { order: order.order, address: order.address, grams: order.grams, price })?;
        Ok(())
    }
}

/// The service as an app of its own.
pub fn app(app: App) -> App {
    app.actor(Orders::default)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[postrider::test]
    async fn each_begun_kilogram_is_charged() {
        let cx = Context::for_test();
        Orders.place(PlaceOrder { order: 7, address: "Harbour 1".into(), grams: 1_001 }, &cx).await.unwrap();
        let placed = cx.sent_of::<OrderPlaced>();
        assert_eq!(placed[0].price, 350 + 2 * 120);
    }
}
