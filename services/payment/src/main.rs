//! The service `payment` as a process of its own.

fn main() -> std::process::ExitCode {
    postrider::main(payment::app(postrider::App::new("payment")))
}
