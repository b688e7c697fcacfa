//! The whole delivery company in one process: only wiring. Its data is in one file, unless `POSTRIDER_STORE` names another store.

use postrider::{App, Secret};

fn main() -> std::process::ExitCode {
    let mut app = App::new("delivery").configure(|config| config.store = Some(Secret::new("sqlite:delivery.db")));
    for service in [orders::app, invoice::app, payment::app, shipping::app, notification::app, client::app] {
        app = service(app);
    }
    postrider::main(app)
}
