use futures::future::select_all;
use tokio::time::{Duration, timeout};

use crate::adapter::in_process::{Fault, Faults, InProcess};
use crate::app::{App, Running};
use crate::bus::Bus;

/// How long a test may take, on its clock.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// How often an app that crashes while it starts is started again.
const STARTS: u32 = 100;

/// An app as it is started, and started again.
pub type MakeApp = Box<dyn Fn() -> App>;

/// Apps that suffer the faults of a seed: confirms are dropped, messages come twice, connections break, processes crash
/// and start again. It all happens on one thread with a stopped clock, so that a seed that fails can be made to fail again.
///
/// ```
/// use postrider::testing::{Faults, FaultTest};
/// use postrider::{App, Payload, distributed};
///
/// #[derive(Default)]
/// struct Counting(u64);
///
/// #[distributed(service = "counting")]
/// impl Counting {
///     #[distributed(command = "counting.count")]
///     async fn count(&mut self, by: u64) {
///         self.0 += by;
///     }
/// }
///
/// postrider::testing::run(async {
///     let make = || App::new("counting").actor(Counting::default);
///     let test = FaultTest::start(Faults::seeded(7), [Box::new(make) as _]).await;
///     let (_, ended) = test
///         .run(async |bus| {
///             for number in 0..10 {
///                 bus.send_key("counting.count", Payload::json(&number)).await.unwrap();
///             }
///         })
///         .await;
///     println!("{} faults", ended.faults.len());
/// });
/// ```
pub struct FaultTest {
    seed: u64,
    broker: InProcess,
    faulty: InProcess,
    client: Running,
    apps: Vec<(Running, MakeApp)>,
}

/// What happened in a test under faults.
#[derive(Debug)]
#[non_exhaustive]
pub struct FaultReport {
    /// The faults, in their order.
    pub faults: Vec<Fault>,
    /// How often an app crashed and was started again.
    pub crashes: u64,
}

impl FaultTest {
    /// Starts apps that suffer these faults, and one beside them that does not, to send with. Stops the clock.
    ///
    /// # Panics
    /// When an app does not start for another reason than a crash; the text has the seed.
    pub async fn start(faults: Faults, apps: impl IntoIterator<Item = MakeApp>) -> Self {
        let seed = faults.seed;
        // Jitter too is decided by the seed.
        fastrand::seed(seed);
        tokio::time::pause();
        let broker = InProcess::new();
        let faulty = broker.with_faults(faults);
        let client = App::new("fault-test").broker(broker.clone()).start_here().await;
        let client = client.unwrap_or_else(|error| panic!("seed {seed}: the client does not start:\n{error}"));
        let mut test = Self { seed, broker, faulty, client, apps: Vec::new() };
        for make in apps {
            let running = test.launch(&make).await;
            test.apps.push((running, make));
        }
        test
    }

    /// Runs a test while the apps suffer, and starts those again that crash.
    ///
    /// # Panics
    /// When it takes longer than an hour on the test's clock; the text has the seed and the faults.
    pub async fn run<T>(mut self, test: impl AsyncFnOnce(&Bus) -> T) -> (T, FaultReport) {
        let bus = self.client.bus().clone();
        let mut crashes = 0;
        let running = timeout(PATIENCE, async {
            let test = test(&bus);
            tokio::pin!(test);
            loop {
                let ended = self.apps.iter().map(|(app, _)| Box::pin(crashed(app)));
                let ended = async {
                    if self.apps.is_empty() { std::future::pending().await } else { select_all(ended).await.1 }
                };
                let index = tokio::select! {
                    biased;
                    result = &mut test => return result,
                    index = ended => index,
                };
                crashes += 1;
                let (gone, make) = self.apps.remove(index);
                gone.stop().await;
                let again = self.launch(&make).await;
                self.apps.insert(index, (again, make));
            }
        });
        let Ok(result) = running.await else {
            panic!("seed {}: not done after {PATIENCE:?}; faults: {:?}", self.seed, self.faulty.faults());
        };
        let faults = self.faulty.faults();
        for (app, _) in &self.apps {
            app.stop().await;
        }
        self.client.stop().await;
        (result, FaultReport { faults, crashes })
    }

    /// The broker, without faults.
    #[must_use]
    pub fn broker(&self) -> &InProcess {
        &self.broker
    }

    async fn launch(&self, make: &MakeApp) -> Running {
        let mut last = String::new();
        for _ in 0..STARTS {
            match make().broker(self.faulty.clone()).start_here().await {
                Ok(running) => return running,
                // It crashed, or its connection broke, while it started.
                Err(error) => last = error.to_string(),
            }
        }
        panic!("seed {}: an app does not start within {STARTS} tries:\n{last}", self.seed);
    }
}

/// Waits until the connection of an app is gone for good.
async fn crashed(app: &Running) {
    let mut connection = app.connection();
    // An app whose connection nobody holds any more is gone too.
    let _ = connection.wait_for(|state| !state.up).await;
}
