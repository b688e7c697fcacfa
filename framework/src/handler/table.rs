//! Finds the handler for a key.

use std::any::Any;
use std::marker::PhantomData;
use std::rc::Rc;

use foldhash::HashMap;
use futures::future::LocalBoxFuture;
use postrider_grammar::{is_wildcard, matches, patterns_overlap};

use crate::handler::{Actor, FailureClass, HandlerSpec, Invocation, Lane, Outcome};
use crate::message::{Kind, Problem};

/// The state of an actor, whatever its type. What handles messages is compiled once, and not once for each actor.
pub struct State(Box<dyn Any>);

impl State {
    /// The state of an actor of this type.
    #[must_use]
    pub fn new<S: 'static>(state: S) -> Self {
        Self(Box::new(state))
    }
}

/// Runs a `&mut self` handler.
pub type ExclusiveFn<S> = for<'a> fn(&'a mut S, &'a mut Invocation) -> LocalBoxFuture<'a, Outcome>;
/// Runs a `&self` handler.
pub type SharedFn<S> = for<'a> fn(&'a S, &'a mut Invocation) -> LocalBoxFuture<'a, Outcome>;

/// [`ExclusiveFn`] that finds the type of the state itself.
type RunExclusive = dyn for<'a> Fn(&'a mut State, &'a mut Invocation) -> LocalBoxFuture<'a, Outcome>;
/// [`SharedFn`] that finds the type of the state itself.
type RunShared = dyn for<'a> Fn(&'a State, &'a mut Invocation) -> LocalBoxFuture<'a, Outcome>;

/// How a handler takes the state.
pub enum Run {
    /// `&mut self`: alone, in delivery order.
    Exclusive(Box<RunExclusive>),
    /// `&self`: beside other such handlers.
    Shared(Box<RunShared>),
}

impl Run {
    fn exclusive<S: 'static>(run: ExclusiveFn<S>) -> Self {
        Self::Exclusive(Box::new(move |state, invocation| match state.0.downcast_mut() {
            Some(state) => run(state, invocation),
            None => other_state(),
        }))
    }

    fn shared<S: 'static>(run: SharedFn<S>) -> Self {
        Self::Shared(Box::new(move |state, invocation| match state.0.downcast_ref() {
            Some(state) => run(state, invocation),
            None => other_state(),
        }))
    }
}

/// Unreachable, since a table and its state are made for one type.
fn other_state<'a>() -> LocalBoxFuture<'a, Outcome> {
    let text = "the state has another type than its handlers";
    Box::pin(std::future::ready(Outcome::failed(FailureClass::Infrastructure, Problem::FAILED, text)))
}

/// One handler.
pub struct Row {
    /// Its place in the table.
    pub index: usize,
    /// What its attribute says.
    pub spec: HandlerSpec,
    /// The handler itself.
    pub run: Run,
}

impl Row {
    /// Whether it takes `&mut self`.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        matches!(self.run, Run::Exclusive(_))
    }
}

/// The handlers of an actor, as its type lists them.
pub struct Table<S> {
    handlers: Handlers,
    of: PhantomData<fn(S)>,
}

impl<S> Default for Table<S> {
    fn default() -> Self {
        Self { handlers: Handlers::default(), of: PhantomData }
    }
}

impl<S: 'static> Table<S> {
    /// Adds a `&mut self` handler.
    pub fn exclusive(&mut self, spec: HandlerSpec, run: ExclusiveFn<S>) {
        self.handlers.add(spec, Run::exclusive(run));
    }

    /// Adds a `&self` handler.
    pub fn shared(&mut self, spec: HandlerSpec, run: SharedFn<S>) {
        self.handlers.add(spec, Run::shared(run));
    }

    pub(crate) fn into_handlers(self) -> Handlers {
        self.handlers
    }
}

/// The handlers of an actor. Keys are found by hash, patterns by trying one after another.
#[derive(Default)]
pub struct Handlers {
    rows: Vec<Rc<Row>>,
    exact: HashMap<(Lane, Kind, &'static str), usize>,
    patterns: Vec<usize>,
}

impl Handlers {
    /// The handlers of an actor's type.
    #[must_use]
    pub fn of<A: Actor>() -> Self {
        let mut table = Table::<A>::default();
        A::handlers(&mut table);
        table.into_handlers()
    }

    fn add(&mut self, spec: HandlerSpec, run: Run) {
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
    pub fn find(&self, lane: Lane, kind: Kind, key: &str) -> Option<&Rc<Row>> {
        let exact = self.exact.get(&(lane, kind, key));
        let index = exact.copied().or_else(|| {
            let fits = |spec: &HandlerSpec| spec.lane() == lane && spec.kind == kind && matches(spec.key, key);
            self.patterns.iter().copied().find(|&index| fits(&self.rows[index].spec))
        });
        index.map(|index| &self.rows[index])
    }

    /// All handlers in the order of their methods.
    #[must_use]
    pub fn rows(&self) -> &[Rc<Row>] {
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
