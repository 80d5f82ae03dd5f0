//! Plans the start of passt: its connection to QEMU, its files and its arguments.
//!
//! The socket, the process file and the log are in the launch directory. An AppArmor profile can
//! forbid passt to create the socket there; then the fd transport connects QEMU, or there is no
//! plan. [`passt_args`] writes the arguments.
//!
//! passt has no way to change the DNS servers of a guest while it runs. So a change of the host's
//! servers gives a new plan, and the supervisor restarts passt with it.

use std::ffi::OsString;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::candidate::Candidate;
use super::dns::DnsPlan;
use super::draft::{Draft, MAX_SOCKET_PATH};
use super::error::PlanError;
use super::passt_args::{self, Endpoint};
use super::request::{Backend, Transport};
use crate::types::{Publish, Setting, TransientUser};

/// The start of passt.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PasstPlan {
    /// The program.
    pub program: PathBuf,
    /// The whole argument vector.
    pub argv: Vec<OsString>,
    /// The listening socket; `None` with the fd transport.
    pub socket: Option<PathBuf>,
    /// The file with passt's process number, as the host sees it.
    pub pid: PathBuf,
    /// The file for passt's output.
    pub log: PathBuf,
    /// The descriptor number at which passt expects its end (fd transport).
    pub fd: Option<RawFd>,
    /// The user that passt changes to; `None` if passt keeps the caller's user.
    pub user: Option<TransientUser>,
    /// The published ports, on which a running passt listens.
    pub publish: Vec<Publish>,
    /// The DNS plan, which follows from the host's servers.
    pub dns: DnsPlan,
}

/// The only descriptor that passt inherits besides the standard ones.
const PASST_FD: RawFd = 3;

impl PasstPlan {
    /// Returns the same passt for a QEMU that has connected to the socket already: it gets the
    /// connection as a descriptor.
    pub(in crate::launcher) fn connected(&self) -> PasstPlan {
        let mut argv = self.argv.clone();
        let is_socket = |pair: &[OsString]| matches!(pair, [option, path] if option == "--socket" && Some(Path::new(path)) == self.socket.as_deref());
        if let Some(at) = argv.windows(2).position(is_socket) {
            let is_one_off = at > 0 && argv.get(at - 1).is_some_and(|word| word == "--one-off");
            let fd = ["--fd".into(), PASST_FD.to_string().into()];
            argv.splice(at - usize::from(is_one_off)..at + 2, fd);
        }
        PasstPlan { argv, socket: None, fd: Some(PASST_FD), ..self.clone() }
    }

    /// Returns the same passt for a host with other DNS servers; `None` if the guest would see no
    /// difference.
    ///
    /// The result is also `None` if there are no servers, because a file without servers is one
    /// that another program is writing.
    pub fn with_resolvers(&self, resolvers: &[IpAddr]) -> Option<PasstPlan> {
        let mut argv = self.argv.clone();
        let dns = self.dns.replace(resolvers, &mut argv)?;
        Some(PasstPlan { argv, dns, ..self.clone() })
    }
}

/// Returns the requested transport. Without one, returns a UNIX socket, or the fd transport if a
/// socket cannot be used.
pub(super) fn transport(draft: &Draft, notes: &mut Vec<String>) -> Result<Transport, PlanError> {
    let dir = &draft.context.launch_ids.dir;
    let denied = draft.context.facts.passt.confinement.as_ref().filter(|c| !c.allows(dir));
    match (draft.nic.transport, denied) {
        (Some(Transport::Fd), _) => Ok(Transport::Fd),
        // QEMU's user cannot enter the launch directory, which holds the socket.
        (None, _) if draft.context.request.user.is_some() => Ok(Transport::Fd),
        (named, None) => Ok(named.unwrap_or(Transport::Unix)),
        (None, Some(profile)) if draft.context.request.command.is_some() => {
            notes.push(format!(
                "the AppArmor profile {} forbids passt a socket in {}, so QEMU is connected by an inherited descriptor",
                profile.profile,
                dir.display()
            ));
            Ok(Transport::Fd)
        }
        (_, Some(profile)) => Err(PlanError::Unusable(Candidate {
            backend: Backend::Passt,
            usable: false,
            why: format!(
                "the AppArmor profile {} forbids it a socket in {}",
                profile.profile,
                dir.display()
            ),
            fix: Some("use a state directory below /tmp or your home".into()),
            settings: &[Setting::StateDir],
        })),
    }
}

/// Makes the plan for the start of passt.
pub(super) fn passt_plan(draft: &Draft, transport: Transport) -> Result<PasstPlan, PlanError> {
    let path = draft.passt_file("sock");
    let length = path.as_os_str().as_bytes().len();
    let (socket, fd) = match transport {
        Transport::Fd => (None, Some(PASST_FD)),
        _ if length > MAX_SOCKET_PATH => return Err(PlanError::SocketPath { path, length }),
        Transport::Unix | Transport::VhostUser => (Some(path), None),
    };
    let program = draft.context.facts.passt.path.clone().unwrap_or_else(|| "passt".into());
    let pid = draft.passt_file("pid");
    let mut dns = DnsPlan::new(draft);
    let endpoint =
        Endpoint { program: &program, transport, socket: socket.as_deref(), fd, pid: &pid };
    let argv = passt_args::argv(draft, &endpoint, &mut dns);
    Ok(PasstPlan {
        program,
        argv,
        socket,
        pid,
        log: draft.passt_file("log"),
        fd,
        user: draft.passt_user(),
        publish: draft.nic.publish.clone(),
        dns,
    })
}
