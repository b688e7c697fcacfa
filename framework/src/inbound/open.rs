//! What arrived becomes an envelope; messages that are not for this service or instance end here.

use std::sync::Arc;

use crate::broker::{self, Delivery, Origin, Properties, Receipt};
use crate::bus::Identity;
use crate::handler::Lane;
use crate::inbound::forward::is_of_earlier_attempts;
use crate::message::{Envelope, Name};

pub(super) struct Opened {
    pub(super) envelope: Arc<Envelope>,
    /// The properties as they came.
    pub(super) original: Arc<Properties>,
    pub(super) receipt: Receipt,
}

/// Opens a delivery; the receipt alone when somebody else is meant.
pub(super) fn open(delivery: Delivery, lane: Lane, identity: &Identity) -> Result<Opened, Receipt> {
    let Delivery { origin, mut properties, payload, receipt, .. } = delivery;
    if matches!(*origin, Origin::Delay(_)) {
        let headers = &mut Arc::make_mut(&mut properties).headers;
        broker::strip(headers);
        headers.remove(broker::HOME);
    } else if !origin.is_moved() && properties.headers.iter().any(|(name, _)| is_of_earlier_attempts(name)) {
        // It comes straight from its sender, so that nobody has tried it yet.
        Arc::make_mut(&mut properties).headers.retain(|name| !is_of_earlier_attempts(name));
    }
    let envelope = broker::open(&origin, &properties, payload);
    if is_for_others(&envelope, lane, identity) {
        return Err(receipt);
    }
    Ok(Opened { envelope: Arc::new(envelope), original: properties, receipt })
}

fn is_for_others(envelope: &Envelope, lane: Lane, identity: &Identity) -> bool {
    if !envelope.recipients.is_empty() && !envelope.recipients.contains(&identity.service) {
        return true;
    }
    if envelope.skip.as_ref() != Some(&identity.service) {
        return false;
    }
    // On a shared queue any instance would handle it for the whole service; on an instance's own queue only the
    // instance that sent it is meant.
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
            let (properties, payload, origin) =
                (delivery.properties.clone(), delivery.payload.clone(), delivery.origin.clone());
            match open(delivery, lane, &identity()) {
                Ok(opened) => {
                    prop_assert!(opened.receipt.is_live() && opened.envelope.attempt >= 1);
                    prop_assert_eq!(&opened.envelope.payload, &payload);
                    let (delayed, moved) = (matches!(*origin, Origin::Delay(_)), origin.is_moved());
                    let mut came = (*properties).clone();
                    came.headers.retain(|name| moved || !is_of_earlier_attempts(name));
                    prop_assert!(delayed || *opened.original == came, "retries must have what came");
                    prop_assert!(delayed || moved || opened.envelope.attempt == 1, "nobody has tried it yet");
                }
                Err(receipt) => {
                    let narrowed = ["postrider-recipients", "postrider-skip"].map(|name| properties.headers.get(name));
                    prop_assert!(narrowed.iter().any(Option::is_some), "nobody else is meant");
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
