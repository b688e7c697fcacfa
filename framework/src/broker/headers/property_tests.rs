//! Properties that hold for whatever a sender writes.

use proptest::prelude::*;

use super::*;
use crate::broker::any;
use crate::message::{Envelope, Headers};

/// All headers of an envelope as they are written.
fn written(envelope: &Envelope) -> Headers {
    let mut headers = Headers::new();
    write_headers(envelope, |name, value| drop(headers.set(name, value.to_value())));
    headers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn headers_are_read_and_written_without_a_loss(headers in any::headers()) {
        let mut envelope = Envelope::note(crate::message::MediaType::BYTES, bytes::Bytes::new());
        envelope.status = Some(Status::Ok);
        for (name, value) in headers.iter() {
            if let Some(value) = read_header(&mut envelope, name, value.clone()) {
                envelope.headers.set(name, value);
            }
        }
        prop_assert_eq!(written(&envelope), headers.clone());
        let size = size(&envelope);
        prop_assert!(size >= headers.size(), "{} bytes, said {}", headers.size(), size);
        for (name, _) in headers.iter() {
            remove_header(&mut envelope, name);
        }
        envelope.status = None;
        prop_assert_eq!(written(&envelope), Headers::new(), "what is taken out is not written");
    }

    #[test]
    fn an_expiration_is_the_same_when_it_counts_again(millis in prop::option::of(any::<u32>())) {
        let mut envelope = Envelope::note(crate::message::MediaType::BYTES, bytes::Bytes::new());
        envelope.expiration = millis.map(|millis| Duration::from_millis(millis.into()));
        let before = envelope.expiration;
        suspend_expiration(&mut envelope);
        prop_assert_eq!(envelope.expiration, None);
        resume_expiration(&mut envelope);
        prop_assert_eq!((envelope.expiration, envelope.headers.len()), (before, 0));
    }

    #[test]
    fn stripping_takes_the_brokers_headers_and_no_others(headers in any::headers()) {
        let mut stripped = headers.clone();
        strip(&mut stripped);
        for (name, value) in headers.iter() {
            let by_broker = name.starts_with("x-") || name == "CC" || name == "BCC";
            prop_assert!(stripped.get(name) == Some(value) || by_broker, "{}", name);
        }
        let again = { let mut again = stripped.clone(); strip(&mut again); again };
        prop_assert_eq!(again, stripped);
    }
}
