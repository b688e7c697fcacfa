//! The handlers that are measured.

use std::sync::Arc;

use postrider::{App, Failure, distributed};
use postrider_benches::Failed;
use postrider_benches::tally::Tally;
use postrider_benches::work::Work;

/// Takes commands.
pub(crate) struct Working {
    pub(crate) tally: Arc<Tally>,
}

#[distributed(service = "load", prefetch = 256, timeout = "5s")]
impl Working {
    #[distributed(command = "load.work")]
    async fn work(&mut self, work: Work) -> Result<(), Failure> {
        self.tally.count(&work);
        Ok(())
    }
}

/// Answers a query with the message it carried.
#[derive(Default)]
pub(crate) struct Answering;

#[distributed(service = "load", prefetch = 256, timeout = "5s", concurrency = 64)]
impl Answering {
    #[distributed(query = "load.echo")]
    async fn echo(&self, work: Work) -> Result<Work, Failure> {
        Ok(work)
    }
}

/// One of three services that get the same events.
pub(crate) struct Subscribing;

macro_rules! subscribers {
    ($($actor:ident $service:literal),*) => {
        $(
            struct $actor {
                tally: Arc<Tally>,
            }

            #[distributed(service = $service, prefetch = 256, timeout = "5s")]
            impl $actor {
                #[distributed(event = "load.happened")]
                async fn happened(&mut self, work: Work) -> Result<(), Failure> {
                    self.tally.count(&work);
                    Ok(())
                }
            }
        )*

        impl Subscribing {
            /// The app of one of the services.
            pub(crate) fn app(service: &str, tally: &Arc<Tally>) -> Result<App, Failed> {
                let tally = Arc::clone(tally);
                match service {
                    $($service => Ok(App::new($service).actor(move || $actor { tally: Arc::clone(&tally) })),)*
                    other => Err(format!("no such subscriber: {other:?}").into()),
                }
            }
        }
    };
}

subscribers!(First "first", Second "second", Third "third");
