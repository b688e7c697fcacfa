//! Another Debian release in a folder, for its RabbitMQ.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt;

/// Which Debian release has which RabbitMQ.
const RELEASES: [(&str, &str); 1] = [("4.0", "trixie")];

/// The folder of a Debian with this RabbitMQ; created if it is missing. Needs root, because it uses chroot.
pub fn with_rabbitmq(version: &str) -> Result<PathBuf, String> {
    let release = RELEASES.iter().find(|(has, _)| *has == version).map(|(_, release)| *release);
    let Some(release) = release else {
        let known: Vec<&str> = RELEASES.iter().map(|(version, _)| *version).collect();
        return Err(format!("no RabbitMQ {version:?} can be had here; there is: {}", known.join(", ")));
    };
    let target = std::env::current_dir().map_err(|error| error.to_string())?.join("target");
    let folder = target.join(format!("rabbitmq-{version}"));
    if folder.join("usr/lib/rabbitmq/bin").is_dir() {
        return Ok(folder);
    }
    if !apt::usable() {
        return Err(format!("RabbitMQ {version} is taken from Debian {release}: run this as root on Debian"));
    }
    if !Path::new("/usr/sbin/debootstrap").exists() {
        apt::install("debootstrap")?;
    }
    // Built beside it and renamed, so that a half-made folder is not taken for a finished one.
    let making = target.join(format!("rabbitmq-{version}.making"));
    if making.exists() {
        std::fs::remove_dir_all(&making).map_err(|error| format!("{}: {error}", making.display()))?;
    }
    println!("putting Debian {release} with RabbitMQ {version} into {}", folder.display());
    let made = Command::new("debootstrap")
        .args(["--variant=minbase", "--include=rabbitmq-server", release])
        .arg(&making)
        .status()
        .map_err(|error| format!("debootstrap cannot run: {error}"))?;
    if !made.success() {
        return Err(format!("debootstrap failed ({made}); its log is in {}/debootstrap", making.display()));
    }
    std::fs::rename(&making, &folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    Ok(folder)
}
