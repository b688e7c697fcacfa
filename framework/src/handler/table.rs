//! Finds the handler for a key.

use std::rc::Rc;

use foldhash::HashMap;
use futures::future::LocalBoxFuture;
use postrider_grammar::{is_wildcard, matches, patterns_overlap};

use crate::handler::{HandlerSpec, Invocation, Lane, Outcome};
use crate::message::Kind;

/// Runs a `&mut self` handler.
pub type ExclusiveFn<S> = for<'a> fn(&'a mut S, &'a mut Invocation) -> LocalBoxFuture<'a, Outcome>;
/// Runs a `&self` handler.
pub type SharedFn<S> = for<'a> fn(&'a S, &'a mut Invocation) -> LocalBoxFuture<'a, Outcome>;

/// How a handler takes the state.
pub enum Run<S> {
    /// `&mut self`: alone, in delivery order.
    Exclusive(ExclusiveFn<S>),
    /// `&self`: beside other such handlers.
    Shared(SharedFn<S>),
}

/// One handler.
pub struct Row<S> {
    /// Its place in the table.
    pub index: usize,
    /// What its attribute says.
    pub spec: HandlerSpec,
    /// The handler itself.
    pub run: Run<S>,
}

impl<S> Row<S> {
    /// Whether it takes `&mut self`.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        matches!(self.run, Run::Exclusive(_))
    }
}

/// The handlers of an actor. Keys are found by hash, patterns by trying one after another.
pub struct Table<S> {
    rows: Vec<Rc<Row<S>>>,
    exact: HashMap<(Lane, Kind, &'static str), usize>,
    patterns: Vec<usize>,
}

impl<S> Default for Table<S> {
    fn default() -> Self {
        Self { rows: Vec::new(), exact: HashMap::default(), patterns: Vec::new() }
    }
}

impl<S> Table<S> {
    /// Adds a `&mut self` handler.
    pub fn exclusive(&mut self, spec: HandlerSpec, run: ExclusiveFn<S>) {
        self.add(spec, Run::Exclusive(run));
    }

    /// Adds a `&self` handler.
    pub fn shared(&mut self, spec: HandlerSpec, run: SharedFn<S>) {
        self.add(spec, Run::Shared(run));
    }

    fn add(&mut self, spec: HandlerSpec, run: Run<S>) {
        let index = self.rows.len();
        if is_wildcard(spec.key) {
            self.patterns.push(index);
        } else {
            self.exact.entry((spec.lane(), spec.kind, spec.key)).or_insert(index);
        }
        self.rows.push(Rc::new(Row { index, spec, run }));
    }

    /// The handler for a message that arrived on a lane.
    #[must_use]
    pub fn find(&self, lane: Lane, kind: Kind, key: &str) -> Option<&Rc<Row<S>>> {
        let exact = self.exact.get(&(lane, kind, key));
        let index = exact.copied().or_else(|| {
            let fits = |spec: &HandlerSpec| spec.lane() == lane && spec.kind == kind && matches(spec.key, key);
            self.patterns.iter().copied().find(|&index| fits(&self.rows[index].spec))
        });
        index.map(|index| &self.rows[index])
    }

    /// All handlers in the order of their methods.
    #[must_use]
    pub fn rows(&self) -> &[Rc<Row<S>>] {
        &self.rows
    }

    /// All pairs of handlers that could both take the same message.
    #[must_use]
    pub fn conflicts(&self) -> Vec<(HandlerSpec, HandlerSpec)> {
        let mut conflicts = Vec::new();
        for (index, first) in self.rows.iter().enumerate() {
            for second in &self.rows[index + 1..] {
                let (a, b) = (first.spec, second.spec);
                if a.kind == b.kind && a.lane() == b.lane() && patterns_overlap(a.key, b.key) {
                    conflicts.push((a, b));
                }
            }
        }
        conflicts
    }
}
