//! What the macros accept, and what they say about mistakes.
//!
//! `ui/pass` is part of this program: it compiles or nothing here runs. `ui/fail` has one mistake per file, and beside
//! it what the compiler says; after a change of texts run this test with `TRYBUILD=overwrite` and read the difference.

#[path = "ui/pass/mod.rs"]
mod pass;

/// Only mistakes go through trybuild: with programs to run it would build them one after another.
#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("ui/fail/*.rs");
}
