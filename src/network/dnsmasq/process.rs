//! Runs dnsmasq as a process that outlives the command that started it.
//!
//! dnsmasq forks into the background once it has opened everything that it needs, and its first
//! process then ends. Status 0 means that dnsmasq serves guests. Any other status means that no
//! dnsmasq runs, and standard error contains the reason. dnsmasq starts with the user id of its
//! record and three capabilities in its ambient set: dnsmasq 2.90 that is not started as root
//! changes neither user nor capabilities, and serves DHCP, DNS, TFTP and router advertisements with
//! these (measured).
//!
//! netlaunch sends signals only to processes that the [`Record`] finds, through descriptors
//! (`ProcessHandle`).

use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use caps::Capability;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::config::{DhcpDns, Range};
use super::error::DnsmasqError;
use super::files::Files;
use super::port_user::{self, PortUser};
use super::record::{ProcessId, Record, only_root, unrecorded};
use crate::sys::process::{ProcessHandle, Spawn, SpawnError, Stdio};
use crate::sys::transient_user::TransientUsers;
use crate::types::{TransientUser, error_text};

/// The time limit until dnsmasq serves. It serves within milliseconds, unless it has to look up
/// names.
pub(super) const READY: Duration = Duration::from_secs(20);
/// The time limit until its processes end, before they are killed, and again afterwards.
const END_LIMIT: Duration = Duration::from_secs(5);
/// The number of searches for its processes while they are ended: one may have forked in the
/// meantime.
const ROUNDS: usize = 4;
/// The capabilities that dnsmasq needs: to bind to one interface and change the ARP table, to ping
/// an address before leasing it, and to serve ports below 1024.
pub(super) const CAPABILITIES: [Capability; 3] =
    [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW, Capability::CAP_NET_BIND_SERVICE];

/// The fate of the lease file when dnsmasq stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leases {
    /// The file stays: guests get the same addresses from the next dnsmasq.
    Keep,
    /// The file is removed.
    Remove,
}

/// Makes the records of dnsmasqs that start together, with one search for free user ids.
#[derive(Debug, Default)]
pub struct Planner {
    /// The free ids, or the reason why there are none; `None` before the search.
    users: Option<Result<TransientUsers, String>>,
}

impl Planner {
    /// Returns the record of a dnsmasq that is about to start, like [`Dnsmasq::plan`].
    ///
    /// # Errors
    /// Returns the errors of [`Dnsmasq::plan`].
    pub fn plan(&mut self, program: &Path, config: &DhcpDns) -> Result<Record, DnsmasqError> {
        let find = || TransientUsers::find().map_err(|error| error_text(&error));
        let user = match self.users.get_or_insert_with(find) {
            Err(why) => Err(why.clone()),
            Ok(_) if !config.files.are_reachable(program) => {
                Err("its files or its program are closed to other users".to_owned())
            }
            Ok(users) => users.pick().map_err(|error| error_text(&error)),
        };
        if let Err(why) = &user {
            let whose = if only_root() {
                "as root of this user namespace"
            } else {
                "under its own account"
            };
            tracing::info!(
                "dnsmasq for {} runs {whose}, whose other processes can end it: {why}",
                config.interface
            );
        }
        Record::plan(user.ok()).map_err(DnsmasqError::Proc)
    }
}

/// A running dnsmasq. Dropping this value does not end it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dnsmasq {
    process: ProcessId,
    files: Files,
}

impl Dnsmasq {
    /// Returns the record of a dnsmasq that is about to start. Its user is a transient one, or
    /// dnsmasq's own account if there is no transient user or if that user could not reach the
    /// files or the program.
    ///
    /// # Errors
    /// Returns an error if /proc is not mounted.
    pub fn plan(program: &Path, config: &DhcpDns) -> Result<Record, DnsmasqError> {
        Planner::default().plan(program, config)
    }
    /// Writes the files and starts the program at `program`. Returns when dnsmasq serves; `record`
    /// then contains its process.
    ///
    /// The directory of [`DhcpDns::files`] must exist. An existing lease file is used. The caller
    /// saves `record` before this call, and again afterwards.
    ///
    /// # Errors
    /// Returns [`DnsmasqError`]; then no dnsmasq runs, and only an earlier lease file is left.
    pub async fn start(
        program: &Path,
        config: &DhcpDns,
        record: &mut Record,
    ) -> Result<Self, DnsmasqError> {
        let text = config.render()?;
        let interface = config.interface.to_string();
        // A new record has a user that no process had, so there is nothing to find.
        let is_new = record.process.is_none() && record.user.is_some();
        if !is_new && let Some(running) = Dnsmasq::find(Some(record), &config.files) {
            return Err(DnsmasqError::Running { interface, pid: running.pid() });
        }
        let leases = if config.files.leases.exists() { Leases::Keep } else { Leases::Remove };
        let started = async {
            config.files.prepare(&text, record.transient())?;
            serve(program, config, record, interface).await
        };
        match started.await {
            Ok(running) => {
                record.process = Some(running.process);
                Ok(running)
            }
            Err(error) => {
                // The caller needs the error of the start, not of the stop.
                let _ = Dnsmasq::stop(Some(record), &config.files, leases).await;
                Err(error)
            }
        }
    }

