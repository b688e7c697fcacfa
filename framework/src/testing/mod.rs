//! Tools for tests of services, and of adapters for other brokers. They need the feature `testing`.
//!
//! ```
//! use postrider::testing::TestApp;
//! use postrider::{App, Context, Failure, Payload, distributed};
//!
//! #[derive(Default)]
//! struct Counting(u64);
//!
//! #[distributed(service = "counting")]
//! impl Counting {
//!     #[distributed(command = "counting.count")]
//!     async fn count(&mut self, by: u64, cx: &Context) -> Result<(), Failure> {
//!         self.0 += by;
//!         cx.publish_key("counting.counted", Payload::json(&self.0))?;
//!         Ok(())
//!     }
//! }
//!
//! postrider::testing::run(async {
//!     let test = TestApp::start(App::new("counting").actor(Counting::default)).await;
//!     test.bus().send_key("counting.count", Payload::json(&2)).await.unwrap();
//!     test.settled().await;
//!     assert_eq!(test.log().keys(), ["counting.count", "counting.counted"]);
//! });
//! ```
#![allow(clippy::expect_used, clippy::panic, reason = "what tests call fails by panicking")]

pub mod conformance;
mod fault_test;
mod test_app;

pub use crate::adapter::amqp::foreign::ForeignMessage;
pub use crate::adapter::in_process::{Fault, FaultKind, Faults, Step};
pub use fault_test::{FaultReport, FaultTest, MakeApp};
pub use test_app::{Log, TestApp};

/// Runs a test that may start actors. `#[postrider::test]` calls it for you.
///
/// # Panics
/// When the test panics, or inside another runtime, such as that of `#[tokio::test]`.
pub fn run<F: Future>(test: F) -> F::Output {
    assert!(
        tokio::runtime::Handle::try_current().is_err(),
        "a test runs in one runtime, and there is one already: write `#[postrider::test]` instead of `#[tokio::test]`, without `postrider::testing::run`"
    );
    actix_rt::System::new().block_on(test)
}
