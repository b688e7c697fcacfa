//! The service `client` as a process of its own.

fn main() -> std::process::ExitCode {
    postrider::main(client::app(postrider::App::new("client")))
}
