//! Describes the parts that a running network has lost, and the commands that restore them.
//!
//! `inspect` and `routing` find the faults, and `repair` restores those of the bridge. The
//! administrator runs the commands: netlaunch itself runs none of them.

use std::fmt;

use ipnet::IpNet;

use crate::firewall::FirewallBackend;
use crate::network::Route;
use crate::sys::netlink::sysctl::Key;
use crate::types::{InterfaceName, Mac};

/// A difference between a running network and the things that its start made, or a route of the
/// host that leads its packets elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The bridge is gone.
    BridgeMissing(InterfaceName),
    /// Another interface has the bridge's name.
    BridgeReplaced(InterfaceName),
    /// The bridge has another name.
    BridgeRenamed {
        /// The bridge.
        bridge: InterfaceName,
        /// The current name.
        now: String,
    },
    /// The bridge is turned off.
    BridgeDown(InterfaceName),
    /// The bridge of the host that the network is on is gone, or its name is that of an interface
    /// that is no bridge.
    HostBridgeMissing(InterfaceName),
    /// The bridge of the host that the network is on is turned off.
    HostBridgeDown(InterfaceName),
    /// The bridge has another MAC address, MTU or STP setting, ARP is off, or its limits are gone.
    BridgeChanged {
        /// The bridge.
        bridge: InterfaceName,
        /// The property that differs.
        property: BridgeProperty,
    },
    /// The bridge lacks an address.
    AddressMissing {
        /// The bridge.
        bridge: InterfaceName,
        /// The address.
        address: IpNet,
        /// The addresses of that IP version that it has.
        instead: Vec<IpNet>,
    },
    /// The route to the bridge's subnet, or a static route of the network, is gone.
    RouteMissing {
        /// The bridge.
        bridge: InterfaceName,
        /// The destination network.
        to: IpNet,
        /// The static route; `None` for the route to the bridge's subnet.
        route: Option<Route>,
    },
    /// A kernel setting that the start made has another value.
    Setting {
        /// The setting.
        key: Key,
        /// The current value.
        value: String,
        /// The value that the network needs.
        wanted: &'static str,
        /// Whether a reload sets it; otherwise the administrator must do so.
        set_by_reload: bool,
    },
    /// Rules of the network are gone.
    RulesMissing {
        /// The tool that made them.
        backend: FirewallBackend,
        /// The parts that are gone.
        parts: Vec<String>,
    },
    /// dnsmasq does not run.
    ServerMissing,
    /// dnsmasq is stopped by a signal and answers nothing.
    ServerStopped(i32),
    /// The host sends packets for guests elsewhere.
    Misrouted {
        /// The destination, in words.
        what: String,
        /// The table of the route.
        table: Option<u32>,
        /// The commands that fix the fault.
        commands: Vec<Vec<String>>,
    },
    /// Packets that guests send beyond the host leave by another interface than the main table
    /// says, or not at all.
    Diverted {
        /// The destination, in words.
        what: String,
        /// The commands that fix the fault.
        commands: Vec<Vec<String>>,
    },
}

/// A property of a bridge that differs from the network's definition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BridgeProperty {
    /// The MAC address is not this one.
    Mac(Mac),
    /// The MTU in bytes is `now` and not `wanted`.
    Mtu {
        /// The current MTU.
        now: u32,
        /// The MTU of the definition.
        wanted: u32,
    },
    /// ARP is off.
    ArpOff,
    /// STP is on (true) or off, against the definition.
    Stp(bool),
    /// It does not filter VLANs, and the definition has some.
    VlansMixed,
    /// Parts of the limits of its traffic are gone.
    Unlimited,
}

impl fmt::Display for BridgeProperty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BridgeProperty::Mac(mac) => write!(f, "another MAC address than {mac}"),
            BridgeProperty::Mtu { now, wanted } => write!(f, "the MTU {now} and not {wanted}"),
            BridgeProperty::ArpOff => {
                f.write_str("ARP off, and so neither guests nor the host find each other")
            }
            BridgeProperty::Stp(true) => f.write_str("STP on, and a guest can become its root"),
            BridgeProperty::Stp(false) => f.write_str("STP off"),
            BridgeProperty::VlansMixed => f.write_str("no VLANs, and all guests are together"),
            BridgeProperty::Unlimited => f.write_str("lost limits of its traffic"),
        }
    }
}

