//! The service `payment` as a process of its own. Its data is in a file beside it, unless `POSTRIDER_STORE` names another store.

use postrider::{App, Secret};

fn main() -> std::process::ExitCode {
    let app = App::new("payment").configure(|config| config.store = Some(Secret::new("sqlite:payment.db")));
    postrider::main(payment::app(app))
}
