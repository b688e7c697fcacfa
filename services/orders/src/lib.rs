//! The office: takes orders, writes them down and announces them.

use std::fmt;

use contracts::{Cents, OrderPlaced, PlaceOrder};
use postrider::sqlx;
use postrider::{AnyTx, App, Context, HandlerError, SendError, any_db, distributed};

/// What every parcel costs.
const BASE_PRICE: Cents = 350;
/// The price of each kilogram or part of one.
const PRICE_PER_KILOGRAM: Cents = 120;

/// The orders' table.
const TABLE: &str = "CREATE TABLE IF NOT EXISTS orders (
    number bigint PRIMARY KEY, address text NOT NULL, grams bigint NOT NULL, price bigint NOT NULL)";

/// Stateless: the orders are in the database.
pub struct Orders;

/// Why an order was not taken.
#[derive(Debug, HandlerError)]
pub enum OrderError {
    /// It weighs nothing.
    #[rejected(code = "weightless")]
    Weightless,
    /// It could not be written down.
    #[transient(from)]
    Database(sqlx::Error),
    /// The event could not be sent.
    #[transient(from)]
    Send(SendError),
}

impl fmt::Display for OrderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weightless => f.write_str("a parcel weighs something; say how many grams"),
            Self::Database(error) => error.fmt(f),
            Self::Send(error) => error.fmt(f),
        }
    }
}

#[distributed(service = "orders", guarantee = "effectively_once")]
impl Orders {
    /// The order stands in the database exactly if its event leaves.
    #[distributed(command = "orders.place")]
    async fn place(&self, order: PlaceOrder, cx: &Context, tx: &mut AnyTx) -> Result<(), OrderError> {
        let mut placed = priced(order)?;
        let insert = "INSERT INTO orders (number, address, grams, price) VALUES ($1, $2, $3, $4) ON CONFLICT (number) DO NOTHING";
        let (number, grams, price) = (placed.order.cast_signed(), i64::from(placed.grams), placed.price.cast_signed());
        any_db!(tx, conn => {
            let insert = sqlx::query(insert).bind(number).bind(&placed.address).bind(grams).bind(price);
            insert.execute(conn).await.map(drop)
        })?;
        // Two different messages may place one order. The first one's is written, and is told of.
        let look = "SELECT address, grams, price FROM orders WHERE number = $1";
        let written: (String, i64, i64) = any_db!(tx, conn => sqlx::query_as(look).bind(number).fetch_one(conn).await)?;
        (placed.address, placed.price) = (written.0, written.2.cast_unsigned());
        placed.grams = u32::try_from(written.1).unwrap_or(placed.grams);
        cx.publish(&placed)?;
        Ok(())
    }
}

fn priced(order: PlaceOrder) -> Result<OrderPlaced, OrderError> {
    let PlaceOrder { order, address, grams } = order;
    if grams == 0 {
        return Err(OrderError::Weightless);
    }
    let price = BASE_PRICE + PRICE_PER_KILOGRAM * Cents::from(grams.div_ceil(1_000));
    Ok(OrderPlaced { order, address, grams, price })
}

/// The service as an app of its own. It needs a store.
pub fn app(app: App) -> App {
    app.actor_with(async |setup| {
        setup.prepare_store(TABLE).await?;
        Ok(Orders)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_begun_kilogram_is_charged() {
        let placed = priced(PlaceOrder { order: 7, address: "Harbour 1".into(), grams: 1_001 });
        assert_eq!(placed.map(|placed| placed.price).ok(), Some(350 + 2 * 120));
        assert!(priced(PlaceOrder { order: 7, address: "Harbour 1".into(), grams: 0 }).is_err());
    }
}