    /// Returns the dnsmasq of this record, if its own process runs. Without a record, returns the
    /// dnsmasq of an earlier netlaunch version with these files.
    pub fn find(record: Option<&Record>, files: &Files) -> Option<Self> {
        let process = match record {
            Some(record) => record.daemon(files)?,
            None => unrecorded(files)?,
        };
        Some(Dnsmasq { process, files: files.clone() })
    }

    /// Returns its process number.
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    /// Returns whether it still runs.
    pub fn is_running(&self) -> bool {
        self.handle().is_ok_and(|handle| handle.is_some_and(|handle| handle.is_running()))
    }

    /// Returns whether a signal such as SIGSTOP has stopped it (proc(5), the state in `stat`).
    pub fn is_stopped(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.pid));
        let state = stat
            .ok()
            .and_then(|stat| stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()));
        state.is_some_and(|state| ['T', 't'].contains(&state))
    }

    fn handle(&self) -> io::Result<Option<ProcessHandle>> {
        ProcessHandle::open(Pid::from_raw(self.pid()), self.process.started)
    }

    /// Replaces the lists of hosts ([`DhcpDns::hosts`], [`super::Dns::hosts`]) and makes dnsmasq
    /// read them again. Every other change needs a new start.
    ///
    /// # Errors
    /// Returns an error if a value is not valid, a file cannot be written, or dnsmasq has ended.
    pub fn reload(&self, config: &DhcpDns) -> Result<(), DnsmasqError> {
        self.files.write_hosts(&config.render()?)?;
        let pid = self.pid();
        let failed = |source| DnsmasqError::Signal { pid, source };
        let there = match self.handle().map_err(failed)? {
            Some(handle) => handle.signal(Signal::SIGHUP).map_err(failed)?,
            None => false,
        };
        if there { Ok(()) } else { Err(DnsmasqError::Gone(pid)) }
    }

    /// Ends the dnsmasq of this record, if it runs, and removes the files; without a record, that
    /// of an earlier netlaunch version. Continues after a failure, and returns the errors.
    pub async fn stop(record: Option<&Record>, files: &Files, leases: Leases) -> Vec<DnsmasqError> {
        let mut failed = Vec::new();
        if let Err(error) = Dnsmasq::end(record, files).await {
            failed.push(error);
            // The next command needs the files to find the process, so they stay.
            return failed;
        }
        failed.extend(files.remove(leases));
        failed
    }

    /// Ends all processes of a dnsmasq: sends SIGTERM first, then SIGKILL. Its files stay.
    ///
    /// # Errors
    /// Returns an error if a process cannot be signalled or does not end.
    pub async fn end(record: Option<&Record>, files: &Files) -> Result<(), DnsmasqError> {
        // dnsmasq ends its forks. So the recorded process gets its signal before the search for
        // others, and usually one search shows that no process is left.
        let recorded = record.filter(|record| record.process.is_some());
        let recorded = recorded.and_then(|record| record.daemon(files));
        signal_and_wait(recorded.as_slice(), Signal::SIGTERM).await?;
        for round in 0..ROUNDS {
            let left = processes(record, files);
            let is_stuck = recorded.is_some_and(|process| left.contains(&process));
            let order = if round == 0 && !is_stuck { Signal::SIGTERM } else { Signal::SIGKILL };
            if !signal_and_wait(&left, order).await? {
                return Ok(());
            }
        }
        match processes(record, files).first() {
            Some(process) => Err(DnsmasqError::Stuck(process.pid)),
            None => Ok(()),
        }
    }
}

/// Sends a signal to these processes and waits until they have ended, or for [`END_LIMIT`]. Returns
/// whether one of them ran.
async fn signal_and_wait(processes: &[ProcessId], order: Signal) -> Result<bool, DnsmasqError> {
    let mut handles = Vec::new();
    for process in processes {
        let pid = Pid::from_raw(process.pid);
        let failed = |source| DnsmasqError::Signal { pid: process.pid, source };
        if let Some(handle) = ProcessHandle::open(pid, process.started).map_err(failed)? {
            handle.signal(order).map_err(failed)?;
            // A stopped process handles SIGTERM only after SIGCONT.
            handle.signal(Signal::SIGCONT).map_err(failed)?;
            handles.push(handle);
        }
    }
    let last = Instant::now() + END_LIMIT;
    for handle in &handles {
        handle.ended(last.saturating_duration_since(Instant::now())).await;
    }
    Ok(!handles.is_empty())
}

fn processes(record: Option<&Record>, files: &Files) -> Vec<ProcessId> {
    match record {
        Some(record) => record.processes(files),
        None => unrecorded(files).into_iter().collect(),
    }
}

