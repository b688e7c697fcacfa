//! A service for the tests of crashes: it prints what begins, and a message named fatal ends its process.

use std::process::ExitCode;

use postrider::{App, Context, distributed, print_line};

async fn handle(what: &str, cx: &Context) {
    print_line(format_args!("{what} {}", cx.attempt()));
    if what.starts_with("fatal") {
        std::process::abort();
    }
    if what.starts_with("endless") {
        std::future::pending::<()>().await;
    }
}

#[derive(Default)]
struct Shared;

#[distributed(service = "mortal")]
impl Shared {
    #[distributed(command = "mortal.do")]
    async fn act(&self, what: String, cx: &Context) {
        handle(&what, cx).await;
    }
}

#[derive(Default)]
struct Strict;

#[distributed(service = "mortal", queue = "strict", ordered, retry = "none")]
impl Strict {
    #[distributed(command = "mortal.strict")]
    async fn act(&mut self, what: String, cx: &Context) {
        handle(&what, cx).await;
    }
}

fn main() -> ExitCode {
    postrider::main(App::new("mortal").actor(Shared::default).actor(Strict::default))
}
