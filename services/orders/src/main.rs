//! The service `orders` as a process of its own. Its data is in a file beside it, unless `POSTRIDER_STORE` names another store.

use postrider::{App, Secret};

fn main() -> std::process::ExitCode {
    let app = App::new("orders").configure(|config| config.store = Some(Secret::new("sqlite:orders.db")));
    postrider::main(orders::app(app))
}