/// Starts dnsmasq and waits until it serves.
async fn serve(
    program: &Path,
    config: &DhcpDns,
    record: &Record,
    interface: String,
) -> Result<Dnsmasq, DnsmasqError> {
    let files = &config.files;
    let ran = tokio::time::timeout(READY, run(program, files, record.transient())).await;
    let Ended { first, status, stderr } = match ran {
        Err(_) => return Err(DnsmasqError::Slow { interface }),
        Ok(Ok(ended)) => ended,
        Ok(Err(source)) if absent(&source) => {
            return Err(DnsmasqError::Missing(program.to_owned()));
        }
        Ok(Err(source)) => {
            return Err(DnsmasqError::Start { interface, program: program.to_owned(), source });
        }
    };
    if status.success() {
        let process = record.daemon_after(first, files).ok_or_else(|| DnsmasqError::Refused {
            interface,
            words: "dnsmasq ended right after its start; see the system log".to_owned(),
        })?;
        return Ok(Dnsmasq { process, files: files.clone() });
    }
    let words = words(&String::from_utf8_lossy(&stderr))
        .unwrap_or_else(|| format!("dnsmasq ended with {status} and without a message"));
    if words.contains("Address already in use")
        && let Some(user) = port_user_of(config, &words)
    {
        return Err(DnsmasqError::PortInUse { interface, user });
    }
    Err(DnsmasqError::Refused { interface, words })
}

/// Returns the program that uses a port that dnsmasq could not get.
fn port_user_of(config: &DhcpDns, words: &str) -> Option<PortUser> {
    let v6 = |range: &Range| !matches!(range, Range::V4 { .. } | Range::V4Hosts { .. });
    let mut ports = Vec::new();
    if config.ranges.iter().any(|range| !v6(range)) {
        ports.push((67, "udp"));
    }
    if config.ranges.iter().any(v6) {
        ports.push((547, "udp"));
    }
    // dnsmasq's message contains the kind of server, but not the port.
    if !words.contains("DHCP") {
        ports.clear();
        ports.extend(config.dns.as_ref().map(|_| [(53, "udp"), (53, "tcp")]).into_iter().flatten());
        ports.extend(config.tftp_root.as_ref().map(|_| (69, "udp")));
    }
    let addresses = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let own = addresses.filter(|one| one.interface_name == config.interface.as_str());
    let own: Vec<std::net::IpAddr> = own
        .filter_map(|one| one.address)
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
            v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
        })
        .collect();
    let own_dir = config.files.conf.parent().and_then(Path::parent).unwrap_or(Path::new(""));
    port_user::find(&ports, &own, own_dir)
}

/// The first process of a dnsmasq, which has ended.
struct Ended {
    /// Its number.
    first: Pid,
    status: ExitStatus,
    /// Its error message.
    stderr: Vec<u8>,
}

/// Runs dnsmasq's first process to its end.
async fn run(program: &Path, files: &Files, user: Option<TransientUser>) -> io::Result<Ended> {
    // This keeps dnsmasq from reading /etc/dnsmasq.conf.
    let mut conf = std::ffi::OsString::from("--conf-file=");
    conf.push(&files.conf);
    // An empty path means no pid file.
    let mut pid = std::ffi::OsString::from("--pid-file=");
    if user.is_none() {
        pid.push(&files.pid);
    }
    let (error_end, mut error) = pipe::pipe().map(|(tx, rx)| (tx.into_blocking_fd(), rx))?;
    let mut argv = vec![program.as_os_str().to_owned(), conf, pid];
    if user.is_none() && only_root() {
        // An empty group keeps dnsmasq from changing its groups, which is not permitted here.
        argv.extend(["--user=root", "--group="].map(std::ffi::OsString::from));
    }
    let mut spawn = Spawn::new(program, &argv)
        .env(&[("LC_ALL".into(), "C".into())])
        .stdio(Stdio::Null, Stdio::Null, Stdio::Fd(error_end?))
        .own_group();
    if let Some(user) = user {
        spawn = spawn.transient(user, &CAPABILITIES);
    }
    let mut child = spawn.start().map_err(io::Error::other)?;
    let mut stderr = Vec::new();
    error.read_to_end(&mut stderr).await?;
    Ok(Ended { first: child.pid(), status: child.wait().await, stderr })
}

/// Returns dnsmasq's error message without its name.
pub(super) fn words(stderr: &str) -> Option<String> {
    let lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<&str> =
        lines.map(|line| line.strip_prefix("dnsmasq: ").unwrap_or(line)).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// Returns whether an error means that the program does not exist.
fn absent(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<SpawnError>());
    matches!(inner, Some(SpawnError::Exec { source, .. }) if source.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_words_without_its_name() {
        let stderr = "\ndnsmasq: failed to bind DHCP server socket: Address already in use\n";
        assert_eq!(
            words(stderr).unwrap(),
            "failed to bind DHCP server socket: Address already in use"
        );
        assert_eq!(words("\n \n"), None);
    }
}
