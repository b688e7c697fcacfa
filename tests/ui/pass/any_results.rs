use std::fmt;

use postrider::{Failure, HandlerError, distributed};

type Answer<T> = Result<T, Failure>;

#[derive(serde::Serialize)]
struct Invoice<'a> {
    lines: Vec<&'a str>,
}

#[derive(HandlerError)]
#[permanent]
struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the books are closed")
    }
}

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.nothing")]
    async fn nothing(&self, _: ()) {}

    #[distributed(command = "invoice.unit")]
    #[allow(clippy::unused_unit, reason = "a handler may be written like this")]
    async fn unit(&self, _: ()) -> () {}

    #[distributed(command = "invoice.checked")]
    async fn checked(&self, text: String) -> Result<(), Failure> {
        text.parse::<u64>()?;
        Ok(())
    }

    #[distributed(query = "invoice.answered")]
    async fn answered(&self, _: ()) -> Result<Option<Vec<u64>>, Closed> {
        Err(Closed)
    }

    #[distributed(query = "invoice.alias")]
    async fn alias(&self, _: ()) -> Answer<String> {
        Ok("the alias of a result".into())
    }

    #[distributed(query = "invoice.borrowed")]
    async fn borrowed(&self, _: ()) -> Answer<Invoice<'static>> {
        Ok(Invoice { lines: vec!["one parcel"] })
    }
}

#[test]
fn a_handler_returns_nothing_or_a_result() {
    assert_eq!(super::handlers::<Invoicing>().len(), 6);
}
