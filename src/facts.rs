//! What was found out about a host: plain values that planning reads and probing fills in.
//!
//! Everything a plan depends on is here, so a plan can be made for any host in a test, and
//! `netlaunch probe --json` is these values as they are. Features count, never version numbers.

mod bridge;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

pub use bridge::{Acl, AclRule, AclState, Bridge, FirewallScript, Target};

/// Why something cannot be used here, and what would change that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// One clause, without a final stop.
    pub why: String,
    /// What the reader can do about it, one clause in the imperative.
    pub fix: String,
}

impl Problem {
    /// A problem from its two clauses.
    pub fn new(why: impl Into<String>, fix: impl Into<String>) -> Self {
        Problem { why: why.into(), fix: fix.into() }
    }
}

/// The passt program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passt {
    /// Where it is; absent when it was not found.
    pub path: Option<PathBuf>,
    /// Why it cannot be used at all; absent when it can be started.
    pub problem: Option<Problem>,
    /// Long option names found in its help, without dashes.
    pub options: BTreeSet<String>,
    /// The AppArmor profile that is enforced on it; absent where none is.
    pub confinement: Option<Confinement>,
}

impl Passt {
    /// Whether its help names the long option (`one-off`, without dashes).
    pub fn has(&self, option: &str) -> bool {
        self.options.contains(option)
    }
}

/// A security profile that limits where a program may create files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The profile's name.
    pub profile: String,
    /// Directories below which it may create sockets and files.
    pub writable: Vec<PathBuf>,
}

impl Confinement {
    /// Whether files below `dir` can be created.
    pub fn allows(&self, dir: &Path) -> bool {
        self.writable.iter().any(|root| dir.starts_with(root))
    }
}

/// How QEMU's stream netdev can be told to connect again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reconnect {
    /// `reconnect-ms=` (QEMU 9.2 and later).
    Milliseconds,
    /// `reconnect=` in seconds (QEMU 8.0 to 10.1).
    Seconds,
    /// Not at all.
    #[default]
    No,
}

/// The QEMU program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Qemu {
    /// Where it is; absent when it was not found.
    pub path: Option<PathBuf>,
    /// Why it cannot be used at all; absent when it can be started.
    pub problem: Option<Problem>,
    /// The netdev types compiled in, as `-netdev help` lists them (`user`, `stream`, ...).
    pub netdevs: BTreeSet<String>,
    /// Whether and how a stream netdev reconnects.
    pub reconnect: Reconnect,
}

/// libvirt, asked through virsh. Absent libvirt is no problem: netlaunch does not need it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Libvirt {
    /// Where virsh is; absent when it was not found.
    pub virsh: Option<PathBuf>,
    /// Whether libvirt's domain capabilities or its XML schema name the passt backend; absent
    /// when neither could be read.
    pub passt_backend: Option<bool>,
    /// What the answer rests on, or why there is none.
    pub why: String,
}

/// The firewall tools that bridged networks would use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// nftables' command.
    pub nft: Option<PathBuf>,
    /// iptables' command.
    pub iptables: Option<PathBuf>,
    /// ebtables' command.
    pub ebtables: Option<PathBuf>,
}

/// One thing the kernel can or cannot do for us.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ability {
    /// Whether it was seen to work.
    pub usable: bool,
    /// What was seen.
    pub why: String,
    /// What would make it work; absent when it does.
    pub fix: Option<String>,
}

/// What the kernel offers to this process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Unprivileged user namespaces, which passt isolates itself with.
    pub user_namespaces: Ability,
    /// PID namespaces, which keep passt from outliving netlaunch when both are root's.
    pub pid_namespaces: Ability,
    /// KVM that has really run a virtual processor.
    pub kvm: Ability,
}

/// The host's own network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Whether netlaunch runs as root: passt then changes to another user.
    pub root: bool,
    /// The interface of the IPv4 default route.
    pub default_v4: Option<String>,
    /// The interface of the IPv6 default route.
    pub default_v6: Option<String>,
    /// Why the routes are not known; `None` where they are.
    pub unknown: Option<String>,
    /// The IPv4 subnets the host routes, the default route aside.
    pub routes: Vec<Ipv4Net>,
    /// The resolvers of /etc/resolv.conf, in order.
    pub resolvers: Vec<IpAddr>,
}

/// All that a plan depends on. The last two are looked up for launches on a bridge only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The passt program.
    pub passt: Passt,
    /// The QEMU program.
    pub qemu: Qemu,
    /// The host's own network.
    pub host: Host,
    /// How this user may join bridges.
    pub bridge: Bridge,
    /// The bridge that the request names, itself or by its network.
    pub target: Option<Target>,
}
