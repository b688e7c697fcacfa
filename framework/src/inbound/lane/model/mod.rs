//! A small model of two lanes of one queue, each in its process, with everything that may happen to them: tests look at every
//! state that it can reach, and random ways through it are gone on the real lane.

mod change;
mod process;
mod promises;
mod real;
mod replay;
mod search;
mod steps;
mod world;
