//! Starts an app on the calling thread, for tests with a paused clock.

use tokio::sync::oneshot;

use crate::app::builder::App;
use crate::app::launch::life;
use crate::app::launched::Placement;
use crate::app::outcome::StartError;
use crate::app::running::Running;

/// Error for a test that was started without an actix system.
const NO_SYSTEM: &str = "a test starts apps on its own thread, which needs an actor system there: write `#[postrider::test]` instead of `#[tokio::test]`, or run the test in `postrider::testing::run`";

impl App {
    /// Starts the app on the calling thread, which must run an actix system.
    pub(crate) async fn start_here(self) -> Result<Running, StartError> {
        if actix_rt::System::try_current().is_none() {
            return Err(StartError::from(NO_SYSTEM.to_owned()));
        }
        let (started, waiting) = oneshot::channel();
        actix_rt::spawn(life(self, Placement::Here, started));
        waiting.await.map_err(|_| StartError::from("the app ended while it started".to_owned()))?
    }
}
