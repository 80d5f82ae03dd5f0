//! The facts about a host: plain values that a probe fills in and a plan reads.
//!
//! A plan depends on these values only, so a test can make a plan for any host. `netlaunch probe
//! --json` prints these values unchanged. A plan decides by the features of a program, never by its
//! version number.

mod bridge;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use crate::types::{Setting, os_text};

pub use bridge::{Acl, AclRule, AclState, BridgeAccess, FirewallScript, RulesOf, TargetBridge};

/// The reason why the host cannot use a feature, and the fix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The reason, one clause without a period at the end.
    pub why: String,
    /// The fix that the reader can apply, one clause in the imperative.
    pub fix: String,
    /// The settings of the launch that the fix names.
    #[serde(skip)]
    pub settings: &'static [Setting],
}

impl Problem {
    /// Makes a problem from its two clauses.
    pub fn new(why: impl Into<String>, fix: impl Into<String>) -> Self {
        Problem { why: why.into(), fix: fix.into(), settings: &[] }
    }

    /// Sets the settings of the launch that the fix names.
    pub fn about(self, settings: &'static [Setting]) -> Self {
        Problem { settings, ..self }
    }
}

/// The passt program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passt {
    /// Its path; `None` if it was not found.
    #[serde(default, with = "os_text::optional_path")]
    pub path: Option<PathBuf>,
    /// The reason why it cannot be used at all; `None` if it can be started.
    pub problem: Option<Problem>,
    /// The long option names that its help lists, without the leading dashes.
    pub options: BTreeSet<String>,
    /// Whether an option of [`options`](Self::options) takes a value, as its line in the help says.
    /// For an option that is missing here, the help does not say it.
    #[serde(skip)]
    pub takes_value: BTreeMap<String, bool>,
    /// The AppArmor profile that the kernel enforces on it; `None` if there is none.
    pub confinement: Option<Confinement>,
}

impl Passt {
    /// Returns whether its help lists the long option (`one-off`, without dashes).
    pub fn has(&self, option: &str) -> bool {
        self.options.contains(option)
    }

    /// Returns whether a client of a published TCP port gets the guest's first bytes before it has
    /// sent any itself, as with SSH or SMTP.
    ///
    /// Debian 12's passt delays the last segment of the guest's handshake until the client sends
    /// data (measured: a client of SSH that waits for the banner times out). Every passt with
    /// `--map-host-loopback`, which came later, sends that segment at once.
    pub fn delivers_first_bytes(&self) -> bool {
        self.has("map-host-loopback")
    }

    /// Returns whether it takes frames that a card has padded to Ethernet's 60 bytes, as every card
    /// but the virtio ones does.
    ///
    /// Debian 12's passt ignores a padded TCP segment without data, and a padded datagram (measured
    /// with e1000: a download stalls at 64 kB, and datagrams below 18 bytes never arrive). Every
    /// passt with `--map-host-loopback`, which came later, takes them.
    pub fn takes_padded_frames(&self) -> bool {
        self.has("map-host-loopback")
    }
}

/// A security profile that limits the directories in which a program may create files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The profile's name.
    pub profile: String,
    /// The directories below which the program may create sockets and files.
    #[serde(with = "os_text::paths")]
    pub writable: Vec<PathBuf>,
}

impl Confinement {
    /// Returns whether the program may create files below `dir`.
    pub fn allows(&self, dir: &Path) -> bool {
        self.writable.iter().any(|root| dir.starts_with(root))
    }
}

/// The option that makes QEMU's stream netdev reconnect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Reconnect {
    /// `reconnect-ms=` (QEMU 9.2 and later).
    Milliseconds,
    /// `reconnect=` in seconds (QEMU 8.0 to 10.1).
    Seconds,
    /// The netdev has no such option.
    #[default]
    No,
    /// QEMU did not say in time whether the netdev has such an option.
    Unknown,
}

/// The QEMU program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qemu {
    /// Its path; `None` if it was not found.
    #[serde(default, with = "os_text::optional_path")]
    pub path: Option<PathBuf>,
    /// The reason why it cannot be used at all; `None` if it can be started.
    pub problem: Option<Problem>,
    /// The netdev types that are compiled in, as `-netdev help` lists them (`user`, `stream`, ...).
    pub netdevs: BTreeSet<String>,
    /// The option that makes a stream netdev reconnect.
    pub reconnect: Reconnect,
    /// Whether shared memory of a `memory-backend-ram` has a descriptor that passt can map (QEMU
    /// 10.0 and later).
    #[serde(default)]
    pub shared_ram: bool,
    /// The emulator that was asked, where `path` is a script that runs one.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "os_text::optional_path")]
    pub emulator: Option<PathBuf>,
    /// The machine that the launch names; absent where it is one that is known to have PCI, or
    /// where it was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// Whether the machine has a network card if no option asks for one; `None` where the launch
    /// names no machine, or where QEMU did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_card: Option<bool>,
}

