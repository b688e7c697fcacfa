//! Takes random paths through the model on the real lane, with the real host behind it.

use std::cell::Cell;

use super::real::Real;
use super::steps::{Action, Attempt, Sent};
use super::world::{End, Faults, MESSAGES, PROCESSES, Rules, Stage, World};

/// How many paths are tried.
const WAYS: u64 = 300;
/// The most steps of one path.
const STEPS: usize = 60;

fn rules() -> Rules {
    Rules {
        messages: 2,
        kills: [false; MESSAGES],
        fails: [true; MESSAGES],
        sends: [false; MESSAGES],
        attempts: 1,
        prefetch: 2,
        suspected_after: u8::MAX,
        condemned_after: u8::MAX,
        faults: Faults { losses: 4, stops: 1, kills: 1, duplicates: 2, replays: 2, failures: 4, ..Faults::default() },
        broken: None,
    }
}

/// The next delivery that enters again. It does so by itself, before anything else happens.
fn by_itself(world: &World) -> Option<Action> {
    let again = |p: usize| {
        world.processes[p].held.iter().position(|held| held.stage == Stage::Again).map(|n| Action::Enter(p, n))
    };
    (0..PROCESSES).find_map(again)
}

async fn take(
    real: &mut [Option<Real>; PROCESSES],
    action: Action,
    before: &World,
    after: &World,
) -> Result<(), String> {
    let mut released = None;
    match action {
        Action::Pulled(p) => real[p].as_mut().unwrap().pulled(before.queue[0]),
        Action::Enter(p, n) => real[p].as_mut().unwrap().enter(n),
        Action::Attempt(p, n, how) => {
            real[p].as_mut().unwrap().attempt(before.processes[p].held[n].copy.message, how);
        }
        Action::Finished(p, n) | Action::Release(p, n) => {
            let process = real[p].as_mut().unwrap();
            let went_back = process.given_back();
            if let Action::Finished(..) = action {
                process.finished(n)
            } else {
                process.release(n)
            }
            // A delivery whose dead letter must be written first is not released yet.
            let held = &before.processes[p].held[n];
            let writes = matches!(held.stage, Stage::Finished(End::DeadLetter { .. }));
            if !(writes && before.processes[p].is_live(held)) {
                released = Some((p, n));
            }
            let went_back = process.given_back() - went_back;
            if !before.processes[p].closed && before.processes[p].held[n].current {
                let by_model = after.queue.len() - before.queue.len();
                if went_back != by_model {
                    return Err(format!("{went_back} went back, by the model {by_model}"));
                }
            }
        }
        Action::Flush(p) => real[p].as_mut().unwrap().flush(),
        Action::Closes(p) => real[p].as_mut().unwrap().closes(),
        Action::Lost(p) => real[p].as_mut().unwrap().lost().await,
        Action::Stop(p) => real[p].as_mut().unwrap().stop(),
        Action::Stopped(p) => {
            let mut process = real[p].take().unwrap();
            let went_back = process.given_back();
            process.stopped().await;
            let (went_back, by_model) = (process.given_back() - went_back, after.queue.len() - before.queue.len());
            if !before.processes[p].closed && went_back < by_model {
                return Err(format!("{went_back} went back at the end, by the model {by_model}"));
            }
        }
        Action::Kill(p) => {
            let mut process = real[p].take().unwrap();
            process.closes();
        }
        Action::Start(p) => real[p] = Some(Real::start(before.rules.prefetch).await),
        // The broker's part, or a step that the real lane has taken by itself.
        _ => {}
    }
    if let Some((p, n)) = released {
        real[p].as_mut().unwrap().forget(n);
    }
    Ok(())
}

/// Takes one path. The error is the first difference, with the steps to it.
async fn go(rules: &'static Rules, mut choose: impl FnMut(&World) -> Option<Action>) -> Result<(), String> {
    let mut world = World::begin(rules);
    let mut real: [Option<Real>; PROCESSES] =
        [Some(Real::start(rules.prefetch).await), Some(Real::start(rules.prefetch).await)];
    let mut way = String::new();
    for _ in 0..STEPS {
        let Some(action) = choose(&world) else { break };
        way += &format!("{action:?}\n");
        let mut next = world.next(&action);
        take(&mut real, action, &world, &next).await.map_err(|what| format!("{what}, after\n{way}"))?;
        for (process, by_model) in real.iter_mut().zip(&next.processes) {
            if let Some(process) = process {
                process.settle_down(by_model.stopping).await;
            }
        }
        while let Some(again) = by_itself(&next) {
            next = next.next(&again);
        }
        for (p, (process, by_model)) in real.iter().zip(&next.processes).enumerate() {
            let differs = process.as_ref().and_then(|process| process.differs(by_model));
            if let Some(what) = differs {
                return Err(format!("process {p}: {what}, after\n{way}"));
            }
        }
        world = next;
    }
    Ok(())
}

#[test]
fn the_real_lane_does_what_the_model_does_on_random_ways_through_it() {
    let rules: &'static Rules = Box::leak(Box::new(rules()));
    let seen: [Cell<u32>; 3] = Default::default();
    for seed in 0..WAYS {
        let mut chance = fastrand::Rng::with_seed(seed);
        let way = go(rules, |world| {
            for held in world.processes.iter().flat_map(|process| &process.held) {
                let stages = [held.stage == Stage::Joined, held.stage == Stage::After, held.handled.is_some()];
                stages.iter().zip(&seen).filter(|(is, _)| **is).for_each(|(_, seen)| seen.set(seen.get() + 1));
            }
            let possible = |action: &Action| !matches!(action, Action::Settle(.., sent) if *sent != Sent::Taken);
            let actions: Vec<Action> = world.actions().into_iter().filter(possible).collect();
            chance.choice(actions)
        });
        let gone = actix::System::new().block_on(way);
        assert!(gone.is_ok(), "seed {seed}: {}", gone.unwrap_err());
    }
    assert!(seen.iter().all(|seen| seen.get() > 20), "some join, some wait, some are written: {seen:?}");
}

/// A dead letter is acknowledged, the same message is sent again, and its channel is lost before it begins.
#[test]
fn a_message_that_is_sent_again_is_not_taken_for_the_one_that_was_acknowledged_before() {
    let faults = Faults { losses: 1, duplicates: 1, failures: 1, ..Faults::default() };
    let rules: &'static Rules = Box::leak(Box::new(Rules { messages: 1, faults, ..rules() }));
    let mut way = [
        Action::Pulled(0),
        Action::Enter(0, 0),
        Action::Attempt(0, 0, Attempt::Fails),
        Action::Finished(0, 0),
        Action::Settle(0, 0, Sent::Taken),
        Action::Release(0, 0),
        Action::Flush(0),
        Action::Publish(0),
        Action::Pulled(0),
        Action::Closes(0),
        Action::Lost(0),
        Action::Enter(0, 0),
        Action::Finished(0, 0),
        Action::Pulled(0),
        Action::Enter(0, 0),
    ]
    .into_iter();
    let gone = actix::System::new().block_on(go(rules, move |_| way.next()));
    assert!(gone.is_ok(), "{}", gone.unwrap_err());
}
