//! What a handler's error does to its message, state that is made from settings, and one handler for events of several types.
//!
//! Run with: cargo run -p examples --example errors-and-state
//!
//! It prints:
//!
//! ```text
//! ready
//! lent: Momo, copy 1
//! refused: nobody has written "Moby Duck" (unknown-book)
//! failed: the service failed to handle the message; its log says why
//! lent at the second attempt: Dune, copy 1
//! the journal: library.lent Momo, library.lost Emma, library.lent Dune
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use postrider::{
    App, Bus, Command, Context, Event, Failure, HandlerError, Payload, RequestError, SendError, Setup, distributed,
    print_line,
};
use serde::{Deserialize, Serialize};

/// Asks for a book.
#[derive(Serialize, Deserialize, Command)]
#[message(key = "library.lend", reply = u32)]
struct Lend {
    title: String,
}

/// A book has left.
#[derive(Serialize, Deserialize, Event)]
#[message(key = "library.lent")]
struct Lent {
    title: String,
    copy: u32,
}

/// A book is gone.
#[derive(Serialize, Deserialize, Event)]
#[message(key = "library.lost")]
struct Lost {
    title: String,
    borrower: String,
}

/// Why a book was not lent.
#[derive(Debug, HandlerError)]
enum LendError {
    /// The caller can do something about it: it gets the code and the text, and the message is done.
    #[rejected(code = "unknown-book")]
    Unknown(String),
    /// The caller can do nothing about it: the message is a dead letter at once, and the log has the text.
    #[permanent]
    Burnt(String),
    /// It may work later: the message is tried again before it becomes a dead letter.
    #[transient]
    CatalogueBusy,
    /// With `from`, `?` turns a `SendError` into this.
    #[transient(from)]
    Send(SendError),
}

impl std::fmt::Display for LendError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown(title) => write!(f, "nobody has written {title:?}"),
            Self::Burnt(title) => write!(f, "the last copy of {title:?} has burnt"),
            Self::CatalogueBusy => f.write_str("the catalogue is busy"),
            Self::Send(error) => error.fmt(f),
        }
    }
}

/// `[service.library]` of the configuration file.
#[derive(Deserialize)]
struct Settings {
    titles: Vec<String>,
}

/// The state need not be `Send`: it is made on the thread that runs its actor, and never leaves it.
struct Library {
    lent: Rc<RefCell<BTreeMap<String, u32>>>,
}

#[distributed(service = "library")]
impl Library {
    #[distributed(command = "library.lend")]
    async fn lend(&mut self, asked: Lend, cx: &Context) -> Result<u32, LendError> {
        if asked.title == "Ashes" {
            return Err(LendError::Burnt(asked.title));
        }
        if asked.title == "Dune" && cx.attempt() == 1 {
            return Err(LendError::CatalogueBusy);
        }
        let copy = match self.lent.borrow_mut().get_mut(&asked.title) {
            None => return Err(LendError::Unknown(asked.title)),
            Some(lent) => {
                *lent += 1;
                *lent
            }
        };
        cx.publish(&Lent { title: asked.title, copy })?;
        Ok(copy)
    }
}

impl Library {
    /// Runs at the start, and again after a panic. If it fails, the process does not start.
    async fn open(setup: &Setup) -> Result<Self, Failure> {
        let settings: Settings = setup.config()?;
        let lent = settings.titles.into_iter().map(|title| (title, 0)).collect();
        Ok(Self { lent: Rc::new(RefCell::new(lent)) })
    }
}

/// What the journal reads: an event of any of these types. With `untagged` the fields decide which one it is; put the type
/// with more fields first when one has all the fields of another.
#[derive(Deserialize)]
#[serde(untagged)]
enum Happened {
    Lent(Lent),
    Lost(Lost),
}

/// Keeps the titles of all events.
#[derive(Default)]
struct Journal {
    entries: Vec<String>,
}

#[distributed(service = "journal")]
impl Journal {
    #[distributed(event = "library.*")]
    async fn happened(&mut self, event: Happened, cx: &Context) {
        let title = match event {
            Happened::Lent(Lent { title, .. }) | Happened::Lost(Lost { title, .. }) => title,
        };
        self.entries.push(format!("{} {title}", cx.key())); // the key says it, too
    }

    /// A command waits behind the events that came before it.
    #[distributed(command = "journal.show")]
    async fn show(&mut self, _: ()) -> Result<String, Failure> {
        Ok(self.entries.join(", "))
    }
}

/// The program's own work. A service has no `until`, and runs until it is told to stop.
async fn visit(bus: &Bus) -> Result<(), Failure> {
    let lend = async |title: &str| bus.request(&Lend { title: title.into() }).await;
    print_line(format_args!("lent: Momo, copy {}", lend("Momo").await?));
    for (title, word) in [("Moby Duck", "refused"), ("Ashes", "failed")] {
        match lend(title).await {
            Err(RequestError::Remote(error)) if word == "refused" => {
                print_line(format_args!("{word}: {}", error.problem))
            }
            Err(RequestError::Remote(error)) => print_line(format_args!("{word}: {}", error.problem.text)),
            other => return Err(Failure::permanent(format!("{title}: expected an error, not {other:?}"))),
        }
    }
    let lost = Lost { title: "Emma".into(), borrower: "Mr Knightley".into() };
    bus.publish_with(&lost, |o| o.as_owner()).await?; // the program is not the library, but may speak for it
    print_line(format_args!("lent at the second attempt: Dune, copy {}", lend("Dune").await?));
    let journal: String = bus.request_key("journal.show", Payload::json(&())).await?;
    print_line(format_args!("the journal: {journal}"));
    Ok(())
}

fn main() -> std::process::ExitCode {
    // A service has this in its postrider.toml.
    let settings = r#"titles = ["Momo", "Dune"]"#.parse().unwrap_or_default();
    let app = App::new("books")
        .actor_with(Library::open)
        .actor(Journal::default)
        .configure(|config| {
            config.services.insert("library".into(), settings);
        })
        .on_ready(async |_: &Bus| {
            print_line("ready"); // every actor consumes
            Ok(())
        })
        .until(visit); // stops the process when it has ended
    postrider::main(app)
}
