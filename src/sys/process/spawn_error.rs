//! The reasons why a program could not be started.

use std::io;
use std::path::PathBuf;

/// Why a program could not be started. Nothing is left running.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// A name, argument or variable holds a NUL byte.
    #[error("an argument of {} holds a NUL byte", program.display())]
    Nul {
        /// The program.
        program: PathBuf,
    },
    /// The program cannot be executed.
    #[error("cannot execute {}: {source}", program.display())]
    Exec {
        /// The program.
        program: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The namespaces for [`Isolation::PidNamespace`] cannot be made.
    #[error("cannot make a PID namespace for {}: {source}", program.display())]
    Namespace {
        /// The program.
        program: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// It cannot become the user.
    #[error(
        "cannot run {} as the user {user}: {source}; run netlaunch as root with CAP_SETUID and CAP_SETGID", program.display()
    )]
    User {
        /// The program.
        program: PathBuf,
        /// The user.
        user: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// Descriptors or processes ran out before the program could be executed.
    #[error("cannot start {}: {source}", program.display())]
    System {
        /// The program.
        program: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The guard could not be heard, or was killed: the program may have been executed, and was
    /// ended with its guard.
    #[error("cannot start {}: {source}", program.display())]
    Lost {
        /// The program.
        program: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

impl SpawnError {
    /// The kernel's error number, where it gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            SpawnError::Nul { .. } => None,
            SpawnError::Exec { source, .. }
            | SpawnError::Namespace { source, .. }
            | SpawnError::User { source, .. }
            | SpawnError::System { source, .. }
            | SpawnError::Lost { source, .. } => source.raw_os_error(),
        }
    }
}
