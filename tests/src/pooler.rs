//! A PgBouncer in transaction mode in front of a PostgreSQL: whatever is not in a transaction may reach another connection of the
//! server each time.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use postrider::MessageId;

/// The pooler that the tests of a process share. It ends with the last of them that runs.
static SHARED: Mutex<Weak<Pooler>> = Mutex::new(Weak::new());
/// How long it may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);
/// How many connections of the server serve one database: fewer than handlers that run at once.
const SERVER_CONNECTIONS: u32 = 3;
/// Where Debian puts the program.
const PROGRAM: &str = "/usr/sbin/pgbouncer";

/// A running pooler.
#[derive(Debug)]
pub struct Pooler {
    program: Child,
    folder: PathBuf,
    port: u16,
}

impl Pooler {
    /// The pooler in front of the server of this address.
    ///
    /// # Panics
    /// When it does not start; the text says what to do.
    #[must_use]
    pub fn shared(server: &str) -> Arc<Self> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pooler) = shared.upgrade() {
            return pooler;
        }
        let pooler = Arc::new(Self::start(server));
        *shared = Arc::downgrade(&pooler);
        pooler
    }

    fn start(server: &str) -> Self {
        assert!(
            fs::exists(PROGRAM).unwrap_or_default(),
            "this test needs a PgBouncer: run `cargo xtask test --only once`, which installs one; on Debian: apt-get install pgbouncer"
        );
        let folder = std::env::temp_dir().join(format!("postrider-pooler-{}", MessageId::new()));
        fs::create_dir_all(&folder).expect("the temporary folder can be written");
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = free.local_addr().expect("it has an address").port();
        drop(free);
        let configuration = folder.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n* = {}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = {SERVER_CONNECTIONS}\nmax_client_conn = 500\nserver_idle_timeout = 5\n",
            server_of(server)
        );
        fs::write(&configuration, text).expect("the temporary folder can be written");
        // As root it does not run.
        let mut command = Command::new("sh");
        let script =
            "if [ \"$(id -u)\" = 0 ]; then exec setpriv --reuid=nobody --clear-groups \"$@\"; else exec \"$@\"; fi";
        command.args(["-c", script, "sh", PROGRAM, "-q"]).arg(&configuration);
        let program = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let pooler = Self { program: program.expect("sh starts"), folder, port };
        let begin = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(begin.elapsed() < START_LIMIT, "PgBouncer does not listen on port {port}");
            std::thread::sleep(Duration::from_millis(20));
        }
        pooler
    }

    /// The address of a database behind it.
    #[must_use]
    pub fn address(&self, database: &str) -> String {
        format!("postgres://anybody@127.0.0.1:{}/{database}", self.port)
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// What PgBouncer calls the server of an address.
fn server_of(address: &str) -> String {
    let (_, rest) = address.split_once("://").expect("an address");
    let (user, place) = rest.split_once('@').unwrap_or(("postgres", rest));
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    let (place, _) = place.split_once('/').unwrap_or((place, ""));
    let (host, port) = place.split_once(':').unwrap_or((place, "5432"));
    let password = if password.is_empty() { String::new() } else { format!(" password={password}") };
    format!("host={host} port={port} user={user}{password}")
}
