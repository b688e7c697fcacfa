//! A command goes to the one service that owns it; an event goes to every subscriber.
//!
//! Run with: cargo run -p examples --example commands-and-events
//!
//! Three services run at once, so the lines come in any order:
//!
//! ```text
//! bakery: 20 rolls are baked
//! bakery: 3 cakes are baked
//! shop: 20 rolls are on the shelf
//! shop: 3 cakes are on the shelf
//! ledger: 20 rolls baked
//! ledger: 3 cakes baked
//! ledger: 20 rolls on sale
//! ledger: 3 cakes on sale
//! ```

use postrider::{App, Bus, Command, Context, Event, Failure, distributed, print_line};
use serde::{Deserialize, Serialize};

/// Asks the bakery to bake.
#[derive(Serialize, Deserialize, Command)]
#[message(key = "bakery.bake")]
struct Bake {
    what: String,
    count: u32,
}

/// The bakery has baked.
#[derive(Serialize, Deserialize, Event)]
#[message(key = "bakery.baked")]
struct Baked {
    what: String,
    count: u32,
}

/// The shop now sells it.
#[derive(Serialize, Deserialize, Event)]
#[message(key = "shop.on-sale")]
struct OnSale {
    what: String,
    count: u32,
}

/// Owns the command, and the events that start with `bakery`.
#[derive(Default)]
struct Bakery;

#[distributed(service = "bakery")]
impl Bakery {
    #[distributed(command = "bakery.bake")]
    async fn bake(&self, order: Bake, cx: &Context) -> Result<(), Failure> {
        print_line(format_args!("bakery: {} {} are baked", order.count, order.what));
        cx.publish(&Baked { what: order.what, count: order.count })?; // leaves only if this handler succeeds
        Ok(())
    }
}

/// Subscribes to what the bakery announces, and announces something itself.
#[derive(Default)]
struct Shop;

#[distributed(service = "shop")]
impl Shop {
    #[distributed(event = "bakery.baked")]
    async fn baked(&self, baked: Baked, cx: &Context) -> Result<(), Failure> {
        print_line(format_args!("shop: {} {} are on the shelf", baked.count, baked.what));
        cx.publish(&OnSale { what: baked.what, count: baked.count })?;
        Ok(())
    }
}

/// Has its own copy of each event; bakery and shop do not know that it exists.
#[derive(Default)]
struct Ledger {
    entries: usize,
}

#[distributed(service = "ledger")]
impl Ledger {
    #[distributed(event = "bakery.baked")]
    async fn baked(&mut self, baked: Baked, cx: &Context) {
        print_line(format_args!("ledger: {} {} baked", baked.count, baked.what));
        self.entered(cx);
    }

    #[distributed(event = "shop.on-sale")]
    async fn on_sale(&mut self, on_sale: OnSale, cx: &Context) {
        print_line(format_args!("ledger: {} {} on sale", on_sale.count, on_sale.what));
        self.entered(cx);
    }
}

impl Ledger {
    /// Two orders make four entries; then there is nothing left to wait for.
    fn entered(&mut self, cx: &Context) {
        self.entries += 1;
        if self.entries == 4 {
            cx.stop_app();
        }
    }
}

fn main() -> std::process::ExitCode {
    let app = App::new("village").actor(Bakery::default).actor(Shop::default).actor(Ledger::default);
    postrider::main(app.on_ready(async |bus: &Bus| {
        bus.send(&Bake { what: "rolls".into(), count: 20 }).await?;
        bus.send(&Bake { what: "cakes".into(), count: 3 }).await?;
        Ok(())
    }))
}
