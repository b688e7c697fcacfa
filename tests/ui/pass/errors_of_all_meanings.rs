use std::fmt;

use postrider::handler::Class;
use postrider::{Context, HandlerError, Payload, SendError, distributed};

#[derive(HandlerError)]
enum Failed<T: fmt::Debug> {
    #[transient(from)]
    Send(SendError),
    #[transient]
    Busy,
    #[permanent(from)]
    Number(std::num::ParseIntError),
    #[permanent]
    Closed { since: u64 },
    #[permanent(from, code = "no-text")]
    Text(std::str::Utf8Error),
    #[permanent(code = "account-gone")]
    Gone,
    #[rejected(code = "unknown-order")]
    Unknown(T, u64),
}

impl<T: fmt::Debug> fmt::Display for Failed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Send(error) => error.fmt(f),
            Self::Busy => f.write_str("busy"),
            Self::Number(error) => error.fmt(f),
            Self::Text(error) => error.fmt(f),
            Self::Gone => f.write_str("gone"),
            Self::Closed { since } => write!(f, "closed since {since}"),
            Self::Unknown(order, position) => write!(f, "{order:?} is unknown at {position}"),
        }
    }
}

/// An error that cannot happen.
#[derive(HandlerError)]
enum Never {}

impl fmt::Display for Never {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {}
    }
}

struct Invoicing;

#[distributed(service = "invoice")]
impl Invoicing {
    #[distributed(command = "invoice.create")]
    async fn create(&self, order: String, cx: &Context) -> Result<(), Failed<String>> {
        let number: u64 = order.parse()?;
        cx.publish_key("invoice.created", Payload::json(&number))?;
        Err(Failed::Unknown(order, number))
    }

    #[distributed(query = "invoice.issued")]
    async fn issued(&self, _: ()) -> Result<u64, Never> {
        Ok(0)
    }
}

#[test]
fn each_variant_has_its_meaning() {
    let meaning = |failed: Failed<u8>| (failed.class(), failed.code().to_owned());
    assert_eq!(meaning(Failed::Busy), (Class::Transient, "failed".to_owned()));
    assert_eq!(meaning(Failed::Closed { since: 1 }), (Class::Permanent, "failed".to_owned()));
    assert_eq!(meaning(Failed::Gone), (Class::Permanent, "account-gone".to_owned()));
    assert_eq!(Failed::<u8>::Gone.caller_text(), Failed::<u8>::Closed { since: 1 }.caller_text(), "for the log only");
    #[allow(invalid_from_utf8, reason = "the error is what is meant")]
    let text = std::str::from_utf8(&[0xff]).unwrap_err();
    assert_eq!(meaning(text.into()), (Class::Permanent, "no-text".to_owned()));
    assert_eq!(meaning(Failed::Unknown(1, 2)), (Class::Rejected, "unknown-order".to_owned()));
    assert_eq!(super::handlers::<Invoicing>().len(), 2);
}
