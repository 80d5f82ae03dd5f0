//! Waits for a lock that another command holds, with a warning and with a time limit.
//!
//! A waiter tries again after pauses. After two seconds it looks for the holder and logs one
//! warning. It gives up when one holder has kept the lock for as long as the caller allows. If it
//! finds another holder, the time limit starts again, because then the earlier commands make
//! progress.
//!
//! flock(2) ties a lock to the open file. The tools of a command inherit the open file, so a lock
//! can outlive the process that took it. /proc/PID/fdinfo/FD has a line for each lock on that open
//! file (proc_pid_fdinfo(5)), so it shows the command and its tools. If /proc hides other
//! processes, the waiter does not know the holder and still gives up in time.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::stat::fstat;

use super::{LOCK, clean, lock_file, try_lock};
use crate::sys::flock::Flock;

/// The default time for which one holder may keep a lock. A command on the ports of 1,000 guests
/// takes less; one of its tools may take 30 s.
pub(crate) const LOCK_LIMIT: Duration = Duration::from_secs(120);
/// The time before a waiter looks for the holder.
const WARN_AFTER: Duration = Duration::from_secs(2);
/// The time between two searches for the holder.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The first and the longest pause between two attempts. Many waiters must not take the processor
/// from the holder.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(32);
/// The number of characters of a command line that a message shows.
const SHOWN: usize = 120;

/// A process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process id.
    pub pid: i32,
    /// The shortened command line.
    pub command: String,
    /// Whether a signal has stopped the process.
    pub is_stopped: bool,
    /// The tool that inherited the lock, if there is one.
    pub tool: Option<(i32, String)>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the process {} ({})", self.pid, self.command)?;
        if self.is_stopped {
            f.write_str(", which is stopped")?;
        }
        match &self.tool {
            Some((pid, tool)) => write!(f, " with its tool {pid} ({tool})"),
            None => Ok(()),
        }
    }
}

/// A lock was not free within the time limit.
#[derive(Debug, thiserror::Error)]
#[error(
    "{} is locked by {}, and {} s have passed; wait until that command has ended, or end it",
    path.display(),
    named(.holder),
    limit.as_secs()
)]
#[non_exhaustive]
pub struct LockTimeout {
    /// The lock file.
    pub path: PathBuf,
    /// The process that holds the lock, if it can be found.
    pub holder: Option<Holder>,
    /// The time limit for one holder.
    pub limit: Duration,
}

fn named(holder: &Option<Holder>) -> String {
    holder
        .as_ref()
        .map_or_else(|| "a process that /proc does not show".to_owned(), Holder::to_string)
}

/// Takes the lock of `dir`, which permits changes of its files, and removes incomplete files. Makes
/// `dir` if it is missing.
///
/// # Errors
/// The kernel's error, or [`io::ErrorKind::TimedOut`] with a [`LockTimeout`].
pub(crate) async fn lock(dir: &Path, limit: Duration) -> io::Result<Flock<OwnedFd>> {
    let mut turn = LockWaiter::new(dir.join(LOCK), lock_file(dir)?, limit);
    loop {
        match turn.try_now()? {
            Some(lock) => {
                clean(dir);
                return Ok(lock);
            }
            None => tokio::time::sleep(turn.pause()).await,
        }
    }
}

/// Takes the lock of `dir` on its open lock file, and removes incomplete files, for callers that
/// cannot await. Use it only for locks that are held for a moment.
///
/// # Errors
/// The errors of [`lock`].
pub(crate) fn lock_blocking(
    dir: &Path,
    file: OwnedFd,
    limit: Duration,
) -> io::Result<Flock<OwnedFd>> {
    let mut turn = LockWaiter::new(dir.join(LOCK), file, limit);
    loop {
        match turn.try_now()? {
            Some(lock) => {
                clean(dir);
                return Ok(lock);
            }
            None => std::thread::sleep(turn.pause()),
        }
    }
}

/// A waiter for one lock.
struct LockWaiter {
    path: PathBuf,
    /// The lock file. `None` only inside [`LockWaiter::try_now`] and after it has failed.
    file: Option<OwnedFd>,
    limit: Duration,
    began: Instant,
    /// The time since which the holder has not changed, as far as known.
    since: Instant,
    looked: Option<Instant>,
    holder: Option<Holder>,
    pause: Duration,
}

impl LockWaiter {
    fn new(path: PathBuf, file: OwnedFd, limit: Duration) -> Self {
        let began = Instant::now();
        LockWaiter {
            path,
            file: Some(file),
            limit,
            began,
            since: began,
            looked: None,
            holder: None,
            pause: FIRST_PAUSE,
        }
    }

