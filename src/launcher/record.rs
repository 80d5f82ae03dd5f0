//! `launch.json`: the record of a running launch in its directory, for `netlaunch ps` and other
//! programs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

#[cfg(feature = "cli")]
use super::attach::TargetGuest;
#[cfg(feature = "cli")]
use super::launch_dir::{LaunchDirError, LaunchRoot};
#[cfg(feature = "cli")]
use crate::launcher::adopt::is_global_mtu;
use crate::launcher::plan::{Backend, NicPlan, Origin, Plan, Transport};
use crate::sys::state_file::{self, Readers};
use crate::types::{
    FilterName, HostAddress, Id, InterfaceName, Mac, NetworkName, PortSettings, Publish, UserName,
    os_text,
};

/// The version of the JSON forms of a record and of `netlaunch ps`.
pub(crate) const RECORD_VERSION: u32 = 1;

/// A running launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// [`RECORD_VERSION`].
    pub(crate) version: u32,
    /// The name in the request, or that of the launch directory.
    pub(crate) name: String,
    /// The process ID of netlaunch.
    pub(crate) pid: i32,
    /// Seconds since 1970 at the start.
    pub(crate) started: u64,
    /// The backend.
    pub(crate) backend: Backend,
    /// Why the backend is not the preferred one.
    pub(crate) fallback: Option<String>,
    /// How passt and QEMU are connected.
    pub(crate) transport: Option<Transport>,
    /// QEMU, once it runs; `None` in serve mode.
    pub(crate) qemu: Option<Program>,
    /// passt, once it runs; `None` on the other backends.
    pub(crate) passt: Option<Program>,
    /// The guest's place on a bridge; `None` on the other backends.
    #[serde(default)]
    pub(crate) bridge: Option<BridgeAttachment>,
    /// The user that QEMU runs as; `None` is netlaunch's own user.
    #[serde(default)]
    pub(crate) user: Option<UserName>,
    /// The seconds that the guest gets to power down when the launch ends; `None` for none.
    #[serde(default)]
    pub(crate) stop_timeout: Option<u64>,
    /// The guest's network.
    pub(crate) guest: Guest,
    /// Published ports.
    pub(crate) publish: Vec<Publish>,
    /// QEMU's QMP socket, through which the guest gets further NICs; `None` in serve mode.
    #[serde(default, with = "os_text::optional_path")]
    pub(crate) qmp: Option<PathBuf>,
    /// The launch whose guest has the NIC; `None` for a launch with a QEMU of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attached_to: Option<AttachedTo>,
    /// All NICs. The members above describe the first one.
    #[serde(default)]
    pub(crate) nics: Vec<NicRecord>,
    /// The launch directory.
    #[serde(with = "os_text::path")]
    pub(crate) dir: PathBuf,
}

/// One NIC of a running launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NicRecord {
    /// `id=` of the netdev; `None` if QEMU chooses it.
    pub(crate) id: Option<Id>,
    /// The place from which the NIC comes.
    pub(crate) origin: Origin,
    /// The backend.
    pub(crate) backend: Backend,
    /// Why the backend is not the preferred one.
    pub(crate) fallback: Option<String>,
    /// How passt and QEMU are connected.
    pub(crate) transport: Option<Transport>,
    /// passt, once it runs; `None` on the other backends.
    pub(crate) passt: Option<Program>,
    /// The guest's place on a bridge; `None` on the other backends.
    pub(crate) bridge: Option<BridgeAttachment>,
    /// The guest's network.
    pub(crate) guest: Guest,
    /// Published ports.
    pub(crate) publish: Vec<Publish>,
    /// The attachment that supervises it; `None` for a NIC that the guest has from its start.
    #[serde(default)]
    pub(crate) attached: Option<Attached>,
}

#[cfg(feature = "cli")]
impl NicRecord {
    /// Returns whether netlaunch sets the MTU of each virtio card of the guest for this NIC.
    pub(crate) fn has_global_mtu(&self) -> bool {
        matches!(&self.origin, Origin::Adopted { change, .. } if is_global_mtu(change))
    }
}

/// The launch whose guest has got a NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AttachedTo {
    /// Its launch directory.
    #[serde(with = "os_text::path")]
    pub(crate) dir: PathBuf,
    /// The QMP socket of its QEMU.
    #[serde(with = "os_text::path")]
    pub(crate) qmp: PathBuf,
}

/// The attachment of a NIC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attached {
    /// The process ID of its supervisor.
    pub(crate) pid: i32,
    /// Its launch directory.
    #[serde(with = "os_text::path")]
    pub(crate) dir: PathBuf,
}