impl Fault {
    /// Returns the fault in two or three words, for a table.
    pub fn short(&self) -> &'static str {
        match self {
            Fault::BridgeMissing(_) | Fault::HostBridgeMissing(_) => "bridge missing",
            Fault::BridgeReplaced(_) => "bridge replaced",
            Fault::BridgeRenamed { .. } => "bridge renamed",
            Fault::BridgeDown(_) | Fault::HostBridgeDown(_) => "bridge down",
            Fault::BridgeChanged { .. } => "bridge changed",
            Fault::AddressMissing { .. } => "address missing",
            Fault::RouteMissing { .. } => "route missing",
            Fault::Setting { key, .. } if key.is_forwarding() => "forwarding off",
            Fault::Setting { .. } => "setting changed",
            Fault::RulesMissing { .. } => "rules missing",
            Fault::ServerMissing => "dnsmasq missing",
            Fault::ServerStopped(_) => "dnsmasq stopped",
            Fault::Misrouted { .. } | Fault::Diverted { .. } => "routed elsewhere",
        }
    }

    /// Returns the kind of the fault and the affected part.
    pub fn subject(&self) -> (&'static str, String) {
        match self {
            Fault::BridgeMissing(bridge)
            | Fault::BridgeReplaced(bridge)
            | Fault::BridgeRenamed { bridge, .. }
            | Fault::BridgeDown(bridge)
            | Fault::HostBridgeMissing(bridge)
            | Fault::HostBridgeDown(bridge)
            | Fault::BridgeChanged { bridge, .. }
            | Fault::AddressMissing { bridge, .. }
            | Fault::RouteMissing { bridge, .. } => ("the bridge", bridge.to_string()),
            Fault::Setting { key, .. } => ("kernel setting", key.to_string()),
            Fault::RulesMissing { backend, .. } => ("own rules", backend.to_string()),
            Fault::ServerMissing | Fault::ServerStopped(_) => ("own server", "dnsmasq".into()),
            Fault::Misrouted { table, .. } => {
                let table = table.map_or("main".to_owned(), |table| table.to_string());
                ("host routes", format!("table {table}"))
            }
            Fault::Diverted { .. } => ("host routes", "beyond the host".into()),
        }
    }

    /// Returns the commands that fix the fault, in order.
    pub fn commands(&self) -> Vec<Vec<String>> {
        let words = |line: String| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let reload = || words("netlaunch firewall reload".into());
        match self {
            Fault::BridgeReplaced(bridge) => {
                vec![words(format!("ip link delete {bridge}")), reload()]
            }
            Fault::BridgeRenamed { bridge, now } => vec![
                words(format!("ip link set {now} down")),
                words(format!("ip link set {now} name {bridge}")),
                reload(),
            ],
            Fault::HostBridgeMissing(bridge) => vec![
                words(format!("ip link add {bridge} type bridge")),
                words(format!("ip link set {bridge} up")),
                reload(),
            ],
            Fault::HostBridgeDown(bridge) => vec![words(format!("ip link set {bridge} up"))],
            Fault::Setting { key, wanted, set_by_reload: false, .. } => {
                vec![words(format!("sysctl -w {key}={wanted}"))]
            }
            Fault::Misrouted { commands, .. } | Fault::Diverted { commands, .. } => {
                commands.clone()
            }
            _ => vec![reload()],
        }
    }

    /// Returns a note about the fix.
    pub fn note(&self) -> &'static str {
        match self {
            Fault::BridgeReplaced(_) => {
                "another program made an interface of this name; guests must not be on two of them"
            }
            Fault::Setting { set_by_reload: true, .. } => {
                "look for the program or the file in /etc/sysctl.d that sets it"
            }
            Fault::Setting { set_by_reload: false, .. } => {
                "write the same into a file in /etc/sysctl.d to keep it"
            }
            Fault::HostBridgeMissing(_) | Fault::HostBridgeDown(_) => {
                "the bridge is the host's own: its network configuration makes it again, with its \
                 ports and addresses"
            }
            Fault::Misrouted { .. } => "the program that made the route may make it again",
            Fault::Diverted { .. } => {
                "no fix is needed if the guests shall use that way, such as a VPN"
            }
            Fault::RulesMissing { .. } => {
                "netlaunch-networks.service reloads after each restart of nftables.service"
            }
            _ => "the reload restores everything that the start of the network made",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::BridgeMissing(bridge) => {
                write!(f, "the bridge {bridge} is gone, and so guests reach nothing")
            }
            Fault::BridgeReplaced(bridge) => write!(
                f,
                "the interface {bridge} is not the network's bridge, which is gone, and so guests \
                 reach nothing"
            ),
            Fault::BridgeRenamed { bridge, now } => write!(
                f,
                "the bridge {bridge} has the name {now} now, which no rule and no server knows"
            ),
            Fault::HostBridgeMissing(bridge) => {
                write!(f, "the host has no bridge {bridge} any more, and so guests reach nothing")
            }
            Fault::BridgeDown(bridge) | Fault::HostBridgeDown(bridge) => {
                write!(f, "the bridge {bridge} is turned off, and so guests reach nothing")
            }
            Fault::BridgeChanged { bridge, property } => {
                write!(f, "the bridge {bridge} has {property}")
            }
            Fault::AddressMissing { bridge, address, instead } => {
                write!(f, "the bridge {bridge} lacks its address {address}")?;
                if !instead.is_empty() {
                    let instead: Vec<_> = instead.iter().map(ToString::to_string).collect();
                    write!(f, " and has {}", instead.join(", "))?;
                }
                f.write_str(", and so guests do not reach the host and nothing beyond")
            }
            Fault::RouteMissing { bridge, to, route } => {
                let (its, via) = match route {
                    None => ("its subnet ", String::new()),
                    Some(route) => ("", format!(" via {}", route.gateway)),
                };
                write!(f, "the network's route to {its}{to}{via} through {bridge} is gone")
            }
            Fault::Setting { key, value, wanted, .. } if key.is_forwarding() => write!(
                f,
                "{key} is {value} and not {wanted}, and so the host forwards nothing for guests"
            ),
            Fault::Setting { key, value, wanted, .. } => {
                write!(f, "{key} is {value} and not {wanted}")
            }
            Fault::RulesMissing { backend, parts } => {
                write!(f, "rules of the network are missing ({backend}): {}", parts.join(", "))
            }
            Fault::ServerMissing => {
                f.write_str("the network's dnsmasq does not run, and so guests get no DHCP and DNS")
            }
            Fault::ServerStopped(pid) => write!(
                f,
                "the network's dnsmasq (process {pid}) is stopped by a signal, and so guests get \
                 no DHCP and DNS"
            ),
            Fault::Misrouted { what, .. } | Fault::Diverted { what, .. } => f.write_str(what),
        }
    }
}
