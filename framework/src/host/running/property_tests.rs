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
    /// One of the runs is settled, or did not take place.
    End { run: usize },
    /// One of the runs was handled, and its delivery cannot be settled.
    PassOn { run: usize },
    /// A waiting delivery goes away with its channel.
    Leave { waiting: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (0..2_usize, 0..2_usize, any::<bool>())
            .prop_map(|(id, payload, redelivered)| Step::Deliver { id, payload, redelivered }),
        2 => any::<usize>().prop_map(|run| Step::End { run }),
        2 => any::<usize>().prop_map(|run| Step::PassOn { run }),
        1 => any::<usize>().prop_map(|waiting| Step::Leave { waiting }),
    ]
}

type Message = (usize, usize);

enum Told {
    Joined(oneshot::Receiver<(Turn, Handled)>),
    After(oneshot::Receiver<()>),
}

#[derive(Default)]
struct Model {
    running: Running,
    /// Messages that run or are being settled, and the number of the run.
    runs: Vec<(Message, u32, Turn)>,
    waiting: Vec<(Message, Told)>,
    /// The number of the run whose outcome is remembered.
    remembered: BTreeMap<Message, u32>,
    next: u32,
}

fn envelope((id, payload): Message) -> Arc<Envelope> {
    let payload = Bytes::from(vec![payload as u8]);
    let mut envelope = Envelope::new(Kind::Command, Key::from_wire("a.b"), MediaType::BYTES, payload);
    envelope.id = format!("m{id}").into();
    Arc::new(envelope)
}

/// An outcome that carries the number of its run.
fn handled(number: u32) -> Handled {
    Handled::given_back(Outcome::Done(None), AttemptRecord { attempt: number, ..AttemptRecord::default() })
}

impl Model {
    fn runs(&self, message: Message) -> usize {
        self.runs.iter().filter(|(of, ..)| *of == message).count()
    }

    fn deliver(&mut self, message: Message, redelivered: bool) -> Result<(), TestCaseError> {
        let runs = self.runs(message);
        let kept = self.remembered.get(&message).filter(|_| redelivered && runs == 0).copied();
        match self.running.enter(&envelope(message), redelivered, None) {
            Entered::Ended(turn, handled) => {
                prop_assert_eq!(kept, Some(handled.made.attempt), "an outcome of nobody");
                self.remembered.remove(&message);
                self.runs.push((message, handled.made.attempt, turn));
            }
            Entered::Run(turn) => {
                prop_assert!(kept.is_none() && runs == 0, "{message:?} runs twice at once");
                self.runs.push((message, self.next, turn));
                self.next += 1;
            }
            Entered::Joined(told) => {
                prop_assert!(redelivered && runs == 1);
                self.waiting.push((message, Told::Joined(told)));
            }
            Entered::After(told) => {
                prop_assert!(!redelivered && runs == 1);
                self.waiting.push((message, Told::After(told)));
            }
        }
        Ok(())
    }

    /// Tells deliveries that waited for a run of its end: at most one takes the outcome, and if none does, all ask again.
    fn hear(&mut self, message: Message, passed: Option<u32>) -> Result<(), TestCaseError> {
        let (heard, rest): (Vec<_>, Vec<_>) = self.waiting.drain(..).partition(|(of, _)| *of == message);
        self.waiting = rest;
        let (mut taken, mut again) = (None, Vec::new());
        for (_, mut told) in heard {
            let ended = match &mut told {
                Told::Joined(told) => match told.try_recv() {
                    Ok((turn, handled)) => {
                        prop_assert!(taken.is_none(), "two settle one message");
                        prop_assert_eq!(Some(handled.made.attempt), passed);
                        taken = Some((message, handled.made.attempt, turn));
                        continue;
                    }
                    Err(error) => error == oneshot::error::TryRecvError::Closed,
                },
                Told::After(told) => told.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed),
            };
            again.push((told, ended));
        }
        let is_taken = taken.is_some();
        self.runs.extend(taken);
        if let Some(number) = passed.filter(|_| !is_taken) {
            self.remembered.insert(message, number);
        }
        for (told, ended) in again {
            prop_assert_eq!(ended, !is_taken, "it waits as long as somebody has the turn");
            match (ended, told) {
                (false, told) => self.waiting.push((message, told)),
                (true, Told::Joined(_)) => self.deliver(message, true)?,
                (true, Told::After(_)) => self.deliver(message, false)?,
            }
        }
        Ok(())
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Deliver { id, payload, redelivered } => self.deliver((id, payload), redelivered)?,
            Step::End { run } if !self.runs.is_empty() => {
                let (message, _, turn) = self.runs.remove(run % self.runs.len());
                drop(turn);
                self.hear(message, None)?;
            }
            Step::PassOn { run } if !self.runs.is_empty() => {
                let (message, number, turn) = self.runs.remove(run % self.runs.len());
                turn.pass_on(handled(number));
                self.hear(message, Some(number))?;
            }
            Step::Leave { waiting } if !self.waiting.is_empty() => {
                self.waiting.remove(waiting % self.waiting.len());
            }
            Step::End { .. } | Step::PassOn { .. } | Step::Leave { .. } => {}
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
        // After any steps, all runs can end and leave nothing behind.
        for left in 0.. {
            if model.runs.is_empty() {
                break;
            }
            prop_assert!(left < 1_000, "it goes on for ever");
            model.take(Step::End { run: 0 })?;
        }
        prop_assert!(model.waiting.is_empty() && model.running.lock().running.is_empty());
    }
}