/// A running program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// Its process ID in the host's PID namespace.
    pub(crate) pid: i32,
    /// The path of the program.
    #[serde(with = "os_text::path")]
    pub(crate) path: PathBuf,
}

/// A guest's place on a bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BridgeAttachment {
    /// The bridge.
    pub(crate) bridge: InterfaceName,
    /// The virtual network whose bridge it is, if the launch names one.
    pub(crate) network: Option<NetworkName>,
    /// The guest's tap, once it is made; `None` if QEMU's helper makes it.
    pub(crate) tap: Option<InterfaceName>,
    /// The VLANs, the isolation and the limits of its port.
    #[serde(flatten)]
    pub(crate) port: PortSettings,
    /// Its filter.
    #[serde(default)]
    pub(crate) filter: Option<FilterName>,
    /// The learned address, if the filter needs the address and the request does not set it.
    #[serde(default)]
    pub(crate) learning: Option<LearnedAddress>,
}

/// The guest's address as the supervisor learned it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LearnedAddress {
    /// The IPv4 address in the filter's rules; `None` while it is not known.
    pub(crate) address: Option<Ipv4Addr>,
    /// The IPv6 addresses in the filter's rules.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) addresses6: Vec<Ipv6Addr>,
}

/// A guest's network. The addresses are `None` if the guest mirrors the host, has no IPv4, or is on
/// a bridge, where a server of that network gives them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Guest {
    /// Its card's address; `None` if QEMU chooses it.
    pub(crate) mac: Option<Mac>,
    /// Its address and prefix length.
    pub(crate) address: Option<HostAddress>,
    /// Its router.
    pub(crate) gateway: Option<Ipv4Addr>,
    /// The DNS server that the guest gets; `None` if passt chooses it.
    pub(crate) dns: Option<IpAddr>,
}

impl Record {
    /// Returns the record of `plan`, which this process starts now.
    pub(crate) fn new(plan: &Plan) -> Self {
        let dir_name = plan.dir.file_name().unwrap_or_default().to_string_lossy();
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let first = NicRecord::new(plan.nics.first());
        Record {
            version: RECORD_VERSION,
            name: plan.name.clone().unwrap_or_else(|| dir_name.into_owned()),
            pid: std::process::id() as i32,
            started: since.map(|d| d.as_secs()).unwrap_or_default(),
            backend: first.backend,
            fallback: first.fallback,
            transport: first.transport,
            qemu: None,
            passt: None,
            bridge: first.bridge,
            user: plan.user.clone(),
            stop_timeout: plan.stop_timeout.map(|time| time.as_secs()),
            guest: first.guest,
            publish: first.publish,
            qmp: None,
            attached_to: None,
            nics: plan.nics.iter().map(NicRecord::new).collect(),
            dir: plan.dir.clone(),
        }
    }

    /// Returns the record of an attachment, which has the name of the guest's launch.
    #[cfg(feature = "cli")]
    pub(super) fn of_attachment(self, guest: &TargetGuest) -> Self {
        let attached_to = AttachedTo { dir: guest.dir.clone(), qmp: guest.socket.clone() };
        Record { name: guest.launch.clone(), attached_to: Some(attached_to), ..self }
    }

    /// Sets the passt of the NIC at `place`.
    pub(super) fn set_passt(&mut self, place: usize, passt: Program) {
        self.change(place, |nic| nic.passt = Some(passt));
    }

    /// Sets the name of the tap of the NIC at `place`.
    pub(super) fn set_tap(&mut self, place: usize, tap: &InterfaceName) {
        self.change_bridge(place, |bridge| bridge.tap = Some(tap.clone()));
    }

    /// Sets the filter of the port of the NIC at `place`, and whether the supervisor learns the
    /// guest's address.
    pub(super) fn set_filter(&mut self, place: usize, filter: &FilterName, learns: bool) {
        self.change_bridge(place, |bridge| {
            bridge.filter = Some(filter.clone());
            bridge.learning = learns.then(LearnedAddress::default);
        });
    }

    /// Sets the learned addresses of the NIC at `place`.
    pub(super) fn set_learned(
        &mut self,
        place: usize,
        address: Option<Ipv4Addr>,
        addresses6: Vec<Ipv6Addr>,
    ) {
        let learned = LearnedAddress { address, addresses6 };
        self.change_bridge(place, |bridge| bridge.learning = Some(learned));
    }

