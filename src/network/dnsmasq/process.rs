//! dnsmasq as a process that outlives the command that started it.
//!
//! dnsmasq forks itself into the background once everything that it needs is open, and its first
//! process ends then: status 0 means that guests are being served, any other that nothing is, with
//! the reason on standard error. It is started with the user id of its record and three capabilities
//! in its ambient set: dnsmasq 2.90 that is not started as root changes neither user nor
//! capabilities, and serves DHCP, DNS, TFTP and router advertisements so (measured).
//!
//! Signals go to processes that the [`Record`] finds, through descriptors
//! ([`Handle`](crate::process::Handle)), and to no other process.

use std::io;
use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use caps::Capability;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::config::DhcpDns;
use super::error::DnsmasqError;
use super::files::Files;
use super::record::{Known, Record, unrecorded};
use crate::process::{Handle, Spawn, SpawnError, Stdio};
use crate::types::TransientUser;

/// How to get dnsmasq where it is missing.
pub const INSTALL: &str =
    "install dnsmasq-base (Debian, Ubuntu) or dnsmasq (Fedora, Arch, SUSE, Alpine)";
/// How long dnsmasq may take to serve. It is ready within milliseconds, unless it has to look up
/// names.
pub(super) const READY: Duration = Duration::from_secs(20);
/// How long its processes may take to end before they are killed, and then once more.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often its processes are looked for while they are ended: one may have forked just then.
const ROUNDS: usize = 4;
/// The capabilities that dnsmasq needs: to bind to one interface and change the ARP table, to ping an address before
/// it leases that, and to serve ports below 1024.
const CAPABILITIES: [Capability; 3] =
    [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW, Capability::CAP_NET_BIND_SERVICE];

/// What becomes of the file of leases when dnsmasq stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leases {
    /// It stays: guests get the same addresses from the next one.
    Keep,
    /// It goes.
    Remove,
}

/// A running dnsmasq. Dropping this changes nothing: it outlives us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dnsmasq {
    known: Known,
    files: Files,
}

