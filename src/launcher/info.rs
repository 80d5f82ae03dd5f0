//! The facts about a running launch, for the program that started it.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use super::plan::{Backend, Origin, Transport};
use super::record::NicRecord;
use super::running::Running;
use crate::types::{HostAddress, Id, Mac, Publish};

/// The facts about a launch: backend, addresses, processes. They do not change while the launch
/// runs; later changes are [events](super::LaunchEvent).
///
/// ```no_run
/// # fn show(launch: &netlaunch::launcher::Launch) {
/// let info = launch.info();
/// if let Some(why) = &info.fallback {
///     println!("{} instead of passt: {why}", info.backend);
/// }
/// for publish in &info.published {
///     println!("port {} of the host reaches port {}", publish.host, publish.guest);
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaunchInfo {
    /// The name of the launch.
    pub name: String,
    /// The backend in use.
    pub backend: Backend,
    /// The reason why the backend is not the preferred one; `None` if it is the preferred one, or
    /// if the request names it.
    pub fallback: Option<String>,
    /// How QEMU and passt are connected; `None` on the other backends.
    pub transport: Option<Transport>,
    /// The hardware address of the guest's card; `None` if QEMU chooses it.
    pub mac: Option<Mac>,
    /// The guest's IPv4 address; `None` if the guest mirrors the host, has no IPv4, or is on a
    /// bridge.
    pub address: Option<HostAddress>,
    /// The guest's router.
    pub gateway: Option<Ipv4Addr>,
    /// The DNS server that the guest gets; `None` if passt chooses it.
    pub dns: Option<IpAddr>,
    /// The published ports, with the numbers on which the backend listens.
    pub published: Vec<Publish>,
    /// All NICs of the guest. The members above describe the first one.
    pub nics: Vec<NicInfo>,
    /// The process ID of QEMU at the start; `None` in serve mode. A QEMU that daemonizes has
    /// another one later ([`LaunchEvent::Daemonized`](super::LaunchEvent)).
    pub qemu_pid: Option<u32>,
    /// The process ID of passt at the start; `None` on the other backends.
    pub passt_pid: Option<u32>,
    /// The arguments that netlaunch writes to give QEMU its network. In serve mode the caller
    /// starts QEMU with them.
    pub qemu_args: Vec<OsString>,
    /// The launch directory, with passt's socket and its log.
    pub dir: PathBuf,
    /// Notes for the user, one sentence each.
    pub notes: Vec<String>,
    /// Surprising properties of the launch, and how to change them, one line each.
    pub warnings: Vec<String>,
}

/// One NIC of a launch.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NicInfo {
    /// `id=` of QEMU's netdev; `None` if QEMU chooses it.
    pub id: Option<Id>,
    /// The place from which the NIC comes.
    pub origin: Origin,
    /// The backend in use.
    pub backend: Backend,
    /// The reason why the backend is not the preferred one; `None` if it is the preferred one, or
    /// if the request names it.
    pub fallback: Option<String>,
    /// How QEMU and passt are connected; `None` on the other backends.
    pub transport: Option<Transport>,
    /// The hardware address of the card; `None` if QEMU chooses it.
    pub mac: Option<Mac>,
    /// The guest's IPv4 address; `None` if the guest mirrors the host, has no IPv4, or is on a
    /// bridge.
    pub address: Option<HostAddress>,
    /// The guest's router.
    pub gateway: Option<Ipv4Addr>,
    /// The DNS server that the guest gets; `None` if passt chooses it.
    pub dns: Option<IpAddr>,
    /// The published ports.
    pub published: Vec<Publish>,
    /// The process ID of passt at the start; `None` on the other backends.
    pub passt_pid: Option<u32>,
}

impl NicInfo {
    fn of(nic: &NicRecord) -> Self {
        NicInfo {
            id: nic.id.clone(),
            origin: nic.origin.clone(),
            backend: nic.backend,
            fallback: nic.fallback.clone(),
            transport: nic.transport,
            mac: nic.guest.mac,
            address: nic.guest.address,
            gateway: nic.guest.gateway,
            dns: nic.guest.dns,
            published: nic.publish.clone(),
            passt_pid: nic.passt.as_ref().map(|passt| passt.pid.unsigned_abs()),
        }
    }
}

impl LaunchInfo {
    pub(super) fn of(running: &Running) -> Self {
        let (plan, record) = (running.plan(), running.record());
        let nic = plan.nics.first();
        let pid = |program: &Option<super::record::Program>| {
            program.as_ref().map(|program| program.pid.unsigned_abs())
        };
        LaunchInfo {
            name: record.name.clone(),
            backend: nic.backend,
            fallback: nic.fallback.clone(),
            transport: nic.transport,
            mac: nic.mac,
            address: record.guest.address,
            gateway: record.guest.gateway,
            dns: record.guest.dns,
            published: nic.publish.clone(),
            nics: record.nics.iter().map(NicInfo::of).collect(),
            qemu_pid: pid(&record.qemu),
            passt_pid: pid(&record.passt),
            qemu_args: plan.qemu.args.clone(),
            dir: plan.dir.clone(),
            notes: plan.notes.clone(),
            warnings: plan.warnings.clone(),
        }
    }
}
