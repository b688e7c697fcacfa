//! Installing Debian packages, without starting the services that come with them.

use std::{fs, path::PathBuf, time::Duration};

use crate::program::{command, output, run, succeeds};

/// How long one `apt-get` call may take.
const APT_LIMIT: Duration = Duration::from_secs(900);
/// Debian's maintainer scripts run it before they start a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Forbids every start. The comment tells this file from one that the machine's owner wrote.
const POLICY_TEXT: &str = "#!/bin/sh\n# Written by cargo xtask, removed when the installation ends.\nexit 101\n";

/// Whether packages can be installed here: on Debian and its derivatives, as root.
pub fn usable() -> bool {
    succeeds(&["apt-get", "--version"]) && output(&["id", "-u"]).is_ok_and(|id| id == "0")
}

/// Installs the package.
pub fn install(package: &str) -> Result<(), String> {
    println!("installing {package} with apt-get");
    let _policy = Policy::establish(POLICY.into())?;
    // One source that cannot be reached does no harm if another one has the package.
    let updated = run(&mut command(&["apt-get", "update", "-q"]), APT_LIMIT);
    let mut install = command(&["apt-get", "install", "-q", "-y", "--no-install-recommends", package]);
    run(install.env("DEBIAN_FRONTEND", "noninteractive"), APT_LIMIT).map_err(|error| match updated {
        Ok(()) => error,
        Err(before) => format!("{before}; {error}"),
    })
}

/// Forbids service starts as long as this value lives.
struct Policy {
    path: PathBuf,
    ours: bool,
}

impl Policy {
    fn establish(path: PathBuf) -> Result<Policy, String> {
        let present = fs::read_to_string(&path);
        // An interrupted run may have left our file behind.
        let ours = present.as_ref().map_or(true, |text| text == POLICY_TEXT);
        let policy = Policy { path, ours };
        if ours {
            let name = policy.path.display().to_string();
            fs::write(&policy.path, POLICY_TEXT).map_err(|error| format!("{name}: {error}"))?;
            output(&["chmod", "755", &name])?;
        }
        Ok(policy)
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if self.ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{env, process};

    use super::*;

    #[test]
    fn only_our_own_policy_is_removed() {
        let path = env::temp_dir().join(format!("postrider-policy-{}", process::id()));
        let name = path.display().to_string();
        drop(Policy::establish(path.clone()).unwrap());
        assert!(!path.exists());

        fs::write(&path, POLICY_TEXT).unwrap();
        let policy = Policy::establish(path.clone()).unwrap();
        assert!(output(&[&name]).unwrap_err().contains("101"));
        drop(policy);
        assert!(!path.exists());

        fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
        drop(Policy::establish(path.clone()).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "#!/bin/sh\nexit 0\n");
        fs::remove_file(&path).unwrap();
    }
}
