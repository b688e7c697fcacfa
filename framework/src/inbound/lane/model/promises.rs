//! The promises that hold in every state, and the searches that check them.

use std::io::Write;
use std::sync::LazyLock;

use super::search::{Broken, Promise, Space};
use super::steps::Action;
use super::world::{Faults, MESSAGES, Rules, World, Wrong};

fn nothing_is_lost(_: &World, _: Action, world: &World) -> Result<(), String> {
    let lost = |message: &usize| !world.is_somewhere(*message) && world.dead[*message] == 0 && !world.done[*message];
    (0..world.rules.messages.into()).find(lost).map_or(Ok(()), |message| Err(format!("message {message} is lost")))
}

fn what_is_done_has_sent(_: &World, _: Action, world: &World) -> Result<(), String> {
    let lacks = |message: &usize| world.rules.sends[*message] && world.done[*message] && !world.sent[*message];
    (0..MESSAGES).find(lacks).map_or(Ok(()), |message| Err(format!("what message {message} sends never left")))
}

/// The highest attempt of a message anywhere.
fn attempts(world: &World, message: usize) -> u8 {
    let held = world.processes.iter().flat_map(|process| process.held.iter().map(|held| held.copy));
    let buffered = world.processes.iter().flat_map(|process| process.buffer.iter().copied());
    let copies = world.queue.iter().copied().chain(held).chain(buffered);
    copies.filter(|copy| copy.index() == message).map(|copy| copy.attempt).max().unwrap_or(0)
}

fn stops_cost_nothing(before: &World, action: Action, after: &World) -> Result<(), String> {
    if after.left_by_stops != [0; MESSAGES] {
        return Err("the note of a process stays that stopped in order".into());
    }
    if !matches!(action, Action::Stop(_) | Action::Stopped(_)) {
        return Ok(());
    }
    if (before.dead, before.condemned) != (after.dead, after.condemned) {
        return Err("a stop gave a message up".into());
    }
    let raised = |message: &usize| attempts(after, *message) > attempts(before, *message);
    (0..MESSAGES).find(raised).map_or(Ok(()), |message| Err(format!("a stop was an attempt of message {message}")))
}

fn runs_do_not_overlap(_: &World, _: Action, world: &World) -> Result<(), String> {
    for process in &world.processes {
        for message in 0..MESSAGES {
            let runs = process.held.iter().filter(|held| held.copy.index() == message && held.runs()).count();
            if runs > 1 {
                return Err(format!("message {message} runs twice at once"));
            }
        }
    }
    Ok(())
}

fn only_deaths_condemn(_: &World, _: Action, world: &World) -> Result<(), String> {
    let innocent = |message: &usize| world.condemned[*message] && world.deaths[*message] < world.rules.condemned_after;
    (0..MESSAGES).find(innocent).map_or(Ok(()), |message| Err(format!("message {message} is condemned for nothing")))
}

const PROMISES: [Promise; 5] =
    [nothing_is_lost, what_is_done_has_sent, stops_cost_nothing, runs_do_not_overlap, only_deaths_condemn];

fn rules() -> Rules {
    let never = [false; MESSAGES];
    let (suspected_after, condemned_after) = (1, 2);
    let faults = Faults::default();
    Rules {
        messages: 2,
        kills: never,
        fails: never,
        sends: never,
        attempts: 2,
        prefetch: 2,
        suspected_after,
        condemned_after,
        faults,
        broken: None,
    }
}

/// Nothing is suspected.
fn calm() -> Rules {
    Rules { suspected_after: u8::MAX, fails: [true, false], ..rules() }
}

fn killer() -> Rules {
    Rules { kills: [true, false], ..rules() }
}

/// One message whose handler may fail; it is then given up.
fn one() -> Rules {
    Rules { messages: 1, attempts: 1, ..calm() }
}

fn faults(losses: u8, stops: u8, kills: u8) -> Faults {
    Faults { losses, stops, kills, failures: 1, ..Faults::default() }
}

fn kept(rules: Rules) -> &'static Rules {
    Box::leak(Box::new(rules))
}

/// The searches: the more faults at once, the fewer messages.
fn searches() -> Vec<(&'static str, Rules)> {
    let unconfirmed = Faults { unconfirmed: 1, ..faults(1, 1, 1) };
    let replayed = Faults { replays: 1, failures: 2, forgets: 1, ..faults(1, 1, 0) };
    vec![
        ("two messages, a loss", Rules { faults: faults(1, 0, 0), ..calm() }),
        ("two messages, a stop and a kill", Rules { faults: faults(0, 1, 1), ..calm() }),
        ("two attempts, two losses", Rules { attempts: 2, faults: faults(2, 0, 0), ..one() }),
        ("three losses", Rules { faults: faults(3, 0, 0), ..one() }),
        ("a send, each fault", Rules { sends: [true; MESSAGES], faults: unconfirmed, ..one() }),
        ("sent twice", Rules { faults: Faults { duplicates: 1, ..faults(1, 0, 1) }, ..one() }),
        ("replayed", Rules { faults: replayed, ..one() }),
        ("suspects", Rules { faults: faults(0, 1, 2), ..rules() }),
        ("a killer", Rules { faults: faults(0, 1, 1), ..killer() }),
        ("a killer, unconfirmed", Rules { faults: Faults { unconfirmed: 1, ..faults(0, 1, 0) }, ..killer() }),
    ]
}

