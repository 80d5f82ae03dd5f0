//! The input that all parts of a plan share.
//!
//! [`super::plan`] checks the request, chooses the guest's addresses and the backend, and then
//! makes one [`Draft`]. The parts (DNS, passt, QEMU's arguments, the card, the bridge) read it and
//! never change it, so their order has no effect on the result.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;
use std::path::PathBuf;

use super::request::{NicRequest, Request};
use crate::types::facts::Facts;
use crate::types::{GuestAddresses, Mac, Queues, TransientUser};

/// The longest path of a socket that every passt accepts, in bytes.
///
/// It is measured, and one byte less than the kernel's 107: Debian 12's passt cuts a path of 107
/// bytes off without an error.
pub const MAX_SOCKET_PATH: usize = 106;

/// The largest number of descriptors that one NIC needs besides its first one: a tap and vhost-net
/// for each queue.
pub const FURTHER_FDS: usize = 2 * Queues::MOST as usize - 1;

/// The values that differ between two launches of the same request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchIds {
    /// The launch directory.
    pub dir: PathBuf,
    /// The address of the first card, if the request names none: the same at each start of a launch
    /// with a name, random otherwise. Each further card has the next address.
    pub mac: Mac,
    /// Descriptor numbers that QEMU has not inherited, for the fd transport or a tap: one for each
    /// NIC, then [`FURTHER_FDS`] for each NIC whose tap has several queues or vhost-net, then two.
    /// The QMP socket has the first two that no NIC uses.
    pub qemu_fds: Vec<RawFd>,
    /// The free ports of the host, for the published ports of all NICs that name no port of the
    /// host.
    pub free_ports: Vec<u16>,
    /// The users that passt changes to, one for each NIC; empty if passt keeps the caller's user.
    pub passt_users: Vec<TransientUser>,
}

/// The values that a NIC's plan depends on, besides its own request.
pub(super) struct NicContext<'a> {
    pub(super) request: &'a Request,
    pub(super) facts: &'a Facts,
    pub(super) launch_ids: &'a LaunchIds,
    /// The place of the NIC among those of the launch, from 0 on.
    pub(super) place: usize,
    /// The number of passts of earlier NICs.
    pub(super) passts_before: usize,
    /// Whether the passt of an earlier NIC gives the guest an address by DHCPv6.
    pub(super) has_dhcpv6: bool,
    /// Whether an earlier NIC has made the guest's memory shareable.
    pub(super) memory_is_shared: bool,
    /// Whether netlaunch sets the MTU of each virtio card for an earlier NIC.
    pub(super) has_global_mtu: bool,
}

/// The context of a NIC and the choices that the parts of its plan are made from.
pub(super) struct Draft<'a> {
    pub(super) context: &'a NicContext<'a>,
    /// The NIC that the parts belong to.
    pub(super) nic: &'a NicRequest,
    /// The guest's IPv4 addresses; `None` if it mirrors the host, has no IPv4, or is on a bridge.
    pub(super) addresses: Option<GuestAddresses>,
}

impl Draft<'_> {
    /// Returns the address of the guest's card.
    pub(super) fn mac(&self) -> Mac {
        let place = u32::try_from(self.context.place).unwrap_or_default();
        self.nic.mac.unwrap_or_else(|| self.context.launch_ids.mac.following(place))
    }

    /// Returns the descriptor number at which QEMU expects a socket or a tap; `None` if no number
    /// is free.
    pub(super) fn qemu_fd(&self) -> Option<RawFd> {
        self.context.launch_ids.qemu_fds.get(self.context.place).copied()
    }

    /// Returns this many descriptor numbers for this NIC, the first one being that of
    /// [`Draft::qemu_fd`]; fewer if not enough numbers are free.
    pub(super) fn tap_fds(&self, count: usize) -> Vec<RawFd> {
        let from = self.context.request.nic_count() + self.context.place * FURTHER_FDS;
        let further = self.context.launch_ids.qemu_fds.iter().skip(from).take(FURTHER_FDS).copied();
        self.qemu_fd().into_iter().chain(further).take(count).collect()
    }

    /// Returns the user that passt changes to; `None` if passt keeps the caller's user.
    pub(super) fn passt_user(&self) -> Option<TransientUser> {
        let users = &self.context.launch_ids.passt_users;
        users.get(self.context.place).or(users.first()).copied()
    }

    /// Returns the path of passt's file with this extension in the launch directory.
    pub(super) fn passt_file(&self, extension: &str) -> PathBuf {
        let number = match self.context.passts_before {
            0 => String::new(),
            before => format!("-{}", before + 1),
        };
        self.context.launch_ids.dir.join(format!("passt{number}.{extension}"))
    }

    /// Returns the address in the guest's subnet that forwards DNS queries to the host's servers.
    pub(super) fn dns_forwarder(&self) -> Option<Ipv4Addr> {
        self.addresses.map(|addresses| addresses.dns)
    }

    /// Returns the requested DNS server if it is outside of the guest's subnet. The guest gets its
    /// address unchanged.
    pub(super) fn foreign_dns(&self) -> Option<IpAddr> {
        let forwarder = self.dns_forwarder().map(IpAddr::V4);
        self.nic.dns.filter(|dns| Some(*dns) != forwarder)
    }
}
