//! The record by which a dnsmasq is recognised by a later command.
//!
//! A [`Record`] is made before dnsmasq starts ([`Record::plan`]) and kept by the caller, so that a
//! command that is killed right after the start leaves enough behind. It has the boot, the
//! namespaces, a start time before which no process of this dnsmasq can have started, and the user
//! id that belongs to this dnsmasq alone. Once dnsmasq serves, the record has its process, too: the
//! number and the start time, which together mean one process for ever.
//!
//! [`Record::processes`] finds the process and its forks. It never looks at command lines, which any
//! user can imitate. Where no transient user id was to be had, dnsmasq runs under an account that
//! other programs share; then a dnsmasq whose process is not recorded yet is found by its pid file
//! in a directory that only root can enter.

use std::fs;
use std::io;
use std::path::Path;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, Uid, User};
use serde::{Deserialize, Serialize};

use super::Files;
use crate::process::{
    boot_id, network_namespace, network_namespace_of, pid_namespace, pid_namespace_of,
};
use crate::types::TransientUser;

/// The record of one start of dnsmasq.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The boot in which it was started.
    pub boot: String,
    /// The network namespace in which it was started, as device and inode number.
    pub network_namespace: String,
    /// The PID namespace that its numbers are of, as device and inode number.
    pub pid_namespace: String,
    /// No process of it started earlier, in clock ticks since the boot.
    pub since: u64,
    /// The user and group id that only its processes have; `None` for dnsmasq's own account.
    pub user: Option<u32>,
    /// Its process; `None` until it serves.
    pub process: Option<Known>,
}

/// A process that cannot be taken for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The process number.
    pub pid: i32,
    /// When it started, in clock ticks since the boot.
    pub started: u64,
    /// Its session, which its forks share.
    pub session: i32,
}

/// A process as /proc shows it.
#[derive(Debug, Clone, Copy)]
struct Seen {
    pid: i32,
    started: u64,
    session: i32,
}

impl Record {
    /// The record of a dnsmasq that is about to be started as this user, or under its own account.
    ///
    /// # Errors
    /// There is no /proc.
    pub fn plan(user: Option<TransientUser>) -> io::Result<Self> {
        Ok(Record {
            boot: boot_id()?,
            network_namespace: network_namespace()?,
            pid_namespace: pid_namespace()?,
            since: now()?,
            user: user.map(|user| user.uid),
            process: None,
        })
    }

    /// Its user as whom it is started.
    pub(super) fn transient(&self) -> Option<TransientUser> {
        self.user.map(|id| TransientUser { uid: id, gid: id })
    }

    /// Its processes that run now, the oldest first.
    pub(super) fn processes(&self, files: &Files) -> Vec<Known> {
        if boot_id().ok().as_ref() != Some(&self.boot) {
            return Vec::new();
        }
        // A session's number stays taken while a process is in it, and no longer.
        let daemon = match (self.process, self.user) {
            (Some(known), _) => self.recorded(known),
            (None, Some(_)) => None,
            (None, None) => self.by_pid_file(&files.pid).filter(|_| self.has_numbers_of_here()),
        };
        let is_one = |seen: &Seen| {
            daemon.is_some_and(|daemon| daemon.is(seen) || daemon.forked(seen))
                || self.user.is_some_and(|user| self.is_of(user, seen))
        };
        let mut found: Vec<Known> = all().filter(is_one).map(Known::from).collect();
        found.sort_by_key(|known| (Some(*known) != daemon, known.started, known.pid));
        found
    }

    /// The recorded process, if it runs, with its numbers in this PID namespace.
    fn recorded(&self, known: Known) -> Option<Known> {
        let found = if self.has_numbers_of_here() {
            seen(known.pid).filter(|seen| known.is(seen))
        } else {
            all().find(|seen| seen.started == known.started && self.is_number(seen.pid, known.pid))
        };
        found.map(Known::from)
    }

