//! Ports, processes, files and programs, as a node needs them.

use std::{
    env, fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{self, Child, Command, ExitStatus, Stdio},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use super::{NEXT, TICK};

/// How long a listening node may take to answer the protocol header.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Ports below every usual ephemeral range. While a node is down, no outgoing connection can be given its port, so
/// a restart finds it free, and a client that tries again cannot connect to itself.
const FIRST_PORT: u32 = 20_000;
/// How many ports, from `FIRST_PORT` on, are candidates.
const PORT_SPAN: u32 = 10_000;
/// How many candidates are tried for one free port.
const PORT_ATTEMPTS: u32 = 200;
/// The header that opens an AMQP 0-9-1 connection.
const PROTOCOL_HEADER: &[u8] = b"AMQP\0\0\x09\x01";
/// Length of a frame's header plus class and method.
const METHOD_LENGTH: usize = 11;

/// Whether a broker on this port of the loopback address answers the protocol header with `connection.start`.
pub fn answers(port: u16) -> bool {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, ANSWER_LIMIT) else { return false };
    let mut start = [0; METHOD_LENGTH];
    let answered = stream.set_read_timeout(Some(ANSWER_LIMIT)).is_ok()
        && stream.set_write_timeout(Some(ANSWER_LIMIT)).is_ok()
        && stream.write_all(PROTOCOL_HEADER).is_ok()
        && stream.read_exact(&mut start).is_ok();
    // Frame type 1 is a method, and class 10, method 10 is `connection.start`.
    answered && start[0] == 1 && start[7..] == [0, 10, 0, 10]
}

/// Waits for the end of a child process, at most this long.
pub fn wait_within(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let begin = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if begin.elapsed() < limit => thread::sleep(TICK),
            _ => return None,
        }
    }
}

/// Whether all threads of a process are stopped, or it is gone.
pub fn is_stopped(pid: u32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads.map(|thread| fs::read_to_string(thread.path().join("stat")).unwrap_or_default()).all(|stat| {
        let state = stat.rsplit(')').next().unwrap_or_default();
        !state.trim_start().starts_with(['R', 'S', 'D'])
    })
}

/// Sends a signal; `0` only checks whether the process exists. Every machine has the shell's own `kill`.
pub fn send(signal: &str, pid: u32) -> bool {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("kill -s {signal} {pid}")).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// A free port, held until the listener is dropped.
pub(super) fn free_port() -> Result<(TcpListener, u16), String> {
    // Different processes start at different candidates.
    let begin = process::id().wrapping_mul(211);
    for _ in 0..PORT_ATTEMPTS {
        let candidate = FIRST_PORT + begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORT_SPAN;
        let Ok(candidate) = u16::try_from(candidate) else { continue };
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, candidate)) {
            return Ok((listener, candidate));
        }
    }
    Err(format!("no free port from {FIRST_PORT} on after {PORT_ATTEMPTS} attempts"))
}

/// Words for a path that could not be used.
pub(super) fn on(path: &Path) -> impl Fn(io::Error) -> String {
    move |error| format!("{}: {error}", path.display())
}

pub(super) fn read_lossy(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Writes a file that only its owner can read; Erlang accepts no other as its cookie.
pub(super) fn write_secret(path: &Path, text: &str) -> Result<(), String> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(on(path))
}

/// The root folder of another Debian whose RabbitMQ is used instead of this machine's.
pub const ROOT_VARIABLE: &str = "AMQP_ROOT";

pub(super) fn root() -> Option<PathBuf> {
    env::var_os(ROOT_VARIABLE).filter(|root| !root.is_empty()).map(PathBuf::from)
}

/// A path as seen from within the root.
pub(super) fn inside(path: &Path) -> PathBuf {
    let within = root().and_then(|root| path.strip_prefix(root).ok().map(|rest| Path::new("/").join(rest)));
    within.unwrap_or_else(|| path.to_path_buf())
}

/// The script that starts a RabbitMQ server, if one is installed.
///
/// Debian's `/usr/sbin/rabbitmq-server` is not it: that one changes the user. The real one has `rabbitmq-env` beside it.
pub fn server_script() -> Option<PathBuf> {
    let libraries = root().unwrap_or_else(|| PathBuf::from("/")).join("usr/lib/rabbitmq");
    let mut folders = vec![libraries.join("bin")];
    let mut versions: Vec<PathBuf> =
        fs::read_dir(libraries.join("lib")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    versions.sort();
    folders.extend(versions.iter().rev().map(|version| version.join("sbin")));
    if root().is_none() {
        folders.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    }
    let complete = |folder: &PathBuf| {
        ["rabbitmq-server", "rabbitmqctl", "rabbitmq-env"].iter().all(|name| folder.join(name).is_file())
    };
    folders.into_iter().find(complete).map(|folder| folder.join("rabbitmq-server"))
}
