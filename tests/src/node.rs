//! A private RabbitMQ node: started by its own script, without a service manager, in a fresh folder of the system's
//! temporary directory. Dropping the value ends the node.
//!
//! The test package uses this file as a module and so does `xtask`, so it needs nothing but the standard library.

#[path = "node_os.rs"]
mod os;

use std::{
    env,
    fs::{self, File, OpenOptions},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant, SystemTime},
};

pub use os::{ROOT_VARIABLE, answers, send, server_script, wait_within};
use os::{free_port, inside, is_stopped, on, read_lossy, root, write_secret};

/// How long a node may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long an orderly stop may take.
const STOP_LIMIT: Duration = Duration::from_secs(30);
/// How long a process may take to be gone after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long one `rabbitmqctl` call may take.
const CTL_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two checks of an awaited condition.
const TICK: Duration = Duration::from_millis(20);
/// How often a start is tried again on other ports when another process took the chosen ones in between.
const START_ATTEMPTS: u32 = 3;
/// Lines of the log that an error shows.
const TAIL_LINES: usize = 40;
/// Where `rabbitmqctl` listens; its default range is within the ephemeral ports and only eleven ports long.
const CTL_PORTS: (&str, &str) = ("30100", "30999");

/// Where Erlang looks for the cookie, in HOME. Without one a node makes its own.
const COOKIE: &str = ".erlang.cookie";

/// For `rabbitmqctl eval`: what RabbitMQ does when it is short of memory. Its own monitor needs /proc.
pub const ALARM: &str = "rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []}).";
/// For `rabbitmqctl eval`: memory is available again.
pub const NO_ALARM: &str = "rabbit_alarm:clear_alarm({resource_limit, memory, node()}).";

/// Number of this process's next node, `rabbitmqctl` call or port candidate.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// A RabbitMQ node of our own. Dropping it ends the node and removes its folder.
#[derive(Debug)]
pub struct Node {
    /// Folder of `rabbitmq-server` and `rabbitmqctl`.
    scripts: PathBuf,
    folder: PathBuf,
    name: String,
    port: u16,
    distribution_port: u16,
    /// The running server script. It ends only after the Erlang VM that it started.
    script: Option<Child>,
    /// The Erlang VM.
    pid: Option<u32>,
}

impl Node {
    /// Starts a node on free ports of the loopback address and waits until it speaks AMQP.
    ///
    /// # Errors
    /// RabbitMQ is not installed, or the node did not come up; the text has the last lines of its log.
    pub fn start() -> Result<Node, String> {
        Node::start_with(None)
    }

    /// As [`Node::start`]. Nodes that have the same cookie can form a cluster.
    pub fn start_with(cookie: Option<&str>) -> Result<Node, String> {
        let script =
            server_script().ok_or("rabbitmq-server is not installed; on Debian: apt-get install rabbitmq-server")?;
        let scripts = script.parent().map(Path::to_path_buf).unwrap_or_default();
        let mut failure = String::new();
        for _ in 0..START_ATTEMPTS {
            let mut node = Node::prepare(&scripts, cookie)?;
            match node.launch() {
                Ok(()) => return Ok(node),
                Err(reason) => failure = reason,
            }
            if !read_lossy(&node.log_path()).contains("eaddrinuse") {
                break;
            }
        }
        Err(failure)
    }

