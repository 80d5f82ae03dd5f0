//! The reasons why a program cannot be started.

use std::io;
use std::path::PathBuf;

/// The reason why a program could not be started. The program does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpawnError {
    /// The path, an argument or a variable contains a NUL byte.
    #[error("an argument of {} holds a NUL byte", program.display())]
    Nul {
        /// The program.
        program: PathBuf,
    },
    /// The program cannot be executed.
    #[error("cannot execute {}", program.display())]
    Exec {
        /// The program.
        program: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The namespaces of the guard cannot be made.
    #[error("cannot make a PID namespace for {}", program.display())]
    Namespace {
        /// The program.
        program: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// A guard cannot know its children, so it could not end a program that daemonizes.
    #[error(
        "cannot run {} as a daemon, because /proc/thread-self/children cannot be used; mount /proc", program.display()
    )]
    Daemon {
        /// The program.
        program: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The program's process cannot become the user.
    #[error(
        "cannot run {} as the user {user}; run as root with CAP_SETUID and CAP_SETGID", program.display()
    )]
    User {
        /// The program.
        program: PathBuf,
        /// The user.
        user: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The host is short of descriptors, processes or memory, so the program was not executed.
    #[error("cannot start {}", program.display())]
    System {
        /// The program.
        program: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The messages of the guard could not be read, or the guard was killed. The program may have
    /// been executed, and has been killed with its guard.
    #[error("cannot start {}", program.display())]
    Lost {
        /// The program.
        program: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
}

impl SpawnError {
    /// Returns the kernel's error number, if there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            SpawnError::Nul { .. } => None,
            SpawnError::Exec { source, .. }
            | SpawnError::Namespace { source, .. }
            | SpawnError::User { source, .. }
            | SpawnError::Daemon { source, .. }
            | SpawnError::System { source, .. }
            | SpawnError::Lost { source, .. } => source.raw_os_error(),
        }
    }
}
