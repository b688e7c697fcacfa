//! Runs other programs, each for a limited time.

use std::{
    env, fs, io,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::node::{send, wait_within};

/// How long a program may take that only prints something about itself.
pub const ASK_LIMIT: Duration = Duration::from_secs(30);
/// How long a killed program may take to be gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// The repository's root.
pub fn root() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    own.parent().map(PathBuf::from).unwrap_or(own)
}

/// The cargo that runs us, so that everything is built by one toolchain.
pub fn cargo() -> String {
    env::var("CARGO").unwrap_or_else(|_| "cargo".into())
}

/// A program that works in the repository's root and shares our output.
pub fn command(words: &[&str]) -> Command {
    let mut command = match words.first() {
        Some(&"cargo") => Command::new(cargo()),
        Some(program) => Command::new(program),
        None => Command::new("true"),
    };
    command.args(words.iter().skip(1)).current_dir(root()).stdin(Stdio::null());
    command
}

/// Runs the command until it ends or its time is over.
pub fn run(command: &mut Command, limit: Duration) -> Result<(), String> {
    let text = words_of(command);
    let mut child = command.spawn().map_err(|error| format!("{text}: cannot run: {error}"))?;
    match wait_within(&mut child, limit) {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("{text}: {status}")),
        None => {
            end_all(&mut child);
            Err(format!("{text}: no end after {} s", limit.as_secs()))
        }
    }
}

/// Whether the program runs and exits with success; it prints nothing.
pub fn succeeds(words: &[&str]) -> bool {
    run(command(words).stdout(Stdio::null()).stderr(Stdio::null()), ASK_LIMIT).is_ok()
}

/// Runs the program and returns what it printed; for programs that print little and end soon.
pub fn output(words: &[&str]) -> Result<String, String> {
    let mut command = command(words);
    let text = words_of(&command);
    let cannot = |error: io::Error| format!("{text}: cannot run: {error}");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(cannot)?;
    if wait_within(&mut child, ASK_LIMIT).is_none() {
        end_all(&mut child);
        return Err(format!("{text}: no end after {} s", ASK_LIMIT.as_secs()));
    }
    // The program has ended, and its output waits in the pipes.
    let output = child.wait_with_output().map_err(cannot)?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(format!("{text}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// Ends the child and its descendants, which would otherwise keep files and ports.
fn end_all(child: &mut Child) {
    for pid in descendants(child.id()).into_iter().rev() {
        send("KILL", pid);
    }
    let _ = child.kill();
    let _ = wait_within(child, KILL_LIMIT);
}

/// The command line, as a person would write it.
fn words_of(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = if program == cargo() { "cargo".into() } else { program };
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    std::iter::once(program.into_owned()).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// All processes below this one, parents first. Empty where there is no `/proc`.
fn descendants(of: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name, in parentheses, may contain anything; state and parent come after it.
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    let mut found = vec![of];
    let mut next = 0;
    // A process has one parent, so each is found at most once and this ends.
    while let Some(&parent) = found.get(next) {
        found.extend(parents.iter().filter(|(_, its)| *its == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_program_over_its_time_is_ended_with_all_that_it_started() {
        let begin = Instant::now();
        let script = "sleep 61.5 & sleep 61.5 & wait";
        let error = run(&mut command(&["sh", "-c", script]), Duration::from_millis(500)).unwrap_err();
        assert!(error.contains("no end after"), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(30));
        assert_eq!(output(&["sh", "-c", "grep -lzx 61[.]5 /proc/[0-9]*/cmdline || true"]).unwrap(), "");
    }

    #[test]
    fn failures_name_the_command() {
        let failure = |words: &[&str]| run(command(words).stderr(Stdio::null()), ASK_LIMIT).unwrap_err();
        assert_eq!(failure(&["false"]), "false: exit status: 1");
        let missing = failure(&["postrider-no-such-program", "x"]);
        assert!(missing.starts_with("postrider-no-such-program x: cannot run"), "{missing}");
        assert!(failure(&["cargo", "no-such"]).starts_with("cargo no-such: exit status"));
    }

    #[test]
    fn returns_what_a_program_prints() {
        assert_eq!(output(&["sh", "-c", "echo ' out '; echo err >&2"]), Ok("out".into()));
        let error = output(&["sh", "-c", "echo err >&2; exit 3"]).unwrap_err();
        assert!(error.ends_with("exit status: 3: err"), "{error}");
    }
}
