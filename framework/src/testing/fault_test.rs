//! Runs apps under faults that a seed determines.

use futures::future::select_all;
use tokio::time::{Duration, timeout};

use crate::adapter::in_process::{Fault, Faults, InProcess};
use crate::app::{App, Running};
use crate::bus::Bus;

/// How long a test may take, on its clock.
const TEST_TIMEOUT: Duration = Duration::from_secs(3_600);
/// How many times to start an app that crashes during its start.
const STARTS: u32 = 100;

/// Makes an app, for its first start and for every restart.
pub type MakeApp = Box<dyn Fn() -> App>;

/// Apps under the faults of a seed: confirms are dropped or late, messages are delivered twice, queues stall or are
/// full, channels and connections break, processes crash or are stopped, and restart. Everything runs on one thread
/// with a paused clock, so that a failing seed fails again.
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
    apps: Vec<Process>,
}

/// An app of the test, and how to start it again.
struct Process {
    running: Running,
    make: MakeApp,
    /// The broker with this process's faults.
    broker: InProcess,
}

/// The report of a test under faults.
#[derive(Debug)]
#[non_exhaustive]
pub struct FaultReport {
    /// The faults, in their order.
    pub faults: Vec<Fault>,
    /// How often an app crashed and was restarted.
    pub crashes: u64,
    /// How often an app was stopped in order and restarted.
    pub stops: u64,
}

impl FaultTest {
    /// Starts apps under these faults, and a client app without faults to send with. Pauses the clock.
    ///
    /// # Panics
    /// When an app fails to start for a reason other than a crash; the text has the seed.
    pub async fn start(faults: Faults, apps: impl IntoIterator<Item = MakeApp>) -> Self {
        let seed = faults.seed;
        // The seed also determines jitter.
        fastrand::seed(seed);
        tokio::time::pause();
        let broker = InProcess::new();
        let faulty = broker.with_faults(faults);
        let client = App::new("fault-test").broker(broker.clone()).start_here().await;
        let client = client.unwrap_or_else(|error| panic!("seed {seed}: the client does not start:\n{error}"));
        let mut test = Self { seed, broker, faulty, client, apps: Vec::new() };
        for make in apps {
            let broker = test.faulty.for_another_process();
            let running = test.launch(&make, &broker).await;
            test.apps.push(Process { running, make, broker });
        }
        test
    }

    /// Runs a test while the apps suffer faults, and restarts apps that crash.
    ///
    /// # Panics
    /// When it takes longer than an hour on the test's clock; the text has the seed and the faults.
    pub async fn run<T>(mut self, test: impl AsyncFnOnce(&Bus) -> T) -> (T, FaultReport) {
        let bus = self.client.bus().clone();
        let (mut crashes, mut stops) = (0, 0);
        let running = timeout(TEST_TIMEOUT, async {
            let test = test(&bus);
            tokio::pin!(test);
            loop {
                let ended = self.apps.iter().map(|app| Box::pin(app.ended()));
                let ended =
                    async { if self.apps.is_empty() { std::future::pending().await } else { select_all(ended).await } };
                let (has_crashed, index) = tokio::select! {
                    biased;
                    result = &mut test => return result,
                    (has_crashed, index, _) = ended => (has_crashed, index),
                };
                *(if has_crashed { &mut crashes } else { &mut stops }) += 1;
                let Process { running: gone, make, broker } = self.apps.remove(index);
                gone.stop().await;
                let running = self.launch(&make, &broker).await;
                self.apps.insert(index, Process { running, make, broker });
            }
        });
        let Ok(result) = running.await else {
            panic!("seed {}: not done after {TEST_TIMEOUT:?}; faults: {:?}", self.seed, self.faulty.faults());
        };
        let faults = self.faulty.faults();
        for app in &self.apps {
            app.running.stop().await;
        }
        self.client.stop().await;
        (result, FaultReport { faults, crashes, stops })
    }

    /// The broker, without faults.
    #[must_use]
    pub fn broker(&self) -> &InProcess {
        &self.broker
    }

    async fn launch(&self, make: &MakeApp, broker: &InProcess) -> Running {
        let mut last = String::new();
        for _ in 0..STARTS {
            match make().broker(broker.clone()).start_here().await {
                Ok(running) => return running,
                // It crashed, or lost its connection, while it started.
                Err(error) => last = error.to_string(),
            }
        }
        panic!("seed {}: an app does not start within {STARTS} tries:\n{last}", self.seed);
    }
}

impl Process {
    /// Waits until its connection is permanently gone, or until the fault script stops it. Returns whether it crashed.
    async fn ended(&self) -> bool {
        let mut connection = self.running.connection();
        tokio::select! {
            biased;
            // A closed `watch` channel also means that the app is gone.
            _ = connection.wait_for(|state| !state.up) => true,
            () = self.broker.told_to_stop() => false,
        }
    }
}
