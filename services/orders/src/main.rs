//! The service `orders` as a process of its own.

fn main() -> std::process::ExitCode {
    postrider::main(orders::app(postrider::App::new("orders")))
}
