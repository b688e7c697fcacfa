//! A small model of two lanes of one queue, each in its own process, with everything that may happen to them. Tests search every
//! state that it can reach, and take random paths through it on the real lane.

mod change;
mod process;
mod promises;
mod real;
mod replay;
mod search;
mod steps;
mod world;