impl Dnsmasq {
    /// The record of a dnsmasq that is about to be started. Its user is a transient one; where there
    /// is none, or it could not reach the files or the program, it is dnsmasq's own account.
    ///
    /// # Errors
    /// There is no /proc.
    pub fn plan(program: &Path, config: &DhcpDns) -> Result<Record, DnsmasqError> {
        let user = match TransientUser::pick() {
            Ok(user) if config.files.are_reachable(program) => Ok(user),
            Ok(_) => Err("its files or its program are closed to other users".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = &user {
            tracing::info!(
                "dnsmasq for {} runs under its own account, whose other processes can end it: {why}",
                config.interface
            );
        }
        Record::plan(user.ok()).map_err(DnsmasqError::Proc)
    }

    /// Writes the files and starts the program at `program`; returns when it serves, and then
    /// `record` has its process.
    ///
    /// The directory of [`DhcpDns::files`] must exist. A file of leases from before is used. The
    /// caller keeps `record` somewhere before this is called, and again afterwards.
    ///
    /// # Errors
    /// [`DnsmasqError`]; then nothing runs and no file is left, but one of leases from before.
    pub async fn start(
        program: &Path,
        config: &DhcpDns,
        record: &mut Record,
    ) -> Result<Self, DnsmasqError> {
        let text = config.render()?;
        let interface = config.interface.to_string();
        if let Some(running) = Dnsmasq::find(Some(record), &config.files) {
            return Err(DnsmasqError::Running { interface, pid: running.pid() });
        }
        let leases = if config.files.leases.exists() { Leases::Keep } else { Leases::Remove };
        let started = async {
            config.files.prepare(&text, record.transient())?;
            serve(program, config, record, interface).await
        };
        match started.await {
            Ok(running) => {
                record.process = Some(running.known);
                Ok(running)
            }
            Err(error) => {
                // The start's own error is the one to report.
                let _ = Dnsmasq::stop(Some(record), &config.files, leases).await;
                Err(error)
            }
        }
    }

    /// The dnsmasq of this record, if its own process runs; without a record, that of an earlier netlaunch with
    /// these files.
    pub fn find(record: Option<&Record>, files: &Files) -> Option<Self> {
        let known = match record {
            Some(record) => record.daemon(files)?,
            None => unrecorded(files)?,
        };
        Some(Dnsmasq { known, files: files.clone() })
    }

    /// Its process number.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.known.pid)
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.handle().is_ok_and(|handle| handle.is_some_and(|handle| handle.is_running()))
    }

    fn handle(&self) -> io::Result<Option<Handle>> {
        Handle::open(self.pid(), self.known.started)
    }

    /// Replaces the lists of hosts ([`DhcpDns::hosts`], [`super::Dns::hosts`]) and has them read
    /// again. Everything else needs a new start.
    ///
    /// # Errors
    /// A value or file, or dnsmasq is gone.
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

    /// Ends the dnsmasq of this record, if it runs, and removes the files; without a record, that of
    /// an earlier netlaunch. Goes on where something fails, and returns what failed.
    pub async fn stop(record: Option<&Record>, files: &Files, leases: Leases) -> Vec<DnsmasqError> {
        let mut failed = Vec::new();
        if let Err(error) = Dnsmasq::end(record, files).await {
            failed.push(error);
            // The files by which the next command finds it stay.
            return failed;
        }
        failed.extend(files.remove(leases));
        failed
    }

    /// Ends all processes of a dnsmasq together: asks them, then kills them. Its files stay.
    ///
    /// # Errors
    /// A process cannot be signalled, or does not end.
    pub async fn end(record: Option<&Record>, files: &Files) -> Result<(), DnsmasqError> {
        for round in 0..ROUNDS {
            let order = if round == 0 { Signal::SIGTERM } else { Signal::SIGKILL };
            let mut handles = Vec::new();
            for known in processes(record, files) {
                let pid = Pid::from_raw(known.pid);
                let failed = |source| DnsmasqError::Signal { pid, source };
                if let Some(handle) = Handle::open(pid, known.started).map_err(failed)? {
                    handle.signal(order).map_err(failed)?;
                    handles.push(handle);
                }
            }
            let last = Instant::now() + PATIENCE;
            for handle in &handles {
                handle.ended(last.saturating_duration_since(Instant::now())).await;
            }
            if handles.is_empty() {
                return Ok(());
            }
        }
        match processes(record, files).first() {
            Some(known) => Err(DnsmasqError::Stuck(Pid::from_raw(known.pid))),
            None => Ok(()),
        }
    }
}

fn processes(record: Option<&Record>, files: &Files) -> Vec<Known> {
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
    let (status, stderr) = match ran {
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
        return Dnsmasq::find(Some(record), files).ok_or_else(|| DnsmasqError::Refused {
            interface,
            words: "it ended right after it had started; look into the system log".to_owned(),
        });
    }
    let words = words(&String::from_utf8_lossy(&stderr))
        .unwrap_or_else(|| format!("it ended with {status} and no word why"));
    Err(DnsmasqError::Refused { interface, words })
}

/// Runs dnsmasq's first process to its end. Returns how it ended, and its complaints.
async fn run(
    program: &Path,
    files: &Files,
    user: Option<TransientUser>,
) -> io::Result<(ExitStatus, Vec<u8>)> {
    // This keeps dnsmasq from reading /etc/dnsmasq.conf.
    let mut conf = std::ffi::OsString::from("--conf-file=");
    conf.push(&files.conf);
    // An empty name means no pid file.
    let mut pid = std::ffi::OsString::from("--pid-file=");
    if user.is_none() {
        pid.push(&files.pid);
    }
    let (error_end, mut error) = pipe::pipe().map(|(tx, rx)| (tx.into_blocking_fd(), rx))?;
    let mut spawn = Spawn::new(program, &[program.as_os_str().to_owned(), conf, pid])
        .env(&[("LC_ALL".into(), "C".into())])
        .stdio(Stdio::Null, Stdio::Null, Stdio::Fd(error_end?))
        .own_group();
    if let Some(user) = user {
        spawn = spawn.transient(user, &CAPABILITIES);
    }
    let mut child = spawn.start().map_err(io::Error::other)?;
    let mut stderr = Vec::new();
    error.read_to_end(&mut stderr).await?;
    Ok((child.wait().await, stderr))
}

/// dnsmasq's complaint, without its own name before it.
fn words(stderr: &str) -> Option<String> {
    let lines = stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<&str> =
        lines.map(|line| line.strip_prefix("dnsmasq: ").unwrap_or(line)).collect();
    (!lines.is_empty()).then(|| lines.join("; "))
}

/// Whether a program could not be started because there is none.
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
