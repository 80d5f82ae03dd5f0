//! Records a dnsmasq so that a later command recognises it.
//!
//! A [`Record`] is made before dnsmasq starts ([`Record::plan`]) and kept by the caller, so that
//! the record exists even if the command is killed right after the start. It contains the boot, the
//! namespaces, a time before which no process of this dnsmasq can have started, and the user id
//! that only this dnsmasq has. Once dnsmasq serves, the record also contains its process: the
//! number and the start time, which together identify one process for ever.
//!
//! [`Record::processes`] finds the process and its forks. It never uses command lines, which any
//! user can imitate. If no transient user id was available, dnsmasq runs under an account that
//! other programs share. A dnsmasq whose process is not recorded yet is then found by its pid file
//! in a directory that only root can enter.

use std::fs;
use std::io;
use std::path::Path;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, Uid, User};
use procfs::FromRead;
use serde::{Deserialize, Serialize};

use super::Files;
use crate::sys::namespace::{
    boot_id, network_namespace, network_namespace_of, pid_namespace, pid_namespace_of,
};
use crate::sys::proc_file;
use crate::types::TransientUser;

/// The number of process numbers after that of dnsmasq's first process at which its daemon is
/// looked for, before the numbers of all processes are listed. It is the number of processes that
/// 20 networks need that start together.
const NEAR: i32 = 64;

/// The record of one start of dnsmasq.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The boot in which it was started.
    pub boot: String,
    /// The network namespace in which it was started, as device and inode number.
    pub network_namespace: String,
    /// The PID namespace of the process numbers, as device and inode number.
    pub pid_namespace: String,
    /// The earliest time at which one of its processes can have started, in clock ticks since the
    /// boot.
    pub since: u64,
    /// The user and group id that only its processes have; `None` for the shared account of
    /// dnsmasq.
    pub user: Option<u32>,
    /// Its serving process; `None` until it serves.
    pub process: Option<ProcessId>,
}

/// A process, identified by its number and its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process number.
    pub pid: i32,
    /// The start time, in clock ticks since the boot.
    pub started: u64,
    /// Its session, which its forks share.
    pub session: i32,
}

/// The properties of a process in /proc.
#[derive(Debug, Clone, Copy)]
struct ProcStat {
    pid: i32,
    started: u64,
    session: i32,
}

impl Record {
    /// Returns the record of a dnsmasq that will start as this user, or under its own account.
    ///
    /// # Errors
    /// Returns an error if /proc is not mounted.
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

    /// Returns the transient user of the dnsmasq.
    pub(super) fn transient(&self) -> Option<TransientUser> {
        self.user.map(|id| TransientUser { uid: id, gid: id })
    }

    /// Returns its running processes, the oldest first.
    pub(super) fn processes(&self, files: &Files) -> Vec<ProcessId> {
        if !self.is_of_this_boot() {
            return Vec::new();
        }
        // The kernel does not reuse a session's number while a process is in the session.
        let daemon = match (self.process, self.user) {
            (Some(process), _) => self.recorded(process),
            (None, Some(_)) => None,
            (None, None) => self.by_pid_file(&files.pid).filter(|_| self.has_numbers_of_here()),
        };
        let is_one = |stat: &ProcStat| {
            daemon.is_some_and(|daemon| daemon.is(stat) || daemon.forked(stat))
                || self.user.is_some_and(|user| self.is_of(user, stat))
        };
        let mut found: Vec<ProcessId> = all().filter(is_one).map(ProcessId::from).collect();
        found.sort_by_key(|process| (Some(*process) != daemon, process.started, process.pid));
        found
    }

    fn is_of_this_boot(&self) -> bool {
        boot_id().ok().as_ref() == Some(&self.boot)
    }

    /// Returns the recorded process, if it runs, with its numbers in this PID namespace.
    fn recorded(&self, process: ProcessId) -> Option<ProcessId> {
        let found = if self.has_numbers_of_here() {
            stat(process.pid).filter(|stat| process.is(stat))
        } else {
            all().find(|stat| {
                stat.started == process.started && self.is_number(stat.pid, process.pid)
            })
        };
        found.map(ProcessId::from)
    }

