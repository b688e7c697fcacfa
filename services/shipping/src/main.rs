//! The service `shipping` as a process of its own.

fn main() -> std::process::ExitCode {
    postrider::main(shipping::app(postrider::App::new("shipping")))
}
