//! dnsmasq as a process that outlives us.
//!
//! dnsmasq forks itself into the background once everything it needs is open, and its first process
//! ends then: status 0 means that guests are being served, any other that nothing is, with the
//! reason on standard error.
//!
//! A number in a pid file may belong to anybody by now. Ours is the process that has our
//! configuration file as an argument, in just the words we started it with; that is looked at again
//! before each signal.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use procfs::process::Process;

use super::config::{ConfigError, DhcpDns, Files, Rendered};
use crate::process::{SpawnError, capture, started};

/// How to get dnsmasq where it is missing.
pub const INSTALL: &str =
    "install dnsmasq-base (Debian, Ubuntu) or dnsmasq (Fedora, Arch, SUSE, Alpine)";
/// How long dnsmasq may take to serve. It is ready within milliseconds, unless it has to look up
/// names.
const READY: Duration = Duration::from_secs(20);
/// How long it may take to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often is looked whether it has ended.
const STEP: Duration = Duration::from_millis(5);

/// What becomes of the file of leases when dnsmasq stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leases {
    /// It stays: guests get the same addresses from the next one.
    Keep,
    /// It goes.
    Remove,
}

/// Why dnsmasq does not serve, or still does.
#[derive(Debug, thiserror::Error)]
pub enum DnsmasqError {
    /// A value that its files cannot hold.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no such program.
    #[error("dnsmasq is not installed (looked for {}); {INSTALL}", .0.display())]
    Missing(PathBuf),
    /// It cannot be executed.
    #[error("cannot start dnsmasq for {interface}: {source}; check that {} can be run", program.display())]
    Start {
        /// The bridge.
        interface: String,
        /// The program.
        program: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It serves this configuration already.
    #[error("dnsmasq for {interface} runs already as process {pid}; stop it first")]
    Running {
        /// The bridge.
        interface: String,
        /// Its process.
        pid: Pid,
    },
    /// It ended at once, with this to say.
    #[error("dnsmasq cannot serve {interface}: {words}")]
    Refused {
        /// The bridge.
        interface: String,
        /// Its own words.
        words: String,
    },
    /// It became neither ready nor ended.
    #[error("dnsmasq for {interface} was not ready within {} s and was stopped; look into the system log", READY.as_secs())]
    Slow {
        /// The bridge.
        interface: String,
    },
    /// A file cannot be written or removed.
    #[error("cannot {what} {}: {source}; make its directory writable", path.display())]
    File {
        /// Write or remove.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A signal cannot be sent.
    #[error(
        "cannot signal dnsmasq, process {pid}: {source}; run netlaunch as the user who started it"
    )]
    Signal {
        /// Its process.
        pid: Pid,
        /// What the kernel said.
        source: io::Error,
    },
    /// It is none of ours any more.
    #[error("dnsmasq is gone, process {0}; start the network again")]
    Gone(Pid),
    /// Even SIGKILL did not end it.
    #[error("dnsmasq, process {0}, does not end; the kernel log may say more")]
    Stuck(Pid),
}

/// A running dnsmasq. Dropping this changes nothing: it outlives us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dnsmasq {
    pid: Pid,
    files: Files,
}

impl Dnsmasq {
    /// Writes the files and starts the program at `program`; returns when it serves.
    ///
    /// The directory of [`DhcpDns::files`] must exist. A file of leases from before is used.
    ///
    /// # Errors
    /// [`DnsmasqError`]; then nothing runs and no file is left, but one of leases from before.
    pub async fn start(program: &Path, config: &DhcpDns) -> Result<Self, DnsmasqError> {
        let text = config.render()?;
        let interface = config.interface.to_string();
        if let Some(running) = Dnsmasq::find(&config.files) {
            return Err(DnsmasqError::Running { interface, pid: running.pid });
        }
        let leases = if config.files.leases.exists() { Leases::Keep } else { Leases::Remove };
        match serve(program, config, &text, interface).await {
            Ok(running) => Ok(running),
            Err(error) => {
                // The start's own error is the one to tell.
                let _ = Dnsmasq::stop(&config.files, leases).await;
                Err(error)
            }
        }
    }

    /// The dnsmasq that serves the configuration of these files, if one does.
    pub fn find(files: &Files) -> Option<Self> {
        let written = fs::read_to_string(&files.pid).ok().and_then(|text| text.trim().parse().ok());
        let pid = written.map(Pid::from_raw).filter(|pid| is_ours(*pid, files));
        let pid = pid.or_else(|| all(files).first().copied())?;
        Some(Dnsmasq { pid, files: files.clone() })
    }

