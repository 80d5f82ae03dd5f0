//! The context of a launch, and the values that belong to one launch.

use std::ffi::OsString;
use std::os::fd::{OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};

use caps::Capability;
use nix::sys::signal::SigSet;
use nix::unistd::{getegid, geteuid};

#[cfg(feature = "cli")]
use super::attach::TargetGuest;
use super::error::StartError;
use super::guest_port::GuestPorts;
use super::launch_dir::LaunchRoot;
use super::plan::{FURTHER_FDS, LaunchIds, Request};
use super::ports;
use crate::sys::host_id::host_id;
use crate::sys::privileges::missing;
#[cfg(feature = "cli")]
use crate::sys::process::MainLink;
use crate::sys::process::{first_free_fd, free_fds};
use crate::sys::transient_user::TransientUserError;
use crate::types::{Mac, TransientUser, error_text};

/// The capabilities with which root can run passt as another user: to give it the group of the
/// launch directory, to start it, to use its socket and files, and to end it.
const FOR_ANOTHER_USER: [Capability; 5] = [
    Capability::CAP_CHOWN,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_KILL,
];

/// The values that the caller of a launch sets besides the plan. A launch reads nothing else from
/// the environment.
#[derive(Debug, Clone)]
pub(crate) struct LaunchContext {
    /// Where launch directories are made.
    pub(crate) root: LaunchRoot,
    /// The environment of QEMU and passt.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// The signal mask of QEMU and passt; `None` is the calling thread's.
    pub(crate) mask: Option<SigSet>,
    /// The lowest descriptor number that QEMU does not inherit, for the fd transport or a tap.
    pub(crate) qemu_fd: RawFd,
    /// Whether this process runs as root.
    pub(crate) is_root: bool,
    /// Makes the ports of guests on bridges; `None` if the launch is on no bridge.
    pub(crate) ports: Option<Arc<dyn GuestPorts>>,
    /// The caller's socket for passt; `None` if the request has no such socket.
    pub(crate) peer: Option<Peer>,
    /// Whether the launch is in the background: QEMU gets no standard descriptor of this process.
    pub(crate) detached: bool,
    /// The process that becomes QEMU; `None` if QEMU is a child of this one.
    #[cfg(feature = "cli")]
    pub(crate) main: Option<Arc<MainLink>>,
    /// The guest that runs already and gets the NIC; `None` for a launch that starts QEMU.
    #[cfg(feature = "cli")]
    pub(crate) guest: Option<Arc<TargetGuest>>,
}

/// A connected socket that one passt takes over.
///
/// The launch must not keep a copy: the other end would not see that passt has ended.
#[derive(Debug, Clone)]
pub(crate) struct Peer(Arc<Mutex<Option<OwnedFd>>>);

impl Peer {
    /// Wraps a connected socket.
    #[cfg_attr(not(feature = "cli"), allow(dead_code, reason = "the command line uses it"))]
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Peer(Arc::new(Mutex::new(Some(socket))))
    }

    /// Returns the socket; `None` for each call but the first.
    pub(super) fn take(&self) -> Option<OwnedFd> {
        // A panic while the lock is held cannot leave the option half written.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl LaunchContext {
    /// A context with launch directories in `root`, an empty environment for QEMU and passt, and
    /// this process's user and lowest free descriptor number.
    pub(crate) fn new(root: LaunchRoot) -> Self {
        LaunchContext {
            root,
            env: Vec::new(),
            mask: None,
            qemu_fd: first_free_fd(),
            is_root: geteuid().is_root(),
            ports: None,
            peer: None,
            detached: false,
            #[cfg(feature = "cli")]
            main: None,
            #[cfg(feature = "cli")]
            guest: None,
        }
    }

    /// Returns a new launch directory's name, a MAC address, free ports, and for each NIC free
    /// descriptor numbers and for root a user of passt's own.
    ///
    /// # Errors
    /// No free port of the host can be found for a published port.
    pub(crate) fn launch_ids(&self, request: &Request) -> Result<LaunchIds, StartError> {
        let nics = request.nic_count();
        let users = self.is_root.then(|| (0..nics).map_while(|_| passt_user()).collect());
        let mac = match &request.name {
            None => Mac::random(&mut rand::rng()),
            Some(name) => {
                let user = geteuid().as_raw().to_be_bytes();
                Mac::stable([&host_id()[..], &user, name.as_str().as_bytes()])
            }
        };
        let free_ports = request.free_ports().map(ports::find_free).collect::<Result<_, _>>()?;
        Ok(LaunchIds {
            dir: self.root.fresh(),
            mac,
            // Two for the QMP socket.
            qemu_fds: free_fds(self.qemu_fd, nics * (1 + FURTHER_FDS) + 2),
            free_ports,
            passt_users: users.unwrap_or_default(),
        })
    }
}

/// Picks a user for root's passt; `None` if there is none, and passt then chooses its user itself.
///
/// Capabilities decide, not the user id: a process without those that another user's passt needs,
/// as root in a container may be, keeps passt at its own id.
fn passt_user() -> Option<TransientUser> {
    let missing = missing(&FOR_ANOTHER_USER);
    if !missing.is_empty() {
        let names: Vec<_> = missing.iter().map(ToString::to_string).collect();
        tracing::debug!("passt runs as this user, since netlaunch lacks {}", names.join(", "));
        return Some(TransientUser { uid: geteuid().as_raw(), gid: getegid().as_raw() });
    }
    let picked = TransientUser::pick();
    if let Err(error) = &picked {
        tracing::debug!("{}", without_own_user(error));
    }
    picked.ok()
}

/// Says which user root's passt has if no user could be picked for it.
///
/// passt that gets no `--runas` looks at its user namespace: in the initial one it becomes nobody,
/// in another one it stays the user that it is started as (conf_ugid() in passt). Only another one
/// maps no id for it.
fn without_own_user(error: &TransientUserError) -> String {
    let user = match error {
        TransientUserError::Unmapped => "runs as this one",
        _ => "becomes nobody, except in a user namespace other than the initial one",
    };
    format!("passt has no user of its own and {user}: {}", error_text(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_about_passts_user_is_that_of_its_namespace() {
        let unmapped = without_own_user(&TransientUserError::Unmapped);
        assert!(unmapped.contains("runs as this one"), "{unmapped}");
        let used = without_own_user(&TransientUserError::Used);
        assert!(used.contains("becomes nobody"), "{used}");
    }
}
