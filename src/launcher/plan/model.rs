//! The values that make up a plan.
//!
//! A [`Plan`] holds everything that a launch starts, so that printing a plan and carrying it out
//! cannot differ. It is data only: [`start`](crate::launcher::start()) carries it out.

use std::ffi::OsString;
use std::net::IpAddr;
use std::ops::Deref;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bridge::BridgePlan;
use super::passt::PasstPlan;
use super::qmp::QmpPlan;
use super::request::{Backend, Family, NicRequest, Transport};
use super::vmm::Vmm;
use crate::types::{GuestAddresses, Id, Mac, Publish, UserName};

/// Everything that one launch starts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// The guest's NICs.
    pub nics: NicPlans,
    /// The start of QEMU.
    pub qemu: QemuPlan,
    /// The user that QEMU runs as; `None` is the caller.
    pub user: Option<UserName>,
    /// The time for the guest to power down when the launch ends; `None` ends QEMU at once.
    pub stop_timeout: Option<Duration>,
    /// The launch's name in `netlaunch ps`, if the request has one.
    pub name: Option<String>,
    /// The program that the arguments of `qemu` are for; only in serve mode another one than QEMU.
    pub vmm: Vmm,
    /// The path at which passt's socket is offered, in serve mode.
    pub listen: Option<PathBuf>,
    /// The launch directory.
    pub dir: PathBuf,
    /// The published ports for which netlaunch found a free port of the host.
    pub free_ports: Vec<Publish>,
    /// Decisions that the user may want to know, one sentence each.
    pub notes: Vec<String>,
    /// Effects that the user hardly expects, each with the way to avoid it, one line each.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Returns the published ports of the NICs that netlaunch sets up. QEMU itself reports a busy
    /// port of a NIC that is left.
    pub(crate) fn published(&self) -> Vec<Publish> {
        let is_left = |nic: &&NicPlan| matches!(nic.origin, Origin::Left { .. });
        let nics = self.nics.iter().filter(|nic| !is_left(nic));
        nics.flat_map(|nic| nic.publish.clone()).collect()
    }
}

/// The NICs of one launch, at least one: first the adopted ones and those that are left, in the
/// order of QEMU's arguments, then the added ones in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicPlans(Vec<NicPlan>);

impl NicPlans {
    /// Makes the list of a first NIC and further ones.
    pub fn new(first: NicPlan, further: impl IntoIterator<Item = NicPlan>) -> Self {
        NicPlans(std::iter::once(first).chain(further).collect())
    }

    /// Returns the first NIC.
    pub fn first(&self) -> &NicPlan {
        // `new` is the only constructor and no method removes a NIC, so the list is not empty.
        &self.0[0]
    }
}

impl Deref for NicPlans {
    type Target = [NicPlan];

    fn deref(&self) -> &[NicPlan] {
        &self.0
    }
}

impl<'a> IntoIterator for &'a NicPlans {
    type Item = &'a NicPlan;
    type IntoIter = std::slice::Iter<'a, NicPlan>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

/// One NIC of the guest: its network and its card.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NicPlan {
    /// The request that this NIC fulfils, with the card that fits the machine.
    pub request: NicRequest,
    /// The place from which the NIC comes.
    pub origin: Origin,
    /// The chosen backend.
    pub backend: Backend,
    /// The reason why the preferred backend is not used; `None` if it is used, or if the request
    /// names a backend.
    pub fallback: Option<String>,
    /// The connection of passt and QEMU; `None` with another backend.
    pub transport: Option<Transport>,
    /// The guest's IPv4 addresses; `None` if it mirrors the host, has no IPv4, or is on a bridge.
    pub addresses: Option<GuestAddresses>,
    /// The DNS server that the guest gets by DHCP; `None` if passt chooses it from the host's
    /// servers.
    pub dns: Option<IpAddr>,
    /// The address of the guest's card; `None` if QEMU chooses it.
    pub mac: Option<Mac>,
    /// `id=` of the netdev; `None` if QEMU chooses it.
    pub id: Option<Id>,
    /// The published ports.
    pub publish: Vec<Publish>,
    /// The arguments that netlaunch writes for this NIC. They follow the caller's, or replace some
    /// of them.
    pub args: Vec<OsString>,
    /// The descriptor number at which QEMU expects its end of the fd transport, or its tap.
    pub fd: Option<RawFd>,
    /// Whether QEMU connects again after a restart of passt.
    pub reconnects: bool,
    /// The start of passt; `None` with another backend.
    pub passt: Option<PasstPlan>,
    /// The guest's port on a bridge; `None` with another backend.
    pub bridge: Option<BridgePlan>,
}

impl NicPlan {
    /// Returns whether its passt gives the guest an address by DHCPv6, if the host has IPv6.
    pub(super) fn has_dhcpv6(&self) -> bool {
        self.passt.is_some() && self.request.family != Family::V4
    }

    /// Returns whether its arguments make the guest's memory shareable.
    pub(super) fn shares_memory(&self) -> bool {
        self.transport == Some(Transport::VhostUser)
    }
}

/// The place from which a NIC comes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Origin {
    /// The request. netlaunch adds the NIC to the caller's QEMU arguments.
    Added,
    /// A user-mode network of the caller's QEMU arguments, which netlaunch moved to its backend.
    Adopted {
        /// The argument in the caller's spelling.
        written: String,
        /// The words that replace it.
        change: String,
    },
    /// A user-mode network of the caller's QEMU arguments, which stays as it is on slirp.
    Left {
        /// The argument in the caller's spelling.
        written: String,
        /// The reason why it is not moved, one clause.
        why: String,
    },
}

/// The start of QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct QemuPlan {
    /// The program; `None` in serve mode.
    pub program: Option<PathBuf>,
    /// The name in the caller's command, which becomes `argv[0]`; `None` in serve mode.
    pub name: Option<OsString>,
    /// The arguments that netlaunch writes: those that replace one of the caller's, then those that
    /// follow the caller's.
    pub args: Vec<OsString>,
    /// All arguments, the caller's with netlaunch's; in serve mode netlaunch's alone.
    pub all_args: Vec<OsString>,
    /// The QMP socket of a QEMU that netlaunch supervises; `None` in serve mode, and if there can
    /// be none.
    pub qmp: Option<QmpPlan>,
}

impl QemuPlan {
    /// Returns the whole argument vector without that of the QMP socket; `None` in serve mode.
    pub fn argv(&self) -> Option<Vec<OsString>> {
        let name = self.name.clone()?;
        Some([name].into_iter().chain(self.all_args.clone()).collect())
    }

    /// Returns the argument vector of a QEMU that netlaunch supervises, with its QMP socket; `None`
    /// in serve mode.
    pub fn supervised_argv(&self) -> Option<Vec<OsString>> {
        let qmp = self.qmp.iter().flat_map(QmpPlan::args);
        Some(self.argv()?.into_iter().chain(qmp).collect())
    }
}

/// The chosen backend with its part of the plan.
pub(super) enum BackendPlan {
    Slirp,
    Passt(Transport, PasstPlan),
    Bridge(BridgePlan),
}
