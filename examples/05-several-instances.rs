//! Several instances of a service share its work; another service has its own copy of everything.
//!
//! Run with: cargo run -p examples --example several-instances
//!
//! Which instance prints which page is random; each page is printed once. It prints:
//!
//! ```text
//! printed once each: pages 1, 2, 3, 4, 5, 6
//! printed by: press-a, press-b
//! filed as well: pages 1, 2, 3, 4, 5, 6
//! paper changed at: press-a, press-b
//! ```
//!
//! Here three apps share one broker inside the process, as three processes would share RabbitMQ. Copies of an actor
//! within one app need no second app: `App::new("print").actor(Press::default).replicas(3)`.

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use postrider::adapter::in_process::InProcess;
use postrider::{App, Context, Event, Failure, Running, distributed, print_line};
use serde::{Deserialize, Serialize};

const PAGES: u32 = 6;
const PRESSES: [&str; 2] = ["press-a", "press-b"];

/// The office has written a page.
#[derive(Serialize, Deserialize, Event)]
#[message(key = "office.written")]
struct Written {
    page: u32,
}

/// Presses must use other paper from now on.
#[derive(Serialize, Deserialize, Event)]
#[message(key = "office.paper-changed")]
struct PaperChanged;

/// A page was printed.
#[derive(Serialize, Deserialize, Event)]
#[message(key = "print.printed")]
struct Printed {
    page: u32,
    press: String,
}

/// A press has changed its paper.
#[derive(Serialize, Deserialize, Event)]
#[message(key = "print.refilled")]
struct Refilled {
    press: String,
}

/// A page was filed.
#[derive(Serialize, Deserialize, Event)]
#[message(key = "archive.filed")]
struct Filed {
    page: u32,
}

/// One instance of the service `print`.
struct Press {
    name: &'static str,
}

// With a prefetch of 1 an instance takes the next page when it has printed the last one.
#[distributed(service = "print", prefetch = 1)]
impl Press {
    /// One of the instances handles it: they compete for it.
    #[distributed(event = "office.written")]
    async fn print(&mut self, written: Written, cx: &Context) -> Result<(), Failure> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        cx.publish(&Printed { page: written.page, press: self.name.into() })?;
        Ok(())
    }

    /// Each of the instances handles it.
    #[distributed(event = "office.paper-changed", scope = "instance")]
    async fn refill(&mut self, _: PaperChanged, cx: &Context) -> Result<(), Failure> {
        cx.publish(&Refilled { press: self.name.into() })?;
        Ok(())
    }
}

/// Another service: it gets a copy of each page that the presses get.
#[derive(Default)]
struct Archive;

#[distributed(service = "archive")]
impl Archive {
    #[distributed(event = "office.written")]
    async fn file(&self, written: Written, cx: &Context) -> Result<(), Failure> {
        cx.publish(&Filed { page: written.page })?;
        Ok(())
    }
}

/// The office's record of its pages.
#[derive(Default)]
struct Office {
    printed: Vec<u32>,
    by: BTreeSet<String>,
    filed: Vec<u32>,
    refilled: BTreeSet<String>,
}

#[distributed(service = "office")]
impl Office {
    #[distributed(event = "print.printed")]
    async fn printed(&mut self, printed: Printed, cx: &Context) {
        self.printed.push(printed.page);
        self.by.insert(printed.press);
        self.stop_when_done(cx);
    }

    #[distributed(event = "print.refilled")]
    async fn refilled(&mut self, refilled: Refilled, cx: &Context) {
        self.refilled.insert(refilled.press);
        self.stop_when_done(cx);
    }

    #[distributed(event = "archive.filed")]
    async fn filed(&mut self, filed: Filed, cx: &Context) {
        self.filed.push(filed.page);
        self.stop_when_done(cx);
    }
}

impl Office {
    fn stop_when_done(&mut self, cx: &Context) {
        let pages = PAGES as usize;
        if self.printed.len() < pages || self.filed.len() < pages || self.refilled.len() < PRESSES.len() {
            return;
        }
        print_line(format_args!("printed once each: pages {}", sorted(&mut self.printed)));
        print_line(format_args!("printed by: {}", Vec::from_iter(self.by.clone()).join(", ")));
        print_line(format_args!("filed as well: pages {}", sorted(&mut self.filed)));
        print_line(format_args!("paper changed at: {}", Vec::from_iter(self.refilled.clone()).join(", ")));
        cx.stop_app();
    }
}

fn sorted(pages: &mut [u32]) -> String {
    pages.sort_unstable();
    pages.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let broker = InProcess::new();
    let mut presses: Vec<Running> = Vec::new();
    for name in PRESSES {
        presses.push(App::new("print").actor(move || Press { name }).broker(broker.clone()).start().await?);
    }
    let office = App::new("office").actor(Office::default).actor(Archive::default).broker(broker).start().await?;

    office.bus().publish(&PaperChanged).await?;
    for page in 1..=PAGES {
        office.bus().publish(&Written { page }).await?;
    }
    office.ended().await;
    for press in presses {
        press.stop().await;
    }
    Ok(())
}
