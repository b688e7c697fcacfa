//! The service `notification` as a process of its own.

fn main() -> std::process::ExitCode {
    postrider::main(notification::app(postrider::App::new("notification")))
}
