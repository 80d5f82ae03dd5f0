//! The logs of the last run of each named launch, in the root of launch directories.
//!
//! ```text
//! ROOT/launch-XXXXXXXX/netlaunch.log  passt.log  qemu.log     while the launch runs
//! ROOT/.logs/NAME/netlaunch.log  passt.log  qemu.log          afterwards
//! ```
//!
//! The end of a launch renames the files; for a killed launch, the removal of its stale directory
//! does so. The logs of a new run replace those of the last one. The next start removes logs that
//! are older than [`AGE`], and the oldest ones of more than [`NAMES`]. The writers bound the size
//! of each file, and every file has mode 0600 in a directory with mode 0700, because the logs have
//! the command line and words of the guest.
//!
//! A launch without a name, and a launch of the library, which has no log of its messages, leave
//! nothing. All errors are ignored: a log is no reason against the end of a launch.

use std::ffi::{OsStr, OsString};
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::stat::Mode;

use crate::sys::dir::Dir;

/// The name of the log with the messages of netlaunch.
pub(crate) const SUPERVISOR_LOG: &str = "netlaunch.log";
/// The name of the log with the output of a QEMU in the background.
pub(crate) const QEMU_LOG: &str = "qemu.log";
/// The directory of kept logs, in the root of launch directories.
const DIR: &str = ".logs";
/// The age at which logs are removed.
const AGE: Duration = Duration::from_secs(7 * 86_400);
/// The number of launches whose logs are kept.
const NAMES: usize = 32;
/// The longest log that is read, in bytes.
#[cfg(feature = "cli")]
const LONGEST: u64 = 1 << 20;

/// Keeps the logs of the launch `name`, which are in the launch directory `dir` of the root.
pub(super) fn keep(root: &Dir, dir: &OsStr, name: &OsStr) {
    if let Err(error) = try_keep(root, dir, name) {
        tracing::debug!(dir = %dir.display(), %error, "cannot keep the logs");
    }
}

fn try_keep(root: &Dir, dir: &OsStr, name: &OsStr) -> io::Result<()> {
    let from = root.sub_dir(dir)?;
    let logs: Vec<OsString> = from.names()?.into_iter().filter(|name| is_log(name)).collect();
    if !logs.iter().any(|log| log == SUPERVISOR_LOG) {
        return Ok(());
    }
    // An error means that it exists, or that the next call fails, too.
    let _ = root.make_dir(DIR.as_ref(), Mode::S_IRWXU);
    let kept = root.sub_dir(DIR.as_ref())?;
    kept.remove_all(name)?;
    kept.make_dir(name, Mode::S_IRWXU)?;
    let to = kept.sub_dir(name)?;
    for log in logs {
        // Not a link, which passt's user could have made.
        if from.open_file(&log)?.is_some() {
            from.move_to(&log, &to)?;
            to.close_to_others(&log)?;
        }
    }
    Ok(())
}

/// Returns whether a file of a launch directory is a log: `netlaunch.log`, `qemu.log`, `passt.log`,
/// `passt-2.log` and so on.
fn is_log(name: &OsStr) -> bool {
    let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".log")) else { return false };
    match stem.strip_prefix("passt-") {
        Some(number) => !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()),
        None => ["netlaunch", "qemu", "passt"].contains(&stem),
    }
}

/// Removes the logs that are too old or too many.
pub(super) fn expire(root: &Dir) {
    let Ok(kept) = root.sub_dir(DIR.as_ref()) else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut names: Vec<(u64, OsString)> = kept
        .names()
        .unwrap_or_default()
        .into_iter()
        .map(|name| (kept.stat_of(&name).map_or(0, |stat| stat.st_mtime.cast_unsigned()), name))
        .collect();
    // The latest one first.
    names.sort_by(|a, b| b.cmp(a));
    for (place, (changed, name)) in names.iter().enumerate() {
        if place >= NAMES || now.saturating_sub(*changed) > AGE.as_secs() {
            let _ = kept.remove_all(name);
        }
    }
    let _ = root.remove_dir(DIR.as_ref());
}

/// Returns the logs in the launch directory `dir`, or with `None` the kept logs of the launch
/// `name`: the name and the text of each file, that of netlaunch first.
///
/// # Errors
/// The kernel's error; `NotFound` if there are none.
#[cfg(feature = "cli")]
pub(super) fn read(
    root: &Dir,
    dir: Option<&OsStr>,
    name: &OsStr,
) -> io::Result<Vec<(String, Vec<u8>)>> {
    let place = match dir {
        Some(dir) => root.sub_dir(dir)?,
        None => root.sub_dir(DIR.as_ref())?.sub_dir(name)?,
    };
    let mut logs = Vec::new();
    for log in place.names()?.into_iter().filter(|name| is_log(name)) {
        if let Some(text) = place.read(&log, LONGEST)? {
            logs.push((log.to_string_lossy().into_owned(), text));
        }
    }
    if logs.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(logs) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;
    use crate::sys::dir::Trust;

    fn root(path: &Path) -> Dir {
        Dir::open(path, Trust::LastDirectory).unwrap()
    }

    fn launch(root: &Path, files: &[&str]) {
        let dir = root.join("launch-a");
        fs::create_dir_all(&dir).unwrap();
        for file in files {
            fs::write(dir.join(file), file).unwrap();
        }
    }

    #[test]
    fn the_logs_of_the_last_run_replace_the_earlier_ones() {
        let dir = tempfile::tempdir().unwrap();
        let root = root(dir.path());
        launch(dir.path(), &["netlaunch.log", "passt.log", "passt-2.log", "passt.pid", "name"]);
        keep(&root, "launch-a".as_ref(), "web".as_ref());
        let kept = dir.path().join(".logs/web");
        let names = |dir: &Path| {
            let mut names: Vec<_> =
                fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&kept), ["netlaunch.log", "passt-2.log", "passt.log"]);
        assert_eq!(names(&dir.path().join("launch-a")), ["name", "passt.pid"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&kept), mode(&kept.join("passt.log"))), (0o700, 0o600));
        launch(dir.path(), &["netlaunch.log"]);
        keep(&root, "launch-a".as_ref(), "web".as_ref());
        assert_eq!(names(&kept), ["netlaunch.log"]);
    }

    #[test]
    fn a_launch_without_the_log_of_netlaunch_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        launch(dir.path(), &["passt.log", "name"]);
        keep(&root(dir.path()), "launch-a".as_ref(), "web".as_ref());
        assert!(!dir.path().join(".logs").exists());
    }

    #[test]
    fn old_logs_and_the_oldest_of_many_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = root(dir.path());
        let kept = dir.path().join(".logs");
        let at = |name: &str, days: u64| {
            let path = kept.join(name);
            fs::create_dir_all(&path).unwrap();
            let time = SystemTime::now() - Duration::from_secs(days * 86_400);
            fs::File::open(&path).unwrap().set_modified(time).unwrap();
        };
        at("old", 8);
        (0..NAMES as u64).for_each(|number| at(&format!("n{number}"), 1));
        at("older-than-n", 3);
        expire(&root);
        let left = fs::read_dir(&kept).unwrap().count();
        assert_eq!(left, NAMES);
        assert!(!kept.join("old").exists() && !kept.join("older-than-n").exists());
        (0..NAMES as u64).for_each(|number| at(&format!("n{number}"), 8));
        expire(&root);
        assert!(!kept.exists(), "an empty directory is removed");
    }
}