struct Searched {
    name: &'static str,
    broken: Option<Broken>,
    ends: Result<(), String>,
}

/// The results of all searches, which run once for all tests.
static SEARCHED: LazyLock<Vec<Searched>> = LazyLock::new(|| {
    let search = |(name, rules): (&'static str, Rules)| match Space::search(kept(rules), &PROMISES) {
        Ok(space) => {
            let _ = writeln!(std::io::stderr(), "{name}: {} states", space.states());
            Searched { name, broken: None, ends: space.ends() }
        }
        Err(broken) => Searched { name, broken: Some(broken), ends: Ok(()) },
    };
    std::thread::scope(|scope| {
        let searches: Vec<_> = searches().into_iter().map(|of| scope.spawn(move || search(of))).collect();
        searches.into_iter().map(|search| search.join().unwrap()).collect()
    })
});

fn holds(promise: Promise) {
    for Searched { name, broken, .. } in &*SEARCHED {
        if let Some(Broken { promise: number, what }) = broken {
            assert!(!std::ptr::fn_addr_eq(PROMISES[*number], promise), "{name}: {what}");
        }
    }
}

#[test]
fn no_confirmed_message_is_ever_neither_queued_nor_running_nor_dead_lettered_nor_done() {
    holds(nothing_is_lost);
}

#[test]
fn no_message_is_done_before_what_its_handler_sent_has_left() {
    holds(what_is_done_has_sent);
}

#[test]
fn no_orderly_stop_raises_an_attempt_or_condemns_a_message() {
    holds(stops_cost_nothing);
}

#[test]
fn two_runs_of_one_message_never_overlap_in_a_process() {
    holds(runs_do_not_overlap);
}

#[test]
fn a_message_is_condemned_only_for_processes_that_died_while_it_was_handled_alone() {
    holds(only_deaths_condemn);
}

#[test]
fn without_another_fault_every_message_can_come_to_its_end_from_everywhere() {
    for Searched { name, ends, .. } in &*SEARCHED {
        assert!(ends.is_ok(), "{name}: {}", ends.as_ref().unwrap_err());
    }
}

/// The searches find each kind of wrong code.
#[test]
fn code_that_would_break_a_promise_is_found_out() {
    use Wrong::{
        AcknowledgesUnconfirmed, CountCondemns, ReplayIsTheSame, StopCountsAsAttempt, StopKeepsNote, TurnEndsAtFinished,
    };
    let unconfirmed = Faults { unconfirmed: 1, ..faults(0, 0, 0) };
    let replayed = Faults { replays: 1, ..faults(2, 0, 0) };
    let wrong: [(Wrong, Rules, Promise); 6] = [
        (TurnEndsAtFinished, Rules { faults: faults(1, 0, 0), ..one() }, runs_do_not_overlap),
        (AcknowledgesUnconfirmed, Rules { faults: unconfirmed, ..one() }, nothing_is_lost),
        (ReplayIsTheSame, Rules { faults: replayed, ..one() }, nothing_is_lost),
        (StopKeepsNote, Rules { faults: faults(0, 1, 0), ..killer() }, stops_cost_nothing),
        (StopCountsAsAttempt, Rules { faults: faults(0, 1, 0), ..rules() }, stops_cost_nothing),
        (CountCondemns, Rules { faults: faults(0, 3, 0), ..rules() }, only_deaths_condemn),
    ];
    for (broken, rules, promise) in wrong {
        let rules = kept(Rules { broken: Some(broken), ..rules });
        let Err(found) = Space::search(rules, &PROMISES) else { panic!("{broken:?} is not found") };
        assert!(std::ptr::fn_addr_eq(PROMISES[found.promise], promise), "{broken:?}: {}", found.what);
    }
    let never = kept(Rules { broken: Some(Wrong::NeverClears), ..killer() });
    assert!(Space::search(never, &PROMISES).unwrap().ends().is_err());
}

/// A note stands for a process that handles a suspect, or that died of it. A process that finds the note cannot tell which. So a
/// living process that lost its channel counts as dead, as long as it handles the suspect.
#[test]
fn a_process_that_lost_its_channel_while_it_handles_a_suspect_counts_as_one_that_died() {
    let Err(found) = Space::search(kept(Rules { faults: faults(1, 0, 0), ..killer() }), &PROMISES) else {
        panic!("living processes are told from dead ones: then the docs may promise it");
    };
    assert!(std::ptr::fn_addr_eq(PROMISES[found.promise], only_deaths_condemn as Promise), "{}", found.what);
}
