//! Searches everything that can happen, the shortest paths first.

use std::collections::VecDeque;

use foldhash::{HashMap, HashMapExt};

use super::steps::Action;
use super::world::{Rules, World};

/// A search with more states takes too long for a test.
const MOST_STATES: usize = 600_000;

/// A condition that must hold after each step.
pub(super) type Promise = fn(before: &World, action: Action, after: &World) -> Result<(), String>;

/// A promise that does not hold: its index, what is wrong, and the shortest path there.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) promise: usize,
    pub(super) what: String,
}

/// Every state that can be reached.
pub(super) struct Space {
    rules: &'static Rules,
    /// The state from which each state was first reached, and the index of the action there.
    came_from: Vec<(u32, u8)>,
    /// Steps that are no fault, as pairs of the state reached and the state before.
    steps: Vec<(u32, u32)>,
    /// The states in which every message has come to its end.
    over: Vec<u32>,
}

impl Space {
    /// Visits every state once.
    ///
    /// # Errors
    /// The first promise that does not hold, and the shortest path there.
    pub(super) fn search(rules: &'static Rules, promises: &[Promise]) -> Result<Self, Broken> {
        let first = World::begin(rules);
        let mut known = HashMap::new();
        known.insert(first.fingerprint(), 0_u32);
        let mut space = Self { rules, came_from: vec![(0, 0)], steps: Vec::new(), over: Vec::new() };
        let mut open = VecDeque::from([(0_u32, first)]);
        while let Some((from, world)) = open.pop_front() {
            if world.is_over() {
                space.over.push(from);
            }
            for (place, action) in world.actions().into_iter().enumerate() {
                let next = world.next(&action);
                for (number, promise) in promises.iter().enumerate() {
                    if let Err(what) = promise(&world, action, &next) {
                        let what = format!("{what}, after\n{}{action:?}", space.way(from));
                        return Err(Broken { promise: number, what });
                    }
                }
                let number = space.came_from.len() as u32;
                let to = *known.entry(next.fingerprint()).or_insert(number);
                if to == number {
                    space.came_from.push((from, place as u8));
                    assert!(space.came_from.len() < MOST_STATES, "too many states");
                    open.push_back((to, next));
                }
                if !action.is_fault() {
                    space.steps.push((to, from));
                }
            }
        }
        Ok(space)
    }

    pub(super) fn states(&self) -> usize {
        self.came_from.len()
    }

    /// Checks that from every state all messages can come to their end without another fault.
    ///
    /// # Errors
    /// The shortest path to a state from which they cannot.
    pub(super) fn ends(&self) -> Result<(), String> {
        let mut steps = self.steps.clone();
        steps.sort_unstable();
        let mut ends = vec![false; self.states()];
        let mut open = self.over.clone();
        while let Some(state) = open.pop() {
            if std::mem::replace(&mut ends[state as usize], true) {
                continue;
            }
            let first = steps.partition_point(|(to, _)| *to < state);
            open.extend(steps[first..].iter().take_while(|(to, _)| *to == state).map(|(_, from)| *from));
        }
        match ends.iter().position(|ends| !ends) {
            None => Ok(()),
            Some(stuck) => Err(format!("it never ends, after\n{}", self.way(stuck as u32))),
        }
    }

    /// The actions that lead to a state, one per line.
    fn way(&self, to: u32) -> String {
        let (mut places, mut at) = (Vec::new(), to);
        while at != 0 {
            let (from, place) = self.came_from[at as usize];
            places.push(place);
            at = from;
        }
        let (mut world, mut way) = (World::begin(self.rules), String::new());
        for place in places.into_iter().rev() {
            let action = world.actions()[usize::from(place)];
            way += &format!("{action:?}\n");
            world = world.next(&action);
        }
        way
    }
}
