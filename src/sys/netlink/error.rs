//! The errors of links, addresses and routes, each as one line.

use std::io;

use nix::errno::Errno;

use super::request::Failure;
use crate::types::InterfaceName;

/// Why the host's links, addresses or routes could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The netlink socket cannot be used.
    #[error("cannot talk to the kernel about interfaces (netlink socket): {0}")]
    Connect(io::Error),
    /// No interface has this name.
    #[error("there is no interface {0}; 'ip link' lists those there are")]
    Missing(InterfaceName),
    /// An interface already has the name of the new bridge.
    #[error(
        "cannot make the bridge {0}: an interface of that name exists; choose another name, or remove it with 'ip link delete {0}'"
    )]
    InUse(InterfaceName),
    /// The name contains a `%`, which the kernel would replace by a number.
    #[error("cannot make the bridge {0}: its name has a '%'; choose another name")]
    Pattern(InterfaceName),
    /// The interface exists, but is not a bridge.
    #[error("{0} is not a bridge; 'ip link show type bridge' lists those there are")]
    NotBridge(InterfaceName),
    /// The interface already belongs to another bridge, bond or similar device.
    #[error(
        "cannot attach {port} to {bridge}: it belongs to {present}; detach it first with 'ip link set {port} nomaster'"
    )]
    Attached {
        /// The interface.
        port: InterfaceName,
        /// The requested bridge.
        bridge: InterfaceName,
        /// The device that it belongs to.
        present: String,
    },
    /// The bridge of a port with VLANs does not filter VLANs.
    #[error(
        "the port {port} cannot have VLANs of its own: the bridge {bridge} does not filter VLANs; turn that on with 'ip link set {bridge} type bridge vlan_filtering 1'"
    )]
    VlansIgnored {
        /// The port.
        port: InterfaceName,
        /// The bridge.
        bridge: InterfaceName,
    },
    /// The kernel has no bridges that filter VLANs.
    #[error(
        "cannot make the bridge {0} with VLANs: this kernel has no bridges that filter VLANs (CONFIG_BRIDGE_VLAN_FILTERING); use another kernel, or ports without VLANs"
    )]
    NoVlans(InterfaceName),
    /// The settings of a tap do not fit into the record that restores them.
    #[error(
        "the VLANs of the port {0} do not fit into the interface's alias of 255 bytes, from which netlaunch restores them; use fewer VLANs, or VLANs with neighbouring numbers"
    )]
    LongRecord(InterfaceName),
    /// The kernel has no devices of the kind ifb.
    #[error(
        "the kernel has no ifb devices, which limit the traffic from a guest; load the module with 'modprobe ifb', or limit the traffic to the guest only"
    )]
    NoIfb,
    /// The kernel refused a request.
    #[error("cannot {what}; {fix}")]
    Refused {
        /// The request, as a verb phrase.
        what: String,
        /// The kernel's error.
        source: io::Error,
        /// The advice.
        fix: &'static str,
    },
    /// The kernel's answer was lost, also at a second attempt.
    #[error("cannot {what}: {why}; try again")]
    Lost {
        /// The request, as a verb phrase.
        what: String,
        /// The reason why the answer was lost.
        why: &'static str,
    },
    /// The kernel acknowledged a change that did not happen.
    #[error(
        "cannot {what}: the kernel accepted that and it is not so; see what else changes interfaces, and try again"
    )]
    NotDone {
        /// The request, as a verb phrase.
        what: String,
    },
}

impl LinkError {
    /// Makes the error for a failed request.
    pub(super) fn failed(what: impl Into<String>, failure: Failure) -> Self {
        let what = what.into();
        match failure {
            Failure::Refused(source) => {
                let fix = fix(source.raw_os_error().map(Errno::from_raw));
                LinkError::Refused { what, source, fix }
            }
            Failure::Lost(why) => LinkError::Lost { what, why },
        }
    }

    /// Returns the kernel's error number, if it gave one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            LinkError::Connect(source) | LinkError::Refused { source, .. } => {
                source.raw_os_error().map(Errno::from_raw)
            }
            _ => None,
        }
    }

    /// Returns whether the object of the request does not exist.
    pub(super) fn is_gone(&self) -> bool {
        let gone = [Errno::ENODEV, Errno::ENOENT, Errno::ESRCH, Errno::EADDRNOTAVAIL];
        matches!(self, LinkError::Missing(_)) || self.errno().is_some_and(|e| gone.contains(&e))
    }
}

fn fix(errno: Option<Errno>) -> &'static str {
    match errno {
        Some(Errno::EPERM | Errno::EACCES) => "run as root or with CAP_NET_ADMIN",
        Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) => {
            "the kernel lacks it: 'modprobe bridge', or IPv6 is turned off on this host"
        }
        Some(Errno::EEXIST) => "the host has it already: choose another, or remove that one",
        Some(Errno::ENETUNREACH | Errno::EHOSTUNREACH) => {
            "the gateway must be an address in one of the network's own subnets"
        }
        Some(Errno::EBUSY | Errno::ELOOP) => "the interface is in use by something else",
        Some(Errno::ERANGE | Errno::EINVAL) => "the kernel does not take this value",
        _ => "the kernel log may say more",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_what_where_and_fix_in_one_line() {
        let refusal = Failure::Refused(io::Error::from_raw_os_error(libc::EPERM));
        let error = LinkError::failed("make it", refusal);
        assert_eq!(
            crate::types::error_text(&error),
            "cannot make it: Operation not permitted (os error 1); run as root or with CAP_NET_ADMIN"
        );
        assert_eq!(error.errno(), Some(Errno::EPERM));
        assert!(!error.is_gone());
    }

    #[test]
    fn each_error_of_a_missing_object_counts_as_gone() {
        assert!(LinkError::Missing("br0".parse().unwrap()).is_gone());
    }
}
