//! Why dnsmasq does not serve, or still does.

use std::io;
use std::path::PathBuf;

use nix::unistd::Pid;

use super::INSTALL;
use super::config::ConfigError;
use super::process::READY;

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
    /// Its process cannot be recorded.
    #[error("cannot tell dnsmasq's process from others: {0}; mount /proc")]
    Proc(io::Error),
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
        /// The kernel's error.
        source: io::Error,
    },
    /// A signal cannot be sent.
    #[error(
        "cannot signal dnsmasq, process {pid}: {source}; run netlaunch as the user who started it"
    )]
    Signal {
        /// Its process.
        pid: Pid,
        /// The kernel's error.
        source: io::Error,
    },
    /// It is none of ours any more.
    #[error("dnsmasq is gone, process {0}; start the network again")]
    Gone(Pid),
    /// Even SIGKILL did not end it.
    #[error("dnsmasq, process {0}, does not end; the kernel log may say more")]
    Stuck(Pid),
}