    /// Returns whether the numbers in this record belong to this PID namespace.
    fn has_numbers_of_here(&self) -> bool {
        pid_namespace().is_ok_and(|own| own == self.pid_namespace)
    }

    /// Returns whether a process has this number in the PID namespace of this record, which is a
    /// nested one.
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

    /// Returns the serving process, if it runs: only the recorded one. Without a recorded process
    /// it is the oldest process of this start.
    ///
    /// Other processes of the same user are not evidence: dnsmasq forks for each TCP connection,
    /// and a guest can keep such a fork running after dnsmasq itself has ended.
    pub(super) fn daemon(&self, files: &Files) -> Option<ProcessId> {
        match self.process {
            Some(process) => self.recorded(process).filter(|_| self.is_of_this_boot()),
            None => self.processes(files).first().copied(),
        }
    }

    /// Returns the serving process like [`Record::daemon`], right after its first process, which
    /// had the number `first`, has ended.
    ///
    /// The kernel gives higher numbers to later processes until it begins at the lowest number
    /// again. So the next process of this user is the daemon, and few processes are looked at: with
    /// 20 networks, a search through all processes for each of them was 4,500 system calls. Its
    /// number is usually so near that not even a list of all numbers is needed.
    pub(super) fn daemon_after(&self, first: Pid, files: &Files) -> Option<ProcessId> {
        let first = first.as_raw();
        let far = first.saturating_add(NEAR);
        let is_one = |stat: &ProcStat| self.user.is_some_and(|user| self.is_of(user, stat));
        let near = (first..far).skip(1).filter_map(stat).find(is_one);
        let next = near.or_else(|| {
            let mut later: Vec<i32> = numbers().filter(|pid| *pid >= far).collect();
            later.sort_unstable();
            later.into_iter().filter_map(stat).find(is_one)
        });
        next.map(ProcessId::from).or_else(|| self.daemon(files))
    }

    /// Returns whether a process has this record's user id and can belong to this start.
    fn is_of(&self, user: u32, stat: &ProcStat) -> bool {
        stat.started >= self.since
            && owner(stat.pid) == Some(user)
            && self.is_in_namespace(stat.pid)
    }

    /// Returns whether a process is in the network namespace of this record. Returns
    /// true if the kernel does not say, as it does to a process without CAP_SYS_PTRACE.
    fn is_in_namespace(&self, pid: i32) -> bool {
        match network_namespace_of(Pid::from_raw(pid)) {
            Ok(namespace) => namespace == self.network_namespace,
            Err(error) => error.kind() == io::ErrorKind::PermissionDenied,
        }
    }

    /// Returns the process in the pid file, which dnsmasq wrote as root into a directory that only
    /// root can enter.
    fn by_pid_file(&self, path: &Path) -> Option<ProcessId> {
        let stat = written(path)?;
        let can_be = stat.started >= self.since
            && owner(stat.pid).is_some_and(|uid| uid != 0 || only_root())
            && self.is_in_namespace(stat.pid)
            && executes_dnsmasq(stat.pid);
        can_be.then(|| ProcessId::from(stat))
    }
}

/// Returns the dnsmasq of an earlier netlaunch version, which kept no record.
///
/// Its pid file belongs to an account that other programs share. So the process must run under such
/// an account in this network namespace, execute dnsmasq, and have the configuration as its only
/// argument. A process of that account can only name another process that it could signal itself.
pub(super) fn unrecorded(files: &Files) -> Option<ProcessId> {
    use std::os::unix::ffi::OsStrExt;
    let stat = written(&files.conf.with_file_name("dnsmasq.pid"))?;
    let line = fs::read(format!("/proc/{}/cmdline", stat.pid)).ok()?;
    let mut expected = b"--conf-file=".to_vec();
    expected.extend(files.conf.as_os_str().as_bytes());
    let arguments: Vec<&[u8]> =
        line.split(|byte| *byte == 0).skip(1).filter(|argument| !argument.is_empty()).collect();
    let accounts = ["dnsmasq", "nobody"].map(|name| User::from_name(name).ok().flatten());
    let uid = owner(stat.pid).map(Uid::from_raw);
    let namespace = network_namespace_of(Pid::from_raw(stat.pid)).ok();
    let is_it = arguments == [expected.as_slice()]
        && accounts.iter().flatten().any(|account| Some(account.uid) == uid)
        && namespace.is_some_and(|of| network_namespace().is_ok_and(|own| of == own))
        && executes_dnsmasq(stat.pid);
    is_it.then(|| ProcessId::from(stat))
}

