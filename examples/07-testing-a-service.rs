//! A service and its tests: a handler called alone, the whole app on a broker inside the test, a stopped clock.
//!
//! Run with: cargo run -p examples --example testing-a-service
//!
//! Its tests are at the end of this file and run with `cargo test -p examples`. The program itself prints:
//!
//! ```text
//! a cup of green tea, after 1 s at 80 degrees
//! ```

use std::time::Duration;

use postrider::{App, Bus, Command, Context, Event, Failure, Query, distributed, print_line};
use serde::{Deserialize, Serialize};

/// Asks for tea.
#[derive(Serialize, Deserialize, Command)]
#[message(key = "tea.brew")]
struct Brew {
    tea: String,
    seconds: u64,
}

/// Tea is ready.
#[derive(Debug, PartialEq, Serialize, Deserialize, Event)]
#[message(key = "tea.brewed")]
struct Brewed {
    tea: String,
    seconds: u64,
    degrees: u32,
}

/// Asks how hot the water should be.
#[derive(Serialize, Deserialize, Query)]
#[message(key = "kettle.degrees", reply = u32)]
struct Degrees {
    tea: String,
}

/// Knows the water.
#[derive(Default)]
struct Kettle;

#[distributed(service = "kettle")]
impl Kettle {
    #[distributed(query = "kettle.degrees")]
    async fn degrees(&self, asked: Degrees) -> Result<u32, Failure> {
        Ok(if asked.tea == "green" { 80 } else { 98 })
    }
}

/// Stateless.
#[derive(Default)]
struct Teapot;

#[distributed(service = "tea", timeout = "2m")]
impl Teapot {
    #[distributed(command = "tea.brew")]
    async fn brew(&self, order: Brew, cx: &Context) -> Result<(), Failure> {
        if order.seconds == 0 {
            return Err(Failure::rejected("water", "tea that draws no time is water"));
        }
        let degrees = cx.request(&Degrees { tea: order.tea.clone() }).await?;
        tokio::time::sleep(Duration::from_secs(order.seconds)).await;
        cx.publish(&Brewed { tea: order.tea, seconds: order.seconds, degrees })?;
        Ok(())
    }
}

/// The program's addition to the services: a guest who drinks the tea.
#[derive(Default)]
struct Guest;

#[distributed(service = "guest")]
impl Guest {
    #[distributed(event = "tea.brewed")]
    async fn drink(&self, cup: Brewed, cx: &Context) {
        print_line(format_args!("a cup of {} tea, after {} s at {} degrees", cup.tea, cup.seconds, cup.degrees));
        cx.stop_app();
    }
}

/// The services under test.
fn services(app: App) -> App {
    app.actor(Teapot::default).actor(Kettle::default)
}

fn main() -> std::process::ExitCode {
    let app = services(App::new("tea-room")).actor(Guest::default);
    postrider::main(app.on_ready(async |bus: &Bus| {
        bus.send(&Brew { tea: "green".into(), seconds: 1 }).await?;
        Ok(())
    }))
}

#[cfg(test)]
mod tests {
    use postrider::testing::TestApp;

    use super::*;

    fn green(seconds: u64) -> Brew {
        Brew { tea: "green".into(), seconds }
    }

    /// A handler is a method: call it, and the context says what it sent. Other services are not needed, as the
    /// context answers for them.
    #[postrider::test]
    async fn tea_is_brewed_with_the_water_the_kettle_names() {
        tokio::time::pause();
        let cx = Context::for_test().answering("kettle.degrees", &75_u32);
        Teapot.brew(green(60), &cx).await.unwrap();
        assert_eq!(cx.sent_of::<Brewed>(), [Brewed { tea: "green".into(), seconds: 60, degrees: 75 }]);
    }

    /// The whole app, with a mailbox, encoded messages and a broker. `settled` waits for everything that one message causes.
    #[postrider::test]
    async fn a_command_causes_a_query_and_an_event() {
        let test = TestApp::start(services(App::new("test"))).await;
        test.pause_clock();
        test.send(&green(60)).await.unwrap();
        test.settled().await;
        assert_eq!(test.log().keys(), ["tea.brew", "kettle.degrees", "tea.brewed"]);
        assert_eq!(test.published::<Brewed>()[0].degrees, 80);
        test.stop().await;
    }

    /// When everything waits for time to pass, it passes at once.
    #[postrider::test]
    async fn tea_that_draws_for_a_minute_takes_a_minute_of_nobodys_time() {
        let test = TestApp::start(services(App::new("test"))).await;
        test.pause_clock();
        let (on_the_wall, on_the_tests_clock) = (std::time::Instant::now(), tokio::time::Instant::now());
        test.send(&green(60)).await.unwrap();
        test.settled().await;
        assert!(on_the_tests_clock.elapsed() >= Duration::from_secs(60));
        assert!(on_the_wall.elapsed() < Duration::from_secs(30));
        test.stop().await;
    }

    /// A message that is given up is not lost: it is a dead letter that says why.
    #[postrider::test]
    async fn tea_that_draws_no_time_is_refused() {
        let test = TestApp::start(services(App::new("test"))).await;
        test.send(&green(0)).await.unwrap();
        test.settled().await;
        assert_eq!(test.published::<Brewed>(), []);
        assert_eq!(test.dead_letters()[0].headers.text("postrider-dead-code"), Some("water"));
        test.stop().await;
    }
}
