//! A private PostgreSQL: started without a service manager, by an unprivileged user, in a fresh folder of the system's temporary
//! directory. Dropping the value ends the server.
//!
//! The test package uses this file as a module and so does `xtask`, so it needs nothing but the standard library.

use std::{
    env, fs,
    io::Read,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

/// The environment variable that tells the tests where PostgreSQL is, and that a caller may set.
pub const ADDRESS_VARIABLE: &str = "POSTRIDER_TEST_POSTGRES";
/// How long a server may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long an orderly stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two checks of an awaited condition.
const TICK: Duration = Duration::from_millis(20);
/// How often a start is tried again on another port.
const START_ATTEMPTS: u32 = 5;
/// The most connections; many tests run at once.
const CONNECTIONS: u32 = 400;
/// Where Debian puts the programs of each version.
const DEBIAN: &str = "/usr/lib/postgresql";
/// Users that may run the server when this program is root, which PostgreSQL refuses.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// Number of this process's next server.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The folder with PostgreSQL's programs, if they are installed.
#[must_use]
pub fn programs() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> =
        fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|entry| entry.path().join("bin")).collect();
    versions.sort();
    versions.reverse();
    versions.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    versions.into_iter().find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
}

/// A PostgreSQL server of our own.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    server: Option<Child>,
}

impl Postgres {
    /// Starts a server on a free port of the loopback address and waits until it answers.
    ///
    /// # Errors
    /// PostgreSQL is not installed, or the server did not come up; the text has its log.
    pub fn start() -> Result<Self, String> {
        let programs = programs().ok_or("PostgreSQL is not installed; on Debian: apt-get install postgresql")?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = env::temp_dir().join(format!("postrider-postgres-{}-{number}", process::id()));
        fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut postgres = Self { programs, folder, port: 0, server: None };
        postgres.give_to_user()?;
        let data = postgres.data().display().to_string();
        let mut init = postgres.program("initdb");
        init.args(["-D", &data, "-U", "postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]);
        output(&mut init)?;
        let mut failure = String::new();
        for _ in 0..START_ATTEMPTS {
            postgres.port = free_port()?;
            match postgres.run() {
                Ok(()) => return Ok(postgres),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Starts the server, or starts it again with what it has.
    ///
    /// # Errors
    /// When it did not come up; the text has its log.
    pub fn run(&mut self) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            // The processes of a killed server need a moment to notice.
            match self.run_once() {
                Err(error) if begin.elapsed() < START_LIMIT && error.contains("still in use") => thread::sleep(TICK),
                ended => return ended,
            }
        }
    }

    fn run_once(&mut self) -> Result<(), String> {
        let _ = fs::remove_file(self.log());
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log());
        let log = log.map_err(|error| format!("{}: {error}", self.log().display()))?;
        let mut server = self.program("postgres");
        server.arg("-D").arg(self.data()).args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        server.arg("-k").arg(&self.folder).arg("-N").arg(CONNECTIONS.to_string());
        let server = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.server = Some(server.map_err(|error| format!("postgres: {error}"))?);
        let begin = Instant::now();
        while begin.elapsed() < START_LIMIT {
            let port = self.port.to_string();
            let mut asks = Command::new(self.programs.join("pg_isready"));
            if output(asks.args(["-q", "-h", "127.0.0.1", "-p", &port])).is_ok() {
                return Ok(());
            }
            if self.server.as_mut().is_some_and(|server| !matches!(server.try_wait(), Ok(None))) {
                break;
            }
            thread::sleep(TICK);
        }
        self.end("KILL");
        Err(format!("PostgreSQL did not come up on port {}:\n{}", self.port, read(&self.log())))
    }

    /// Ends the server at once, as a power cut does; what is committed stays.
    pub fn kill(&mut self) {
        self.end("KILL");
    }

    /// Stops the server and closes all connections.
    pub fn stop(&mut self) {
        self.end("INT");
    }

    /// Suspends the server and all its processes, or lets them go on: connections stay open and nothing answers.
    pub fn freeze(&self, frozen: bool) {
        let (pid, signal) = (self.pid(), if frozen { "STOP" } else { "CONT" });
        // `runuser` stops when the server does, and has to be told to go on as well.
        let parent = self.server.as_ref().map_or_else(String::new, |server| server.id().to_string());
        let parent = if frozen { "" } else { &parent };
        let all = format!("kill -s {signal} {pid} {parent} $(cat /proc/{pid}/task/{pid}/children)");
        let _ = output(Command::new("sh").arg("-c").arg(all));
    }

    /// The number of the server's own process.
    fn pid(&self) -> String {
        let pid = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        pid.lines().next().filter(|pid| pid.chars().all(|digit| digit.is_ascii_digit())).unwrap_or_default().to_owned()
    }

    /// Where clients connect, with the name of a database.
    #[must_use]
    pub fn address(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// A program of PostgreSQL, run by a user whom it accepts.
    fn program(&self, name: &str) -> Command {
        let path = self.programs.join(name);
        match user() {
            Some(user) => {
                let mut command = Command::new("runuser");
                command.args(["-u", user, "--"]).arg(path);
                command.current_dir(&self.folder);
                command
            }
            None => Command::new(path),
        }
    }

    fn give_to_user(&self) -> Result<(), String> {
        let Some(user) = user() else { return Ok(()) };
        output(Command::new("chown").arg(user).arg(&self.folder)).map(drop)
    }

    /// Sends a signal to the server and waits for its end. The server's own process is a child of `runuser`.
    fn end(&mut self, signal: &str) {
        let Some(mut server) = self.server.take() else { return };
        self.freeze(false);
        let pid = self.pid();
        if !pid.is_empty() {
            let _ = output(Command::new("sh").arg("-c").arg(format!("kill -s {signal} {pid}")));
        }
        let begin = Instant::now();
        while begin.elapsed() < STOP_LIMIT && matches!(server.try_wait(), Ok(None)) {
            thread::sleep(TICK);
        }
        let _ = server.kill();
        let _ = server.wait();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end("QUIT");
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The user that runs the server; `None` for the one that runs this program.
fn user() -> Option<&'static str> {
    let is_root = output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    let known = |user: &&str| output(Command::new("id").arg(user)).is_ok();
    USERS.into_iter().filter(|_| is_root).find(known)
}

fn free_port() -> Result<u16, String> {
    // The loopback address gives out ports that nobody has at this moment.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

fn output(command: &mut Command) -> Result<String, String> {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{shown}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{shown}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}

fn read(path: &Path) -> String {
    let mut text = String::new();
    let _ = fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text));
    text
}