/// The buses and the memory of a QEMU machine type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Machine {
    /// The types of its buses, as QEMU's `info qtree` names them: `PCI`, `virtio-mmio-bus`, ...
    pub buses: BTreeSet<String>,
    /// The memory it has without `-m`, in bytes.
    pub memory: Option<u64>,
    /// Whether it makes a card for `-net nic`, and so for QEMU's default network.
    #[serde(default)]
    pub makes_card: bool,
    /// The model of that card, as `info network` of QEMU names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card_model: Option<String>,
}

impl Machine {
    /// The network card for a bus of this machine; `None` where no bus takes one.
    pub fn card(&self) -> Option<&'static str> {
        const CARDS: [(&str, &str); 6] = [
            ("virtual-css-bus", "virtio-net-ccw"),
            ("PCI", "virtio-net-pci"),
            ("PCIE", "virtio-net-pci"),
            ("virtio-mmio-bus", "virtio-net-device"),
            ("ISA", "ne2k_isa"),
            ("usb-bus", "usb-net"),
        ];
        CARDS.iter().find(|(bus, _)| self.buses.contains(*bus)).map(|(_, card)| *card)
    }
}

/// The answers of libvirt, which virsh gives. A missing libvirt is no problem, because netlaunch
/// does not need it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Libvirt {
    /// The path of virsh; `None` if it was not found.
    #[serde(default, with = "os_text::optional_path")]
    pub virsh: Option<PathBuf>,
    /// Whether libvirt's domain capabilities or its XML schema list the passt backend; `None` if
    /// neither could be read.
    pub passt_backend: Option<bool>,
    /// The source of the answer, or the reason why there is no answer.
    pub why: String,
}

/// The paths of the firewall tools for bridged networks; `None` for a tool that was not found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Firewall {
    /// The command of nftables.
    #[serde(default, with = "os_text::optional_path")]
    pub nft: Option<PathBuf>,
    /// The command of iptables.
    #[serde(default, with = "os_text::optional_path")]
    pub iptables: Option<PathBuf>,
    /// The command of ebtables.
    #[serde(default, with = "os_text::optional_path")]
    pub ebtables: Option<PathBuf>,
}

/// A feature of the kernel that this process tried.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KernelFeature {
    /// Whether the feature worked.
    pub usable: bool,
    /// The result of the attempt, in words.
    pub why: String,
    /// The change that would make it work; `None` if it works or if there is no fix.
    pub fix: Option<String>,
}

/// The features that the kernel gives to this process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Kernel {
    /// Unprivileged user namespaces, which passt uses to isolate itself.
    pub user_namespaces: KernelFeature,
    /// PID namespaces. When netlaunch runs as root, they end passt together with netlaunch.
    pub pid_namespaces: KernelFeature,
    /// KVM; usable only if a virtual processor really ran.
    pub kvm: KernelFeature,
    /// ICMP echo sockets, by which a guest on passt or slirp pings.
    pub ping: KernelFeature,
}

/// The host's own network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Whether netlaunch runs as root; passt then changes to another user.
    pub root: bool,
    /// The interface of the IPv4 default route.
    pub default_v4: Option<String>,
    /// The interface of the IPv6 default route.
    pub default_v6: Option<String>,
    /// The reason why the routes are not known; `None` if they are known.
    pub unknown: Option<String>,
    /// The IPv4 subnets that the host routes, without the default route.
    pub routes: Vec<Ipv4Net>,
    /// The resolvers of /etc/resolv.conf, in their order; the loopback address in place of 0.0.0.0
    /// and ::.
    pub resolvers: Vec<IpAddr>,
    /// Why there are no resolvers; `None` where there are.
    pub resolvers_problem: Option<String>,
    /// The file that names the resolvers.
    pub resolv_conf: PathBuf,
    /// The first port on which this user can listen; ports below it need a privilege.
    #[serde(skip)]
    pub first_port: u16,
}

/// All facts that a plan depends on. `bridge` and `target` are probed only for a launch on a
/// bridge.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The passt program.
    pub passt: Passt,
    /// The QEMU program.
    pub qemu: Qemu,
    /// The host's own network.
    pub host: Host,
    /// The means by which this user can attach guests to bridges.
    pub bridge: BridgeAccess,
    /// The bridge that the first NIC on a bridge names, directly or by its network.
    pub target: Option<TargetBridge>,
    /// The bridges that the further NICs on a bridge name, in the order of the NICs.
    pub further_targets: Vec<TargetBridge>,
}