    fn change_bridge(&mut self, place: usize, change: impl FnOnce(&mut BridgeAttachment)) {
        self.change(place, |nic| {
            if let Some(bridge) = &mut nic.bridge {
                change(bridge);
            }
        });
    }

    /// Changes the NIC at `place`; the first one is shown in two places.
    fn change(&mut self, place: usize, change: impl FnOnce(&mut NicRecord)) {
        if let Some(nic) = self.nics.get_mut(place) {
            change(nic);
            if place == 0 {
                self.passt.clone_from(&nic.passt);
                self.bridge.clone_from(&nic.bridge);
            }
        }
    }

    /// Adds the list of NICs to the record of an earlier netlaunch, whose launches had one NIC.
    #[cfg(feature = "cli")]
    fn with_nics(mut self) -> Self {
        if self.nics.is_empty() {
            self.nics.push(NicRecord {
                id: None,
                origin: Origin::Added,
                backend: self.backend,
                fallback: self.fallback.clone(),
                transport: self.transport,
                passt: self.passt.clone(),
                bridge: self.bridge.clone(),
                guest: self.guest.clone(),
                publish: self.publish.clone(),
                attached: None,
            });
        }
        self
    }

    /// Writes the record into its launch directory, atomically and readable for its owner only.
    ///
    /// # Errors
    /// The kernel's error.
    pub(crate) fn write(&self) -> io::Result<()> {
        state_file::replace(&file(&self.dir), &serde_json::to_vec_pretty(self)?, Readers::Owner)
    }
}

impl NicRecord {
    fn new(nic: &NicPlan) -> Self {
        NicRecord {
            id: nic.id.clone(),
            origin: nic.origin.clone(),
            backend: nic.backend,
            fallback: nic.fallback.clone(),
            transport: nic.transport,
            passt: None,
            bridge: nic.bridge.as_ref().map(|bridge| BridgeAttachment {
                bridge: bridge.bridge.clone(),
                network: bridge.network.clone(),
                tap: None,
                port: bridge.port.clone(),
                filter: None,
                learning: None,
            }),
            guest: Guest {
                mac: nic.mac,
                address: nic.addresses.map(|addresses| addresses.address),
                gateway: nic.addresses.map(|addresses| addresses.gateway),
                dns: nic.dns,
            },
            publish: nic.publish.clone(),
            attached: None,
        }
    }
}

/// Returns the records of all live launches below `root`, sorted by directory name. A launch that
/// has not written its record yet, or is about to end, is left out. A record that cannot be used is
/// left out with a warning.
///
/// # Errors
/// The root exists but cannot be read.
#[cfg(feature = "cli")]
pub(crate) fn running(root: &LaunchRoot) -> Result<Vec<Record>, LaunchDirError> {
    let read = |dir: &PathBuf| {
        state_file::read_version(&file(dir), RECORD_VERSION).unwrap_or_else(|error| {
            tracing::warn!(
                "the launch in {} cannot be shown: {}",
                dir.display(),
                crate::types::error_text(&error)
            );
            None
        })
    };
    let records = root.live()?.iter().filter_map(read).map(Record::with_nics).collect();
    Ok(with_attachments(records))
}

/// Moves the NIC of each attachment to the launch whose guest has it, the oldest one first. An
/// attachment whose launch is not in the list is about to end.
#[cfg(feature = "cli")]
fn with_attachments(records: Vec<Record>) -> Vec<Record> {
    let (mut attachments, mut launches): (Vec<Record>, Vec<Record>) =
        records.into_iter().partition(|record| record.attached_to.is_some());
    attachments.sort_by_key(|record| record.started);
    for Record { pid, dir, nics, attached_to, .. } in attachments {
        let Some(AttachedTo { dir: of_launch, .. }) = attached_to else { continue };
        if let Some(launch) = launches.iter_mut().find(|launch| launch.dir == of_launch) {
            let attached = Some(Attached { pid, dir });
            launch.nics.extend(
                nics.into_iter().map(|nic| NicRecord { attached: attached.clone(), ..nic }),
            );
        }
    }
    launches
}

/// Returns the record in a launch directory, whether its launch lives or not; `None` if there is
/// none that can be read.
#[cfg(feature = "cli")]
pub(crate) fn read(dir: &Path) -> Option<Record> {
    state_file::read_version(&file(dir), RECORD_VERSION).ok().flatten()
}

/// Returns the path of the record in a launch directory.
fn file(dir: &Path) -> PathBuf {
    dir.join("launch.json")
}