    /// Whether the numbers in this record are of this PID namespace.
    fn has_numbers_of_here(&self) -> bool {
        pid_namespace().is_ok_and(|here| here == self.pid_namespace)
    }

    /// Whether a process has this number in the PID namespace of this record, a lower one.
    fn is_number(&self, pid: i32, number: i32) -> bool {
        let innermost = field(pid, "NSpid:").and_then(|all| {
            all.split_ascii_whitespace().next_back().and_then(|last| last.parse().ok())
        });
        innermost == Some(number)
            && match pid_namespace_of(Pid::from_raw(pid)) {
                Ok(namespace) => namespace == self.pid_namespace,
                Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
            }
    }

    /// The process that serves, if it runs: the recorded one alone. A record that has none yet
    /// means the oldest process of this start.
    ///
    /// Other processes of the same user are no sign of life: dnsmasq forks for each TCP connection,
    /// and a guest can keep such a fork alive after dnsmasq itself has ended.
    pub(super) fn daemon(&self, files: &Files) -> Option<Known> {
        let first = self.processes(files).first().copied()?;
        match self.process {
            Some(known) => self.recorded(known).filter(|daemon| *daemon == first),
            None => Some(first),
        }
    }

    /// Whether a process has this record's user id, and can be of this start.
    fn is_of(&self, user: u32, seen: &Seen) -> bool {
        seen.started >= self.since
            && owner(seen.pid) == Some(user)
            && self.is_in_namespace(seen.pid)
    }

    /// Whether a process is in the network namespace of this record, as far as this process may know
    /// that: without CAP_SYS_PTRACE the kernel does not tell.
    fn is_in_namespace(&self, pid: i32) -> bool {
        match network_namespace_of(Pid::from_raw(pid)) {
            Ok(namespace) => namespace == self.network_namespace,
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        }
    }

    /// The process that dnsmasq, then still root, wrote into a directory that only root can enter.
    fn by_pid_file(&self, path: &Path) -> Option<Known> {
        let seen = written(path)?;
        let can_be = seen.started >= self.since
            && owner(seen.pid).is_some_and(|uid| uid != 0)
            && self.is_in_namespace(seen.pid)
            && executes_dnsmasq(seen.pid);
        can_be.then(|| Known::from(seen))
    }
}

/// The dnsmasq that an earlier netlaunch started, which kept no record.
///
/// Its pid file belongs to an account that others share. So the process must be of such an account,
/// in this network namespace, execute dnsmasq, and have the configuration as its only argument. A
/// process of that account can only point at another one that it could signal itself.
pub(super) fn unrecorded(files: &Files) -> Option<Known> {
    use std::os::unix::ffi::OsStrExt;
    let seen = written(&files.conf.with_file_name("dnsmasq.pid"))?;
    let line = fs::read(format!("/proc/{}/cmdline", seen.pid)).ok()?;
    let mut expected = b"--conf-file=".to_vec();
    expected.extend(files.conf.as_os_str().as_bytes());
    let arguments: Vec<&[u8]> =
        line.split(|byte| *byte == 0).skip(1).filter(|argument| !argument.is_empty()).collect();
    let accounts = ["dnsmasq", "nobody"].map(|name| User::from_name(name).ok().flatten());
    let uid = owner(seen.pid).map(Uid::from_raw);
    let namespace = network_namespace_of(Pid::from_raw(seen.pid)).ok();
    let is_it = arguments == [expected.as_slice()]
        && accounts.iter().flatten().any(|account| Some(account.uid) == uid)
        && namespace.is_some_and(|of| network_namespace().is_ok_and(|here| of == here))
        && executes_dnsmasq(seen.pid);
    is_it.then(|| Known::from(seen))
}

impl Known {
    fn is(&self, seen: &Seen) -> bool {
        (self.pid, self.started) == (seen.pid, seen.started)
    }