    fn pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }

    /// Tries once to take the lock. Returns `None` if another process holds it and time is left.
    fn try_now(&mut self) -> io::Result<Option<Flock<OwnedFd>>> {
        let file = self.file.take().ok_or(io::ErrorKind::InvalidInput)?;
        let file = match try_lock(file)? {
            Ok(lock) => return Ok(Some(lock)),
            Err(file) => file,
        };
        if self.is_time_to_look() {
            self.look(&file);
        }
        if self.since.elapsed() >= self.limit {
            let holder = self.holder.take().or_else(|| find(&file));
            let path = self.path.clone();
            let timeout = LockTimeout { path, holder, limit: self.limit };
            return Err(io::Error::new(io::ErrorKind::TimedOut, timeout));
        }
        self.file = Some(file);
        Ok(None)
    }

    fn is_time_to_look(&self) -> bool {
        match self.looked {
            None => self.began.elapsed() >= WARN_AFTER,
            Some(looked) => looked.elapsed() >= LOOK_AGAIN,
        }
    }

    /// Looks for the holder. Logs a warning the first time.
    fn look(&mut self, file: &OwnedFd) {
        let holder = find(file);
        match self.looked {
            None => tracing::warn!(
                "waiting for {}, which is locked by {}",
                self.path.display(),
                named(&holder)
            ),
            Some(_) if is_another(&self.holder, &holder) => self.since = Instant::now(),
            Some(_) => {}
        }
        self.holder = holder;
        self.looked = Some(Instant::now());
    }
}

/// Returns whether the lock has passed to another process. An unknown holder counts as the same
/// one.
fn is_another(before: &Option<Holder>, now: &Option<Holder>) -> bool {
    matches!((before, now), (Some(before), Some(now)) if before.pid != now.pid)
}

/// Finds the holder of the lock on this file.
fn find(file: &OwnedFd) -> Option<Holder> {
    let stat = fstat(file).ok()?;
    let mut pids: Vec<i32> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| has_lock(*pid, stat.st_dev, stat.st_ino))
        .collect();
    // A command is older than its tools and its guards, because it starts them.
    pids.sort_by_key(|pid| started(*pid));
    let pid = *pids.first()?;
    let command = command(pid);
    let tool = pids.into_iter().skip(1).map(|pid| (pid, self::command(pid)));
    let tool = tool.into_iter().find(|(_, tool)| *tool != command);
    Some(Holder { pid, command, is_stopped: is_stopped(pid), tool })
}

/// Returns whether the process has an open file that holds a lock on the file with this identity.
fn has_lock(pid: i32, dev: u64, ino: u64) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files.flatten().any(|fd| {
        // Checks the name first: stat(2) on other open files may wait, for example on a network
        // file system.
        let is_lock =
            fs::read_link(fd.path()).is_ok_and(|to| to.file_name() == Some(LOCK.as_ref()));
        let is_same = || fs::metadata(fd.path()).is_ok_and(|is| (is.dev(), is.ino()) == (dev, ino));
        let info = || {
            let path = format!("/proc/{pid}/fdinfo/{}", fd.file_name().to_string_lossy());
            fs::read_to_string(path).unwrap_or_default()
        };
        let is_held = |line: &str| line.starts_with("lock:") && line.contains("FLOCK");
        is_lock && is_same() && info().lines().any(is_held)
    })
}

/// Returns the fields of /proc/PID/stat after the name, which may contain blanks.
fn fields(pid: i32) -> Vec<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    rest.split(' ').map(str::to_owned).collect()
}

/// Returns the start time of a process in clock ticks since boot (proc_pid_stat(5), field 22).
fn started(pid: i32) -> u64 {
    fields(pid).get(19).and_then(|at| at.parse().ok()).unwrap_or(u64::MAX)
}

fn is_stopped(pid: i32) -> bool {
    fields(pid).first().is_some_and(|state| state == "T" || state == "t")
}

fn command(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let shown: String = text
        .trim_end_matches('\0')
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(SHOWN)
        .collect();
    if shown.is_empty() { "without a command line".to_owned() } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_lock_is_found() {
        let place = tempfile::tempdir().unwrap();
        let file = lock_file(place.path()).unwrap();
        assert_eq!(find(&file), None, "an open file alone is no lock");
        let lock = |limit| lock_blocking(place.path(), lock_file(place.path()).unwrap(), limit);
        let held = lock(Duration::ZERO).unwrap();
        let holder = find(&file).unwrap();
        assert_eq!(holder.pid as u32, std::process::id());
        assert!(!holder.is_stopped && holder.tool.is_none(), "{holder:?}");
        let began = Instant::now();
        let error = lock(Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= Duration::from_millis(50));
        let timeout: LockTimeout = error.downcast().unwrap();
        assert_eq!(timeout.holder, Some(holder));
        drop(held);
        drop(lock(Duration::ZERO).unwrap());
    }

    #[test]
    fn the_time_limit_starts_again_with_another_holder() {
        let holder =
            |pid| Some(Holder { pid, command: String::new(), is_stopped: false, tool: None });
        assert!(is_another(&holder(1), &holder(2)));
        assert!(!is_another(&holder(1), &holder(1)));
        assert!(!is_another(&holder(1), &None) && !is_another(&None, &holder(1)));
    }
}
