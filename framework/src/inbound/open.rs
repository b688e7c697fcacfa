//! Turns a delivery into an envelope. Messages for other services or instances end here.

use std::sync::Arc;

use crate::broker::{Delivery, HOME, Receipt, strip};
use crate::bus::Identity;
use crate::handler::Lane;
use crate::message::{Envelope, Name};

pub(super) struct Opened {
    /// The message as received. All attempts share it, and retries forward it.
    pub(super) envelope: Arc<Envelope>,
    pub(super) receipt: Receipt,
}

/// Opens a delivery. Returns only the receipt if the message is for another service or instance.
pub(super) fn open(delivery: Delivery, lane: Lane, identity: &Identity) -> Result<Opened, Receipt> {
    let Delivery { mut envelope, receipt, .. } = delivery;
    if envelope.headers.get(HOME).is_some() {
        // It comes out of a delay. The headers that the broker wrote on the way must not confuse its handling here.
        let headers = &mut Arc::make_mut(&mut envelope).headers;
        strip(headers);
        headers.remove(HOME);
    }
    if is_for_others(&envelope, lane, identity) {
        return Err(receipt);
    }
    Ok(Opened { envelope, receipt })
}

fn is_for_others(envelope: &Envelope, lane: Lane, identity: &Identity) -> bool {
    if !envelope.recipients.is_empty() && !envelope.recipients.contains(&identity.service) {
        return true;
    }
    if envelope.skip.as_ref() != Some(&identity.service) {
        return false;
    }
    // On a shared queue any instance would handle it for the whole service. On an instance's own queue only the instance that
    // sent it is skipped.
    let sent_by_us = envelope.source.as_ref() == Some(&identity.service);
    let same = |a: &Option<Name>, b: &Name| a.as_ref() == Some(b);
    lane != Lane::Instance || !sent_by_us || same(&envelope.instance, &identity.instance)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::broker::any;
    use crate::message::{Key, Kind, MediaType};

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn any_delivery_is_opened_as_it_came_or_is_for_somebody_else(
            delivery in any::delivery(any::receipt), lane in prop::sample::select(&Lane::ALL[..])
        ) {
            let came = delivery.envelope.clone();
            match open(delivery, lane, &identity()) {
                Ok(opened) => {
                    prop_assert!(opened.receipt.is_live());
                    let delayed = came.headers.get(HOME).is_some();
                    prop_assert!(delayed || Arc::ptr_eq(&opened.envelope, &came), "retries must have what came");
                    prop_assert!(opened.envelope.headers.get(HOME).is_none());
                    prop_assert_eq!((&opened.envelope.payload, &opened.envelope.id), (&came.payload, &came.id));
                }
                Err(receipt) => {
                    prop_assert!(!came.recipients.is_empty() || came.skip.is_some(), "nobody else is meant");
                    prop_assert!(receipt.is_live());
                }
            }
        }
    }

    fn identity() -> Identity {
        Identity::plain("orders", "i1")
    }

    #[test]
    fn the_sender_is_skipped_by_service_on_shared_queues_and_by_instance_on_its_own() {
        let skipped = |source: &str, instance: &str, lane| {
            let mut envelope = Envelope::new(Kind::Event, Key::from_wire("a.b"), MediaType::JSON, Bytes::new());
            envelope.source = Some(Name::from_wire(source));
            envelope.instance = Some(Name::from_wire(instance));
            envelope.skip = Some(Name::from_wire("orders"));
            is_for_others(&envelope, lane, &identity())
        };
        assert!(skipped("orders", "i2", Lane::Durable));
        assert!(!skipped("orders", "i2", Lane::Instance));
        assert!(skipped("orders", "i1", Lane::Instance));
        assert!(skipped("invoice", "i9", Lane::Instance));
    }
}