impl ProcessId {
    fn is(&self, stat: &ProcStat) -> bool {
        (self.pid, self.started) == (stat.pid, stat.started)
    }

    /// Returns whether a process is a fork of this one, which still runs: dnsmasq forks for TCP
    /// queries.
    fn forked(&self, stat: &ProcStat) -> bool {
        stat.session == self.session && stat.started >= self.started
    }
}

impl From<ProcStat> for ProcessId {
    fn from(ProcStat { pid, started, session }: ProcStat) -> Self {
        ProcessId { pid, started, session }
    }
}

/// Returns whether this user namespace maps only root's id, so that dnsmasq cannot change to
/// another account.
pub(super) fn only_root() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let counts =
        map.lines().filter_map(|line| line.split_ascii_whitespace().nth(2)?.parse::<u64>().ok());
    counts.sum::<u64>() == 1
}

/// Returns the time since the boot, in the unit of a process's start time.
fn now() -> io::Result<u64> {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    let (seconds, nanoseconds) = (time.tv_sec() as u64, time.tv_nsec() as u64);
    let ticks = procfs::ticks_per_second();
    Ok(seconds * ticks + nanoseconds * ticks / 1_000_000_000)
}

/// Returns a running process; `None` for a zombie.
fn stat(pid: i32) -> Option<ProcStat> {
    let stat = proc_file::read(format!("/proc/{pid}/stat")).ok()?;
    let stat = procfs::process::Stat::from_read(&stat[..]).ok()?;
    let runs = !matches!(stat.state, 'Z' | 'X');
    runs.then_some(ProcStat { pid, started: stat.starttime, session: stat.session })
}

fn all() -> impl Iterator<Item = ProcStat> {
    numbers().filter_map(stat)
}

/// Returns the numbers of all processes.
fn numbers() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Returns the process whose number a file contains.
fn written(path: &Path) -> Option<ProcStat> {
    stat(fs::read_to_string(path).ok()?.trim().parse().ok()?)
}

/// Returns the real user id of a process. The owner of its directory in /proc can be root for a
/// process that changed its user.
fn owner(pid: i32) -> Option<u32> {
    field(pid, "Uid:")?.split_ascii_whitespace().next()?.parse().ok()
}

/// Returns a line of a process's status (proc_pid_status(5)).
fn field(pid: i32, name: &str) -> Option<String> {
    let status = proc_file::read(format!("/proc/{pid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    status.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned)
}

/// Returns whether a process executes a file named like dnsmasq, as far as this process may know
/// that. The path can differ from the one that was started: that may have been a script around
/// dnsmasq.
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
        let me = ProcessId::from(stat(std::process::id() as i32).unwrap());
        let mut record = Record { process: Some(me), ..Record::plan(None).unwrap() };
        assert_eq!(record.processes(&files).first(), Some(&me));
        for other in [
            Record { process: Some(ProcessId { started: me.started + 1, ..me }), ..record.clone() },
            Record { boot: "another".into(), ..record.clone() },
            Record { pid_namespace: "4:1".into(), ..record.clone() },
            Record { process: None, ..record.clone() },
        ] {
            assert_eq!(other.processes(&files), []);
        }
        // Later versions read this written form.
        record.process = Some(ProcessId { pid: 7, started: 8, session: 6 });
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