    /// The name by which other nodes address this one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where clients connect.
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}", self.port)
    }

    /// The AMQP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Writes a file that the node can read, whatever its root is. Returns its path as the node sees it.
    ///
    /// # Errors
    /// It cannot be written; the text says why.
    pub fn write_file(&self, name: &str, content: &[u8]) -> Result<String, String> {
        let path = self.folder.join(name);
        fs::write(&path, content).map_err(on(&path))?;
        Ok(inside(&path).display().to_string())
    }

    /// Process id of the Erlang VM; `None` while the node is down.
    pub fn pid(&self) -> Option<u32> {
        self.pid
    }

    /// Runs `rabbitmqctl` against this node and returns what it printed.
    ///
    /// # Errors
    /// It could not run, failed or took too long; the text has what it printed.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String, String> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let (out_path, err_path) =
            (self.folder.join(format!("ctl-{number}.out")), self.folder.join(format!("ctl-{number}.err")));
        let mut command = self.program("rabbitmqctl");
        self.set_environment(&mut command);
        command.arg("-n").arg(&self.name).args(arguments).stdin(Stdio::null());
        command
            .stdout(File::create(&out_path).map_err(on(&out_path))?)
            .stderr(File::create(&err_path).map_err(on(&err_path))?);
        let mut child = command.spawn().map_err(|error| format!("rabbitmqctl cannot run: {error}"))?;
        let status = wait_within(&mut child, CTL_LIMIT);
        if status.is_none() {
            // The child is the script or, after its last `exec`, rabbitmqctl itself.
            let _ = child.kill();
            let _ = wait_within(&mut child, KILL_LIMIT);
        }
        let (out, err) = (read_lossy(&out_path), read_lossy(&err_path));
        let _ = (fs::remove_file(&out_path), fs::remove_file(&err_path));
        match status {
            Some(status) if status.success() => Ok(out),
            Some(status) => Err(format!("rabbitmqctl {}: {status}\n{out}{err}", arguments.join(" "))),
            None => Err(format!("rabbitmqctl {}: no end after {CTL_LIMIT:?}\n{out}{err}", arguments.join(" "))),
        }
    }

    /// Ends the Erlang VM with SIGKILL, as a crash does, and waits until it is gone.
    pub fn kill(&mut self) -> Result<(), String> {
        self.end("KILL", KILL_LIMIT)
    }

    /// Stops the node in an orderly way and waits until it is gone.
    pub fn stop(&mut self) -> Result<(), String> {
        self.end("TERM", STOP_LIMIT)
    }

    /// Starts the node again after [`Node::stop`] or [`Node::kill`]: same ports, same data.
    pub fn restart(&mut self) -> Result<(), String> {
        if self.is_up() {
            return Err(format!("{} is still up: stop or kill it first", self.name));
        }
        self.launch()
    }

    /// Stops the node and starts it again with these plugins, and with further lines of configuration.
    pub fn restart_with(&mut self, plugins: &[&str], configuration: &str) -> Result<(), String> {
        self.stop()?;
        for (file, text, append) in [
            ("enabled_plugins", format!("[{}].\n", plugins.join(",")), false),
            ("rabbitmq.conf", format!("{configuration}\n"), true),
        ] {
            let path = self.folder.join(file);
            let before = if append { read_lossy(&path) } else { String::new() };
            fs::write(&path, before + &text).map_err(on(&path))?;
        }
        self.launch()
    }

    /// Halts the Erlang VM with SIGSTOP: connections stay open, the node answers nothing.
    pub fn freeze(&mut self) -> Result<(), String> {
        let pid = self.signal("STOP")?;
        // A thread may go on for a moment.
        let begin = Instant::now();
        while begin.elapsed() < KILL_LIMIT && !is_stopped(pid) {
            thread::sleep(TICK);
        }
        Ok(())
    }

    /// Resumes a frozen node.
    pub fn thaw(&mut self) -> Result<(), String> {
        self.signal("CONT").map(drop)
    }

    /// Folder, name and ports for a node that is not started yet.
    fn prepare(scripts: &Path, cookie: Option<&str>) -> Result<Node, String> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("postrider-{}-{number}", process::id());
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let temporary = root().map_or_else(env::temp_dir, |root| root.join("tmp"));
        let folder = temporary.join(format!("{name}-{}", since.as_nanos()));
        fs::create_dir_all(&folder).map_err(on(&folder))?;
        let mut node = Node {
            scripts: scripts.to_path_buf(),
            folder,
            name: format!("{name}@localhost"),
            port: 0,
            distribution_port: 0,
            script: None,
            pid: None,
        };
        // From here on Drop removes the folder when a step fails.
        for (file, text) in [
            // A small disk must not make the node refuse messages.
            ("rabbitmq.conf", "disk_free_limit.absolute = 10MB\n"),
            ("advanced.config", "[].\n"),
            ("enabled_plugins", "[].\n"),
            ("rabbitmq-env.conf", ""),
        ] {
            let path = node.folder.join(file);
            fs::write(&path, text).map_err(on(&path))?;
        }
        let none = node.folder.join("conf.d");
        fs::create_dir(&none).map_err(on(&none))?;
        if let Some(cookie) = cookie {
            write_secret(&node.folder.join(COOKIE), cookie)?;
        }
        // The listeners hold both ports until both are known, so they differ.
        let (amqp, distribution) = (free_port()?, free_port()?);
        (node.port, node.distribution_port) = (amqp.1, distribution.1);
        Ok(node)
    }

    /// One of the scripts, to be run in its root.
    fn program(&self, name: &str) -> Command {
        let script = self.scripts.join(name);
        let Some(root) = root() else { return Command::new(script) };
        // The server reads /proc. It is mounted in a mount namespace of its own, which ends with the program.
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", r#"mount --rbind /proc "$0/proc" && exec chroot "$0" "$@""#]);
        command.arg(root).arg(inside(&script));
        command
    }

    /// Sets everything that tells server and `rabbitmqctl` which node they are, and removes the machine's own settings.
    fn set_environment(&self, command: &mut Command) {
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("RABBITMQ_") || text.starts_with("ERL_") || text == "NOTIFY_SOCKET" {
                command.env_remove(&name);
            }
        }
        for (variable, file) in [
            ("RABBITMQ_MNESIA_BASE", "data"),
            ("RABBITMQ_LOG_BASE", "log"),
            ("RABBITMQ_PID_FILE", "pid"),
            ("RABBITMQ_CONF_ENV_FILE", "rabbitmq-env.conf"),
            ("RABBITMQ_CONFIG_FILE", "rabbitmq.conf"),
            ("RABBITMQ_CONFIG_FILES", "conf.d"),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", "advanced.config"),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", "enabled_plugins"),
            ("ERL_CRASH_DUMP", "erl_crash.dump"),
        ] {
            command.env(variable, inside(&self.folder.join(file)));
        }
        // Erlang keeps its cookie in HOME; both sides must see the same one.
        command.env("HOME", inside(&self.folder)).env("LC_ALL", "C.UTF-8").current_dir(&self.folder);
        command.env("RABBITMQ_NODENAME", &self.name).env("RABBITMQ_LOGS", "-");
        command.env("RABBITMQ_NODE_IP_ADDRESS", Ipv4Addr::LOCALHOST.to_string());
        command.env("RABBITMQ_NODE_PORT", self.port.to_string());
        command.env("RABBITMQ_DIST_PORT", self.distribution_port.to_string());
        command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}");
        command.env("RABBITMQ_CTL_DIST_PORT_MIN", CTL_PORTS.0).env("RABBITMQ_CTL_DIST_PORT_MAX", CTL_PORTS.1);
    }

    /// Runs the server script and waits for the node's first answer.
    fn launch(&mut self) -> Result<(), String> {
        // A file of an earlier run would name a dead process.
        let _ = fs::remove_file(self.folder.join("pid"));
        let log_path = self.log_path();
        let log = OpenOptions::new().create(true).append(true).open(&log_path).map_err(on(&log_path))?;
        let errors = log.try_clone().map_err(on(&log_path))?;
        let mut command = self.program("rabbitmq-server");
        self.set_environment(&mut command);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        self.script = Some(command.spawn().map_err(|error| format!("rabbitmq-server cannot run: {error}"))?);
        let result = self.await_answer();
        if result.is_err() {
            self.end_by_force();
        }
        result
    }

    /// Waits until the node speaks AMQP and its process id is known.
    fn await_answer(&mut self) -> Result<(), String> {
        let begin = Instant::now();
        while begin.elapsed() < START_LIMIT {
            if !self.is_up() {
                return Err(format!("{} ended while it started\n{}", self.name, self.log_tail()));
            }
            if answers(self.port)
                && let Some(pid) = self.written_pid()
            {
                self.pid = Some(pid);
                return Ok(());
            }
            thread::sleep(TICK);
        }
        Err(format!("{} gave no answer within {START_LIMIT:?}\n{}", self.name, self.log_tail()))
    }

    /// Sends the signal and waits for the end of the Erlang VM and of its script.
    fn end(&mut self, signal: &str, limit: Duration) -> Result<(), String> {
        let pid = self.signal(signal)?;
        // A frozen node ends only after it is resumed. After SIGKILL no process is left to get this signal.
        let _ = self.signal("CONT");
        let gone = self.script.as_mut().is_none_or(|script| wait_within(script, limit).is_some());
        if !gone || send("0", pid) {
            return Err(format!("{} ({pid}) is not gone {limit:?} after SIG{signal}\n{}", self.name, self.log_tail()));
        }
        (self.script, self.pid) = (None, None);
        Ok(())
    }

    /// Sends the Erlang VM a signal.
    fn signal(&mut self, signal: &str) -> Result<u32, String> {
        let pid = self.pid.filter(|_| self.is_up()).ok_or_else(|| format!("{} is down", self.name))?;
        if send(signal, pid) { Ok(pid) } else { Err(format!("cannot send SIG{signal} to {} ({pid})", self.name)) }
    }

    /// Ends all processes of the node, also those of a start that got stuck.
    fn end_by_force(&mut self) {
        if !self.is_up() {
            return;
        }
        self.pid = self.pid.or_else(|| self.written_pid());
        if self.pid.is_some() {
            let _ = self.kill();
        } else if let Some(script) = self.script.as_mut() {
            // There is no process id yet. The script passes SIGTERM on to the Erlang VM.
            send("TERM", script.id());
            let _ = wait_within(script, KILL_LIMIT);
        }
    }

    /// Whether the script runs. While it does, the Erlang VM's process id cannot belong to another process.
    fn is_up(&mut self) -> bool {
        self.script.as_mut().is_some_and(|script| matches!(script.try_wait(), Ok(None)))
    }

    /// The Erlang VM's own output.
    fn written_pid(&self) -> Option<u32> {
        fs::read_to_string(self.folder.join("pid")).ok()?.trim().parse().ok()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    /// Its log.
    pub fn log(&self) -> String {
        read_lossy(&self.log_path())
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let skipped = log.lines().count().saturating_sub(TAIL_LINES);
        log.lines().skip(skipped).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.end_by_force();
        // A node that does not end keeps its data.
        if !self.is_up() {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}