    /// Its process number.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        is_ours(self.pid, &self.files)
    }

    /// Replaces the lists of hosts ([`DhcpDns::hosts`], [`super::Dns::hosts`]) and has them read
    /// again. Everything else needs a new start.
    ///
    /// # Errors
    /// A value or file, or dnsmasq is gone.
    pub fn reload(&self, config: &DhcpDns) -> Result<(), DnsmasqError> {
        let text = config.render()?;
        write(&self.files.dhcp_hosts, &text.dhcp_hosts)?;
        write(&self.files.dns_hosts, &text.dns_hosts)?;
        if signal(self.pid, &self.files, Signal::SIGHUP)? {
            Ok(())
        } else {
            Err(DnsmasqError::Gone(self.pid))
        }
    }

    /// Ends the dnsmasq that serves the configuration of these files, if one does, and removes the
    /// files. Goes on where something fails, and returns what failed.
    pub async fn stop(files: &Files, leases: Leases) -> Vec<DnsmasqError> {
        let mut failed = Vec::new();
        let found = Dnsmasq::find(files).map(|running| running.pid);
        if let Some(pid) = found {
            failed.extend(end(pid, files).await.err());
        }
        // What it forked for a question over TCP, or left when it was killed.
        for pid in if found.is_some() { all(files) } else { Vec::new() } {
            failed.extend(end(pid, files).await.err());
        }
        let Files { conf, pid, leases: leased, dhcp_hosts, dns_hosts } = files;
        let mut remove = vec![pid, dhcp_hosts, dns_hosts];
        if leases == Leases::Remove {
            remove.push(leased);
        }
        // Last, because a process is known by it.
        remove.push(conf);
        for path in remove {
            match fs::remove_file(path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    failed.push(DnsmasqError::File { what: "remove", path: path.clone(), source });
                }
                _ => {}
            }
        }
        failed
    }
}

/// Writes the files, starts dnsmasq and waits until it serves.
async fn serve(
    program: &Path,
    config: &DhcpDns,
    text: &Rendered,
    interface: String,
) -> Result<Dnsmasq, DnsmasqError> {
    let files = &config.files;
    write(&files.conf, &text.conf)?;
    write(&files.dhcp_hosts, &text.dhcp_hosts)?;
    write(&files.dns_hosts, &text.dns_hosts)?;
    let ran = capture(program, &[argument(files)], b"", READY).await;
    let ran = ran.map_err(|source| match absent(&source) {
        true => DnsmasqError::Missing(program.to_owned()),
        false => {
            let (interface, program) = (interface.clone(), program.to_owned());
            DnsmasqError::Start { interface, program, source }
        }
    })?;
    match ran.status {
        None => Err(DnsmasqError::Slow { interface }),
        Some(status) if status.success() => {
            Dnsmasq::find(files).ok_or_else(|| DnsmasqError::Refused {
                interface,
                words: "it ended right after it had started; look into the system log".to_owned(),
            })
        }
        Some(status) => {
            let words = words(&String::from_utf8_lossy(&ran.stderr))
                .unwrap_or_else(|| format!("it ended with {status} and no word why"));
            Err(DnsmasqError::Refused { interface, words })
        }
    }
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

/// The argument that marks our dnsmasq, and keeps it from reading /etc/dnsmasq.conf.
fn argument(files: &Files) -> std::ffi::OsString {
    let mut argument = std::ffi::OsString::from("--conf-file=");
    argument.push(&files.conf);
    argument
}

/// Whether the process is a dnsmasq that serves the configuration of these files.
fn is_ours(pid: Pid, files: &Files) -> bool {
    use std::os::unix::ffi::OsStrExt;
    // A dead process that nobody has collected has no arguments.
    let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let mut arguments = line.split(|byte| *byte == 0).skip(1);
    arguments.next() == Some(argument(files).as_bytes())
        && arguments.all(|argument| argument.is_empty())
}

/// All of them, the oldest first.
fn all(files: &Files) -> Vec<Pid> {
    let Ok(processes) = procfs::process::all_processes() else { return Vec::new() };
    let mut found: Vec<(u64, Pid)> = processes
        .flatten()
        .filter(|process| is_ours(Pid::from_raw(process.pid), files))
        .filter_map(|process: Process| {
            Some((process.stat().ok()?.starttime, Pid::from_raw(process.pid)))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, pid)| pid).collect()
}

/// Sends a signal if the process is ours; returns whether it was.
fn signal(pid: Pid, files: &Files, signal: Signal) -> Result<bool, DnsmasqError> {
    if !is_ours(pid, files) {
        return Ok(false);
    }
    match kill(pid, signal) {
        Ok(()) => Ok(true),
        Err(nix::errno::Errno::ESRCH) => Ok(false),
        Err(errno) => Err(DnsmasqError::Signal { pid, source: errno.into() }),
    }
}

/// Ends a process of ours: asks it, then kills it.
async fn end(pid: Pid, files: &Files) -> Result<(), DnsmasqError> {
    let born = started(pid);
    for order in [Signal::SIGTERM, Signal::SIGKILL] {
        if !signal(pid, files, order)? && started(pid) != born {
            return Ok(());
        }
        let last = Instant::now() + PATIENCE;
        while Instant::now() < last {
            if started(pid) != born || born.is_none() {
                return Ok(());
            }
            tokio::time::sleep(STEP).await;
        }
    }
    Err(DnsmasqError::Stuck(pid))
}

/// Writes a file that everyone may read, whole or not at all.
fn write(path: &Path, text: &str) -> Result<(), DnsmasqError> {
    let failed = |source| DnsmasqError::File { what: "write", path: path.to_owned(), source };
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
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

    #[test]
    fn a_number_alone_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::in_dir(dir.path());
        fs::write(&files.pid, std::process::id().to_string()).unwrap();
        assert_eq!(Dnsmasq::find(&files), None);
        assert!(!signal(Pid::this(), &files, Signal::SIGKILL).unwrap());
    }
}
