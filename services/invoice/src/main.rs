//! The service `invoice` as a process of its own.

fn main() -> std::process::ExitCode {
    postrider::main(invoice::app(postrider::App::new("invoice")))
}
