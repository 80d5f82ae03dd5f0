//! The errors of starting, changing and stopping dnsmasq.
//!
//! Each message names the bridge, the process or the file, and the fix for the administrator.
//! dnsmasq's own message is passed on in its words, since dnsmasq names the setting that it
//! refuses.

use std::io;
use std::path::PathBuf;

use super::INSTALL;
use super::config::ConfigError;
use super::port_user::PortUser;
use super::process::READY;

/// The reason why dnsmasq cannot be started, changed or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DnsmasqError {
    /// The configuration files cannot contain a value.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The program does not exist.
    #[error("dnsmasq is not installed (looked for {}); {INSTALL}", .0.display())]
    Missing(PathBuf),
    /// The program cannot be executed.
    #[error("cannot start dnsmasq for {interface}; check that {} can be run", program.display())]
    Start {
        /// The bridge.
        interface: String,
        /// The program.
        program: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// A dnsmasq for this configuration already runs.
    #[error("dnsmasq for {interface} runs already as process {pid}; stop it first")]
    Running {
        /// The bridge.
        interface: String,
        /// The number of its process.
        pid: i32,
    },
    /// dnsmasq ended at once, with this error message.
    #[error("dnsmasq cannot serve {interface}: {words}")]
    Refused {
        /// The bridge.
        interface: String,
        /// The error message of dnsmasq.
        words: String,
    },
    /// Another program uses a port that dnsmasq needs.
    #[error("dnsmasq cannot serve {interface}: {user}; {}", user.fix(interface))]
    PortInUse {
        /// The bridge.
        interface: String,
        /// The other program.
        user: PortUser,
    },
    /// dnsmasq's process cannot be recorded.
    #[error("cannot identify the process of dnsmasq: {0}; mount /proc")]
    Proc(io::Error),
    /// dnsmasq neither served nor ended within the time limit.
    #[error("dnsmasq for {interface} was not ready within {} s and was stopped; see the system log", READY.as_secs())]
    Slow {
        /// The bridge.
        interface: String,
    },
    /// A file cannot be written or removed.
    #[error("cannot {what} {}; make its directory writable", path.display())]
    File {
        /// The action: write or remove.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// A signal cannot be sent.
    #[error("cannot signal dnsmasq, process {pid}; run as the user that started it")]
    Signal {
        /// The number of the process.
        pid: i32,
        /// The kernel's error.
        source: io::Error,
    },
    /// The recorded dnsmasq does not run any more.
    #[error("dnsmasq is gone, process {0}; start the network again")]
    Gone(i32),
    /// SIGKILL did not end dnsmasq.
    #[error("dnsmasq, process {0}, does not end after SIGKILL; see the kernel log")]
    Stuck(i32),
}
