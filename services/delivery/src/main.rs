//! The whole delivery company in one process: only wiring.

use postrider::App;

fn main() -> std::process::ExitCode {
    let mut app = App::new("delivery");
    for service in [orders::app, invoice::app, payment::app, shipping::app, notification::app, client::app] {
        app = service(app);
    }
    postrider::main(app)
}
