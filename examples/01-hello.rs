//! One service with one command, and the program that sends it.
//!
//! Run with: cargo run -p examples --example hello
//!
//! It prints:
//!
//! ```text
//! Hello, world!
//! ```

use postrider::{App, Bus, Context, Payload, distributed, print_line};

/// Stateless.
#[derive(Default)]
struct Greeter;

#[distributed(service = "greeter")]
impl Greeter {
    #[distributed(command = "greeter.greet")]
    async fn greet(&self, name: String, cx: &Context) {
        print_line(format_args!("Hello, {name}!"));
        cx.stop_app(); // a real service runs until it is told to stop
    }
}

fn main() -> std::process::ExitCode {
    let app = App::new("hello").actor(Greeter::default).on_ready(async |bus: &Bus| {
        bus.send_key("greeter.greet", Payload::text("world")).await?;
        Ok(())
    });
    postrider::main(app)
}
