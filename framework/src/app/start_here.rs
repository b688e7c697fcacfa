//! Starting on the calling thread, for tests with a paused clock.

use tokio::sync::oneshot;

use crate::app::builder::App;
use crate::app::launch::{Placement, life};
use crate::app::running::{Running, StartError};

impl App {
    /// Starts the app on the calling thread, which must run an actix system.
    pub(crate) async fn start_here(self) -> Result<Running, StartError> {
        let (started, waiting) = oneshot::channel();
        actix_rt::spawn(life(self, Placement::Here, started));
        waiting.await.map_err(|_| StartError::from("the app ended while it started".to_owned()))?
    }
}
