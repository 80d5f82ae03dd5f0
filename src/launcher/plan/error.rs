//! The errors of planning.
//!
//! Each message is one line: the reason, then the fix. A message about a backend contains the texts
//! of its [`Candidate`].

use std::path::PathBuf;

use super::candidate::Candidate;
use super::draft::MAX_SOCKET_PATH;
use super::memory::MemoryError;
use super::request_error::RequestError;
use crate::types::facts::Problem;
use crate::types::{FreePort, GuestAddressesError, Setting, UserName};

/// The reason why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PlanError {
    /// The request contradicts itself.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The gateway or the DNS server does not fit the chosen subnet.
    #[error("{0}; or set the guest's address as well")]
    GuestAddresses(GuestAddressesError),
    /// QEMU was not found.
    #[error("{}; {}", .0.why, .0.fix)]
    QemuMissing(Problem),
    /// QEMU cannot be run.
    #[error("{}; {}", .0.why, .0.fix)]
    QemuUnusable(Problem),
    /// The named backend cannot serve.
    #[error("{} cannot be used: {}; {}", .0.backend, .0.why, .0.fix.as_deref().unwrap_or("use another backend"))]
    Unusable(Candidate),
    /// The named backend can serve on this host, but not with these settings.
    #[error("{} cannot be used: {}; {}", .0.backend, .0.why, .0.fix.as_deref().unwrap_or("use another backend"))]
    Options(Candidate),
    /// No backend can serve.
    #[error("no backend can serve: {}", list(.0))]
    NoBackend(Vec<Candidate>),
    /// The path of passt's socket is too long.
    #[error("the socket path {} is {length} bytes long, and {MAX_SOCKET_PATH} is the most that fits: use a state directory with a shorter path, or the transport fd", path.display())]
    SocketPath {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// Only root can run QEMU as another user.
    #[error("only root can run QEMU as the user {0}: run as root, or drop the user")]
    UserNotRoot(UserName),
    /// The launch has more NICs with a descriptor than there are descriptor numbers.
    #[error(
        "no descriptor number is free for a NIC of QEMU: raise the limit of open files (ulimit -n), or use fewer NICs"
    )]
    NoDescriptor,
    /// The launch has no number for a free port of the host.
    #[error("no free port of the host is chosen for {0}: name a port of the host")]
    NoFreePort(FreePort),
    /// All subnets that netlaunch tries are those of other NICs or of the host.
    #[error("no subnet is free for a further NIC: give each NIC an address of its own")]
    NoSubnet,
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
    /// Returns the settings of the launch that the error names.
    pub fn settings(&self) -> Vec<Setting> {
        match self {
            PlanError::Request(error) => error.settings(),
            PlanError::GuestAddresses(error) => {
                [&about_addresses(error)[..], &[Setting::Address]].concat()
            }
            PlanError::QemuMissing(problem) | PlanError::QemuUnusable(problem) => {
                problem.settings.to_vec()
            }
            PlanError::Unusable(candidate) | PlanError::Options(candidate) => {
                candidate.settings.to_vec()
            }
            PlanError::NoBackend(candidates) => {
                candidates.iter().flat_map(|candidate| candidate.settings.to_vec()).collect()
            }
            PlanError::SocketPath { .. } => vec![Setting::StateDir, Setting::Transport],
            PlanError::UserNotRoot(_) => vec![Setting::User],
            PlanError::NoFreePort(_) => vec![Setting::Publish],
            PlanError::NoDescriptor => Vec::new(),
            PlanError::NoSubnet => vec![Setting::Nics],
            PlanError::Memory(_) => vec![Setting::Transport],
        }
    }

    /// Returns whether the request is at fault (exit status 2), and not the host.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            PlanError::Request(_)
                | PlanError::GuestAddresses(_)
                | PlanError::Options(_)
                | PlanError::Memory(_)
                | PlanError::UserNotRoot(_)
        )
    }
}

/// Returns the setting that an error of the guest's addresses names.
pub(super) fn about_addresses(error: &GuestAddressesError) -> Vec<Setting> {
    match error {
        GuestAddressesError::GatewayOutside { .. }
        | GuestAddressesError::GatewayIsGuest(_)
        | GuestAddressesError::GatewayNoHost { .. } => vec![Setting::Gateway],
        GuestAddressesError::DnsIsGuest(_) | GuestAddressesError::DnsNoHost(_) => {
            vec![Setting::Dns]
        }
    }
}
