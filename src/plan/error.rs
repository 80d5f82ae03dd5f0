//! Why there is no plan, in one line each.

use std::path::PathBuf;

use super::{Candidate, MAX_SOCKET_PATH, MemoryError, RequestError};
use crate::facts::Problem;
use crate::types::{GuestViewError, UserName};

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The request contradicts itself.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The gateway or DNS server does not fit the subnet that was chosen.
    #[error("{0}; or give --address as well")]
    View(GuestViewError),
    /// QEMU was not found.
    #[error("{}; {}", .0.why, .0.fix)]
    QemuMissing(Problem),
    /// QEMU cannot be run.
    #[error("{}; {}", .0.why, .0.fix)]
    QemuUnusable(Problem),
    /// The backend that was named cannot serve.
    #[error("{} cannot be used: {}; {}", .0.backend, .0.why, .0.fix.as_deref().unwrap_or("use --backend auto"))]
    Unusable(Candidate),
    /// The backend that was named could serve, but not with these options.
    #[error("{} cannot be used: {}; {}", .0.backend, .0.why, .0.fix.as_deref().unwrap_or("use --backend auto"))]
    Options(Candidate),
    /// No backend can serve.
    #[error("no backend can serve: {}", list(.0))]
    NoBackend(Vec<Candidate>),
    /// The socket's path does not fit.
    #[error("the socket path {} is {length} bytes long, and {MAX_SOCKET_PATH} is the most that fits: set NETLAUNCH_STATE_DIR to a shorter directory, or use --transport fd", path.display())]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// Only root can make QEMU another user's.
    #[error("only root can run QEMU as the user {0}: run netlaunch as root, or drop --user")]
    UserNotRoot(UserName),
    /// The guest's memory cannot be shared with passt.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

fn list(candidates: &[Candidate]) -> String {
    let one = |c: &Candidate| {
        let fix = c.fix.as_deref().map(|fix| format!(" ({fix})")).unwrap_or_default();
        format!("{}: {}{fix}", c.backend, c.why)
    };
    candidates.iter().map(one).collect::<Vec<_>>().join("; ")
}

impl PlanError {
    /// Whether the mistake is the caller's (exit status 2) and not the host's.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            PlanError::Request(_)
                | PlanError::View(_)
                | PlanError::Options(_)
                | PlanError::Memory(_)
                | PlanError::UserNotRoot(_)
        )
    }
}
