//! Deliveries, ends and redeliveries in any order, against a simple model.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::message::{Key, Kind, MediaType};

/// What may happen.
#[derive(Debug, Clone)]
enum Step {
    /// A delivery of one of a few messages comes: its id, its payload, and whether it may have come before.
    Deliver { id: usize, payload: usize, redelivered: bool },
    /// One of the runs ends, and its outcome can be settled or not.
    End { run: usize, settles: bool },
    /// One of the runs did not take place.
    Drop { run: usize },
    /// One of those that wait goes away with its channel.
    Leave { waiting: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..2_usize, 0..2_usize, any::<bool>())
            .prop_map(|(id, payload, redelivered)| Step::Deliver { id, payload, redelivered }),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(run, settles)| Step::End { run, settles }),
        1 => any::<usize>().prop_map(|run| Step::Drop { run }),
        1 => any::<usize>().prop_map(|waiting| Step::Leave { waiting }),
    ]
}

type Message = (usize, usize);

struct Waiting {
    message: Message,
    joined: bool,
    told: oneshot::Receiver<Ended>,
}

#[derive(Default)]
struct Model {
    running: Running,
    runs: Vec<(Message, u32, Turn)>,
    waiting: Vec<Waiting>,
    /// The number of the run whose outcome is remembered, by the message's id.
    remembered: BTreeMap<usize, (usize, u32)>,
    next: u32,
}

fn envelope((id, payload): Message) -> Arc<Envelope> {
    let payload = Bytes::from(vec![payload as u8]);
    let mut envelope = Envelope::new(Kind::Command, Key::from_wire("a.b"), MediaType::BYTES, payload);
    envelope.id = format!("m{id}").into();
    Arc::new(envelope)
}

/// The number of a run, carried by what is known of its attempts.
fn made(number: u32) -> Made {
    Made { attempt: number, ..Made::default() }
}

impl Model {
    fn runs(&self, message: Message) -> usize {
        self.runs.iter().filter(|(of, ..)| *of == message).count()
    }

    fn deliver(&mut self, message: Message, redelivered: bool) -> Result<(), TestCaseError> {
        let runs = self.runs(message);
        let kept = self.remembered.get(&message.0).filter(|(payload, _)| redelivered && *payload == message.1).copied();
        match self.running.enter(&envelope(message), redelivered, None) {
            Entered::Ended(_, made) => {
                prop_assert_eq!(kept, Some((message.1, made.attempt)), "an outcome of nobody");
                self.remembered.remove(&message.0);
            }
            Entered::Run(turn) => {
                prop_assert!(kept.is_none() && runs == 0, "{message:?} runs twice at once");
                self.runs.push((message, self.next, turn));
                self.next += 1;
            }
            Entered::Joined(told) => {
                prop_assert!(redelivered && runs == 1 && kept.is_none());
                self.waiting.push(Waiting { message, joined: true, told });
            }
            Entered::After(told) => {
                prop_assert!(!redelivered && runs == 1);
                self.waiting.push(Waiting { message, joined: false, told });
            }
        }
        Ok(())
    }

    /// All who waited for a run hear of it, and nobody else; they are delivered again if it did not take place.
    fn hear(&mut self, message: Message, number: Option<u32>) -> Result<(), TestCaseError> {
        let (heard, rest): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(|waiting| waiting.message == message);
        self.waiting = rest;
        for mut waiting in heard {
            let told = waiting.told.try_recv().ok().map(|(_, made)| made.attempt);
            prop_assert_eq!(told, number, "whoever waits hears of the run");
            if told.is_none() || !waiting.joined {
                self.deliver(message, waiting.joined)?;
            }
        }
        for waiting in &mut self.waiting {
            prop_assert!(matches!(waiting.told.try_recv(), Err(oneshot::error::TryRecvError::Empty)));
        }
        Ok(())
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Deliver { id, payload, redelivered } => self.deliver((id, payload), redelivered)?,
            Step::End { run, settles } if !self.runs.is_empty() => {
                let (message, number, turn) = self.runs.remove(run % self.runs.len());
                let taken = self.waiting.iter().any(|waiting| waiting.joined && waiting.message == message);
                if !settles && !taken {
                    self.remembered.insert(message.0, (message.1, number));
                }
                turn.end(&Outcome::Done(None), &made(number), settles);
                self.hear(message, Some(number))?;
            }
            Step::Drop { run } if !self.runs.is_empty() => {
                let (message, _, turn) = self.runs.remove(run % self.runs.len());
                drop(turn);
                self.hear(message, None)?;
            }
            Step::Leave { waiting } if !self.waiting.is_empty() => {
                self.waiting.remove(waiting % self.waiting.len());
            }
            Step::End { .. } | Step::Drop { .. } | Step::Leave { .. } => {}
        }
        for id in 0..2 {
            let runs = self.runs.iter().any(|((of, _), ..)| *of == id);
            prop_assert_eq!(self.running.has(&format!("m{id}").into()), runs);
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn the_same_message_never_runs_twice_at_once(steps in prop::collection::vec(step(), 1..60)) {
        let mut model = Model::default();
        for step in steps {
            model.take(step)?;
        }
        // Whatever happened, everything that runs can end, and leaves nothing behind.
        for left in 0.. {
            if model.runs.is_empty() {
                break;
            }
            prop_assert!(left < 1_000, "it goes on for ever");
            model.take(Step::End { run: 0, settles: true })?;
        }
        prop_assert!(model.waiting.is_empty() && model.running.lock().running.is_empty());
    }
}