    /// Whether a process is a fork of this one, which runs: dnsmasq forks for questions over TCP.
    fn forked(&self, seen: &Seen) -> bool {
        seen.session == self.session && seen.started >= self.started
    }
}

impl From<Seen> for Known {
    fn from(Seen { pid, started, session }: Seen) -> Self {
        Known { pid, started, session }
    }
}

/// The time since the boot in the unit of a process's start time.
fn now() -> io::Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    let (seconds, nanoseconds) = (time.tv_sec() as u64, time.tv_nsec() as u64);
    let ticks = procfs::ticks_per_second();
    Ok(seconds * ticks + nanoseconds * ticks / 1_000_000_000)
}

/// A process that runs; `None` for a zombie.
fn seen(pid: i32) -> Option<Seen> {
    let stat = procfs::process::Process::new(pid).and_then(|process| process.stat()).ok()?;
    let runs = !matches!(stat.state, 'Z' | 'X');
    runs.then_some(Seen { pid, started: stat.starttime, session: stat.session })
}

fn all() -> impl Iterator<Item = Seen> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| seen(entry.file_name().to_str()?.parse().ok()?))
}

/// The process whose number a file has.
fn written(path: &Path) -> Option<Seen> {
    seen(fs::read_to_string(path).ok()?.trim().parse().ok()?)
}

/// The real user id of a process. The owner of its directory in /proc would be root for one that
/// changed its user.
fn owner(pid: i32) -> Option<u32> {
    field(pid, "Uid:")?.split_ascii_whitespace().next()?.parse().ok()
}

/// A line of a process's status (proc_pid_status(5)).
fn field(pid: i32, name: &str) -> Option<String> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
}

/// Whether a process executes a file named like dnsmasq, as far as this process may know that. The
/// path can differ from the one that was started: that may have been a script around dnsmasq.
fn executes_dnsmasq(pid: i32) -> bool {
    match fs::read_link(format!("/proc/{pid}/exe")) {
        Ok(path) => path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().windows(7).any(|part| part == b"dnsmasq")),
        Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(dir: &Path) -> Files {
        Files::in_dir(dir)
    }

    #[test]
    fn a_process_is_known_by_number_and_start_time_in_the_same_boot() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        let me = Known::from(seen(std::process::id() as i32).unwrap());
        let mut record = Record { process: Some(me), ..Record::plan(None).unwrap() };
        assert_eq!(record.processes(&files).first(), Some(&me));
        for other in [
            Record { process: Some(Known { started: me.started + 1, ..me }), ..record.clone() },
            Record { boot: "another".into(), ..record.clone() },
            Record { pid_namespace: "4:1".into(), ..record.clone() },
            Record { process: None, ..record.clone() },
        ] {
            assert_eq!(other.processes(&files), []);
        }
        // The written form, which later versions read.
        record.process = Some(Known { pid: 7, started: 8, session: 6 });
        record.boot = "b".into();
        (record.network_namespace, record.pid_namespace) = ("4:2".into(), "4:3".into());
        (record.since, record.user) = (5, Some(1_900_000_000));
        let text = r#"{"boot":"b","network_namespace":"4:2","pid_namespace":"4:3","since":5,"user":1900000000,"process":{"pid":7,"started":8,"session":6}}"#;
        assert_eq!(serde_json::to_string(&record).unwrap(), text);
        assert_eq!(serde_json::from_str::<Record>(text).unwrap(), record);
    }

    #[test]
    fn a_number_in_a_pid_file_alone_is_no_dnsmasq() {
        let dir = tempfile::tempdir().unwrap();
        let files = files(dir.path());
        fs::write(dir.path().join("dnsmasq.pid"), std::process::id().to_string()).unwrap();
        assert_eq!(unrecorded(&files), None);
        fs::create_dir(files.pid.parent().unwrap()).unwrap();
        fs::write(&files.pid, std::process::id().to_string()).unwrap();
        assert_eq!(Record::plan(None).unwrap().processes(&files), []);
    }
}
