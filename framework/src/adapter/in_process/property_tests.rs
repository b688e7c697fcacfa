//! Property test: consumers that open and close, compared with a simple model of a queue.

use std::collections::BTreeSet;

use futures::FutureExt;
use proptest::prelude::*;

use crate::adapter::amqp::{Routed, Way};
use crate::adapter::in_process::{InProcess, Session};
use crate::broker::{Broker, Consumer, ConsumerSpec, Delivery, Names, Publication, Queue, Receipt, Topology};
use crate::message::{Envelope, MediaType};

const PREFETCH: u16 = 3;

#[derive(Debug, Clone)]
enum Step {
    Publish,
    Open,
    Pull { consumer: usize },
    Settle { held: usize, how: u8 },
    Close { consumer: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Publish),
        1 => Just(Step::Open),
        5 => any::<usize>().prop_map(|consumer| Step::Pull { consumer }),
        4 => (any::<usize>(), 0..3_u8).prop_map(|(held, how)| Step::Settle { held, how }),
        1 => any::<usize>().prop_map(|consumer| Step::Close { consumer }),
    ]
}

/// An unsettled delivery: the message, its consumer, and the right to settle it.
struct Held {
    message: u32,
    consumer: u64,
    receipt: Receipt,
}

struct Model {
    session: Session,
    broker: InProcess,
    consumers: Vec<(u64, Box<dyn Consumer>)>,
    held: Vec<Held>,
    published: u32,
    opened: u64,
    pulled: BTreeSet<u32>,
    acked: BTreeSet<u32>,
}

fn spec(prefetch: u16) -> ConsumerSpec {
    ConsumerSpec { queue: Queue::replicated("q"), topology: Topology::default(), prefetch, answers: false }
}

fn message_of(delivery: &Delivery) -> u32 {
    u32::from_be_bytes(delivery.envelope.payload[..].try_into().unwrap())
}

impl Model {
    fn new() -> Self {
        let broker = InProcess::new();
        let session = broker.connect(&Names::default());
        let queues = vec![Queue::replicated("q")];
        session.declare(&Topology::of_queues(queues)).now_or_never().unwrap().unwrap();
        let (consumers, held) = (Vec::new(), Vec::new());
        let (pulled, acked) = (BTreeSet::new(), BTreeSet::new());
        Self { session, broker, consumers, held, published: 0, opened: 0, pulled, acked }
    }

    fn open(&mut self, prefetch: u16) {
        let consumer = self.session.consume(&spec(prefetch)).now_or_never().unwrap().unwrap();
        self.consumers.push((self.opened, consumer));
        self.opened += 1;
    }

    fn is_open(&self, consumer: u64) -> bool {
        self.consumers.iter().any(|(id, _)| *id == consumer)
    }

    fn pull(&mut self, place: usize) -> Result<bool, TestCaseError> {
        let (id, consumer) = &mut self.consumers[place];
        let Some(Some(Ok(delivery))) = consumer.next().now_or_never() else { return Ok(false) };
        let (id, message) = (*id, message_of(&delivery));
        prop_assert!(!self.acked.contains(&message), "{message} was acknowledged");
        let elsewhere = self.held.iter().any(|held| held.message == message && self.is_open(held.consumer));
        prop_assert!(!elsewhere, "{message} is in two hands");
        prop_assert!(delivery.redelivered || !self.pulled.contains(&message), "{message} says it is new");
        self.pulled.insert(message);
        self.held.push(Held { message, consumer: id, receipt: delivery.receipt });
        Ok(true)
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Publish => {
                let routed = Routed {
                    way: Way { exchange: "".into(), routing_key: "q".into() },
                    mandatory: true,
                    bare: false,
                    tells_address: true,
                    envelope: Envelope::note(MediaType::BYTES, self.published.to_be_bytes().to_vec().into()).into(),
                };
                let publication = self.broker.inner.lock().publish(routed);
                prop_assert_eq!(publication.ok(), Some(Publication::Confirmed));
                self.published += 1;
            }
            Step::Open if self.consumers.len() < 3 => self.open(PREFETCH),
            Step::Pull { consumer } if !self.consumers.is_empty() => {
                self.pull(consumer % self.consumers.len())?;
            }
            Step::Settle { held, how } if !self.held.is_empty() => {
                let Held { message, consumer, receipt } = self.held.remove(held % self.held.len());
                let live = self.is_open(consumer);
                prop_assert_eq!(receipt.is_live(), live);
                match how {
                    0 => {
                        receipt.ack();
                        // The receipt of a closed consumer settles nothing: the message is delivered again.
                        self.acked.extend(Some(message).filter(|_| live));
                    }
                    1 => receipt.give_back(),
                    _ => drop(receipt),
                }
            }
            Step::Close { consumer } if !self.consumers.is_empty() => {
                let (_, mut consumer) = self.consumers.remove(consumer % self.consumers.len());
                consumer.close().now_or_never().unwrap();
                prop_assert!(!consumer.is_live());
            }
            _ => {}
        }
        for (id, _) in &self.consumers {
            let held = self.held.iter().filter(|held| held.consumer == *id).count();
            prop_assert!(held <= usize::from(PREFETCH), "more than the prefetch");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn whatever_consumers_do_each_message_is_acknowledged_once_or_still_there_in_its_place(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let mut model = Model::new();
        for step in steps {
            model.take(step)?;
        }
        // Closing the consumers requeues what they held. Their receipts settle nothing any more.
        model.consumers.clear();
        model.held.drain(..).for_each(|held| held.receipt.ack());
        model.open(u16::MAX);
        while model.pull(0)? {}
        let left: Vec<u32> = model.held.iter().map(|held| held.message).collect();
        let expected: Vec<u32> = (0..model.published).filter(|message| !model.acked.contains(message)).collect();
        prop_assert_eq!(left, expected);
    }
}
