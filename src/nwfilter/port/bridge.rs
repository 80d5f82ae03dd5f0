//! Finds where the filter of a port can see its frames: on the bridge of the port, or on the
//! interface itself. Returns why an interface can have no filter.
//!
//! The hooks of nftables' bridge family, of ebtables and of br_netfilter see only the frames that a
//! kernel bridge receives from its ports or sends to them. The frames of any other interface pass
//! none of these hooks, so a filter there would have no effect. This is true for the bridge itself
//! (its own frames have no port), for an interface whose master is not a bridge (a bond, a team, a
//! VRF, Open vSwitch), and for an interface without a master, such as ipvlan and loopback.
//!
//! A macvtap or macvlan interface without a master is filtered on its own hooks, which see all
//! frames in both directions ([`crate::firewall::PortHooks::Interface`]). A tap without a bridge is
//! not: its frames end in the host, which routes them.

use std::fs;

use crate::firewall::PortHooks;
use crate::firewall::port_nft::has_hook;
use crate::nwfilter::Binding;
use crate::sys::netlink::{Link, Netlink};
use crate::types::facts::Problem;
use crate::types::{InterfaceName, Mac};

use super::BindingError;

/// Why a filter on an interface would see no frame of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotOnBridge {
    /// The interface is loopback.
    Loopback,
    /// The interface is a bridge.
    Bridge,
    /// The frames of this kind of interface pass no bridge, and it cannot join one.
    CannotJoin {
        /// The kind: ipvlan or ipvtap.
        kind: String,
    },
    /// The interface has a master that is not a bridge.
    OtherMaster {
        /// The name of the master.
        master: String,
        /// The kind of the master, such as `bond`.
        kind: Option<String>,
    },
    /// The interface has no master.
    NoMaster,
}

/// Where the filter of a port sees its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site<'a> {
    /// On the bridge that the interface is a port of.
    Bridge(&'a Link),
    /// On the interface itself, a macvtap or macvlan, with the interface below it; `None` if that
    /// is in another network namespace.
    Interface(Option<&'a Link>),
}

impl Site<'_> {
    /// Returns the hooks at this site.
    pub(super) fn hooks(self) -> PortHooks {
        match self {
            Site::Bridge(_) => PortHooks::Bridge,
            Site::Interface(_) => PortHooks::Interface,
        }
    }
}

impl NotOnBridge {
    /// Returns the reason why a filter on `port` has no effect, and the fix.
    pub fn problem(&self, port: &InterfaceName) -> Problem {
        match self {
            NotOnBridge::Loopback => Problem::new(
                "it is the loopback interface, which no guest uses",
                "bind the port of a bridge that the guest is behind",
            ),
            NotOnBridge::Bridge => Problem::new(
                "it is a bridge, and filters see the frames of a bridge's ports",
                "bind the port that the guest is behind: 'bridge link' lists them",
            ),
            NotOnBridge::CannotJoin { kind } => Problem::new(
                format!("it is of the kind {kind}, whose frames pass no bridge"),
                "give the guest a tap on a bridge or a macvtap, and bind that",
            ),
            NotOnBridge::OtherMaster { master, kind } => member(port, master, kind.as_deref()),
            NotOnBridge::NoMaster => Problem::new(
                "it is on no bridge, and filters see the frames of a bridge's ports only",
                format!("put it on its bridge first: ip link set {port} master BRIDGE"),
            ),
        }
    }
}

/// Returns the problem of a port whose `master` is not a bridge.
fn member(port: &InterfaceName, master: &str, kind: Option<&str>) -> Problem {
    match kind {
        Some(kind @ ("bond" | "team")) => Problem::new(
            format!("it belongs to the {kind} {master}, which hands its frames on as its own"),
            format!("put {master} on a bridge, and bind {master}"),
        ),
        Some("openvswitch") => Problem::new(
            format!(
                "it belongs to Open vSwitch ({master}), whose frames pass no bridge of the kernel"
            ),
            "put a bridge of the kernel between the guest and Open vSwitch, and bind the guest's port there",
        ),
        kind => {
            let kind = kind.map_or_else(String::new, |kind| format!(", a {kind}"));
            Problem::new(
                format!("it belongs to {master}{kind}, which is no bridge"),
                format!("put it on a bridge: ip link set {port} master BRIDGE"),
            )
        }
    }
}

/// Returns where a filter sees the frames of an interface; `links` has its master, and the
/// interface below it.
///
/// # Errors
/// [`NotOnBridge`] if a filter on the interface would see no frame of a guest.
pub fn find<'a>(link: &Link, links: &'a [Link]) -> Result<Site<'a>, NotOnBridge> {
    if link.bridge {
        return Err(NotOnBridge::Bridge);
    }
    if let Some(number) = link.master {
        return match Link::among(links, number) {
            Some(master) if master.bridge => Ok(Site::Bridge(master)),
            Some(master) => Err(NotOnBridge::OtherMaster {
                master: master.name.clone(),
                kind: master.kind.clone(),
            }),
            None => {
                Err(NotOnBridge::OtherMaster { master: format!("interface {number}"), kind: None })
            }
        };
    }
    match link.kind.as_deref() {
        Some("macvtap" | "macvlan") => {
            Ok(Site::Interface(link.peer.and_then(|number| Link::among(links, number))))
        }
        Some(kind @ ("ipvlan" | "ipvtap")) => {
            Err(NotOnBridge::CannotJoin { kind: kind.to_owned() })
        }
        _ if link.loopback => Err(NotOnBridge::Loopback),
        _ => Err(NotOnBridge::NoMaster),
    }
}

/// The names of the interfaces around a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Neighborhood {
    pub(super) hooks: PortHooks,
    /// The bridge of the port.
    pub(super) bridge: Option<InterfaceName>,
    /// The interface below a port without a bridge.
    pub(super) lower: Option<InterfaceName>,
}

/// Asks the kernel where a filter sees the frames of the port with this name and interface index.
///
/// # Errors
/// [`BindingError::NotOnBridge`], [`BindingError::NoPort`], or the error of the kernel.
pub(super) async fn of_port(
    port: &InterfaceName,
    index: u32,
) -> Result<Neighborhood, BindingError> {
    let netlink = Netlink::open()?;
    let gone = || BindingError::NoPort(port.clone());
    let link = netlink.link_by_index(index).await?.ok_or_else(gone)?;
    let mut around = Vec::new();
    for other in [link.master, link.peer].into_iter().flatten() {
        around.extend(netlink.link_by_index(other).await?);
    }
    let failed = |why| BindingError::NotOnBridge { port: port.clone(), why };
    let site = find(&link, &around).map_err(failed)?;
    let (bridge, lower) = match site {
        Site::Bridge(bridge) => {
            (Some(bridge.name.parse().map_err(|_| failed(NotOnBridge::NoMaster))?), None)
        }
        Site::Interface(lower) => (None, lower.and_then(|lower| lower.name.parse().ok())),
    };
    if site.hooks() == PortHooks::Interface && !has_hook(port) {
        return Err(BindingError::Unnameable(port.clone()));
    }
    Ok(Neighborhood { hooks: site.hooks(), bridge, lower })
}

/// Checks the `<linkdev>` of a binding: libvirt writes the physical interface of a macvtap there.
///
/// # Errors
/// [`BindingError::LinkDevice`] if it is not the interface below the port.
pub(super) fn check_linkdev(
    binding: &Binding,
    Neighborhood { bridge, lower, .. }: &Neighborhood,
) -> Result<(), BindingError> {
    let Some(linkdev) = &binding.linkdev else { return Ok(()) };
    let (why, fix) = match (bridge, lower) {
        (Some(bridge), _) => {
            (format!("the port is on the bridge {bridge}"), "remove <linkdev>".to_owned())
        }
        (None, Some(lower)) if lower == linkdev => return Ok(()),
        (None, Some(lower)) => (
            format!("the interface below the port is {lower}"),
            format!("write <linkdev name='{lower}'/>, or remove it"),
        ),
        (None, None) => (
            "the interface below the port is in another network namespace".to_owned(),
            "remove <linkdev>".to_owned(),
        ),
    };
    let (port, linkdev) = (binding.port.clone(), linkdev.clone());
    Err(BindingError::LinkDevice { port, linkdev, why, fix })
}

/// Checks the variable `MAC` of a binding. With another value than the guest's address, the rules
/// would hold the guest to an address that the learner and the reports of the port do not know.
///
/// # Errors
/// [`BindingError::MacParameter`] if a value is another address.
pub(super) fn check_mac(binding: &Binding) -> Result<(), BindingError> {
    let differs = |value: &str| value.parse::<Mac>().is_ok_and(|mac| mac != binding.mac);
    let mut values = binding.parameters.iter().filter(|(name, _)| name.as_str() == "MAC");
    match values.find(|(_, value)| differs(value.as_str())) {
        None => Ok(()),
        Some((_, value)) => Err(BindingError::MacParameter {
            port: binding.port.clone(),
            value: value.to_string(),
            mac: binding.mac,
        }),
    }
}

/// Checks that the tools of iptables read the name of a port as this one interface.
///
/// # Errors
/// [`BindingError::Pattern`] or [`BindingError::Quoted`].
pub(super) fn check_iptables_name(port: &InterfaceName) -> Result<(), BindingError> {
    match port.as_str() {
        name if name.ends_with('+') => Err(BindingError::Pattern(port.clone())),
        name if name.contains('"') => Err(BindingError::Quoted(port.clone())),
        _ => Ok(()),
    }
}

/// Returns whether iptables sees the packets that this port's bridge forwards: br_netfilter is on
/// for all bridges or for this one. Without the module there is no setting yet; the physdev match
/// of iptables loads the module, and then the setting is on (kernel,
/// Documentation/networking/ip-sysctl.rst).
pub(super) fn iptables_is_called(port: &InterfaceName) -> bool {
    let on = |path: String| fs::read_to_string(path).ok().map(|text| text.trim() == "1");
    let all = |tool: &str| on(format!("/proc/sys/net/bridge/bridge-nf-call-{tool}"));
    let one = |tool: &str| on(format!("/sys/class/net/{port}/brport/bridge/bridge/nf_call_{tool}"));
    ["iptables", "ip6tables"]
        .into_iter()
        .all(|tool| all(tool).unwrap_or(true) || one(tool).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, kind: &str, master: Option<u32>) -> Link {
        let bridge = kind == "bridge";
        let kind = Some(kind.to_owned()).filter(|kind| !kind.is_empty());
        Link { index, name: name.to_owned(), kind, bridge, master, ..Link::default() }
    }

    #[test]
    fn only_a_port_of_a_bridge_has_a_bridge() {
        let masters = [
            link(2, "br0", "bridge", None),
            link(3, "bond0", "bond", None),
            link(4, "ovs-system", "openvswitch", None),
            link(5, "vrf0", "vrf", None),
        ];
        for (kind, master, words) in [
            ("veth", Some(2), None),
            ("macvlan", Some(2), None),
            ("bond", Some(2), None),
            ("bridge", None, Some("it is a bridge")),
            ("ipvtap", None, Some("of the kind ipvtap, whose frames pass no bridge")),
            ("tun", None, Some("it is on no bridge")),
            ("vlan", None, Some("it is on no bridge")),
            ("", Some(3), Some("the bond bond0")),
            ("tun", Some(4), Some("Open vSwitch (ovs-system)")),
            ("veth", Some(5), Some("it belongs to vrf0, a vrf, which is no bridge")),
            ("veth", Some(9), Some("it belongs to interface 9")),
        ] {
            let link = link(7, "vnet0", kind, master);
            let found = find(&link, &masters);
            match words {
                None => assert_eq!(found, Ok(Site::Bridge(&masters[0])), "{kind}"),
                Some(words) => {
                    let problem = found.unwrap_err().problem(&"vnet0".parse().unwrap());
                    assert!(problem.why.contains(words), "{kind}: {problem:?}");
                }
            }
        }
        let lo = Link { loopback: true, ..link(1, "lo", "", None) };
        assert_eq!(find(&lo, &masters), Err(NotOnBridge::Loopback));
        for kind in ["macvtap", "macvlan"] {
            let above = |lower| Link { peer: lower, ..link(7, "m0", kind, None) };
            let lower = Some(&masters[1]);
            assert_eq!(find(&above(Some(3)), &masters), Ok(Site::Interface(lower)), "{kind}");
            assert_eq!(find(&above(None), &masters), Ok(Site::Interface(None)), "{kind}");
        }
    }

    #[test]
    fn linkdev_is_the_interface_below_the_port() {
        let name = |name: &str| Some(name.parse().unwrap());
        let on_bridge = Neighborhood { hooks: PortHooks::Bridge, bridge: name("br0"), lower: None };
        let above = |lower| Neighborhood { hooks: PortHooks::Interface, bridge: None, lower };
        for (linkdev, around, words) in [
            ("", on_bridge.clone(), None),
            ("", above(None), None),
            ("<linkdev name='eth0'/>", above(name("eth0")), None),
            ("<linkdev name='eth0'/>", above(name("eth1")), Some("below the port is eth1; write")),
            ("<linkdev name='eth0'/>", above(None), Some("in another network namespace; remove")),
            ("<linkdev name='eth0'/>", on_bridge, Some("on the bridge br0; remove <linkdev>")),
        ] {
            let xml = format!(
                "<filterbinding><portdev name='m0'/>{linkdev}<mac address='52:54:00:00:00:01'/>\
                 <filterref filter='f'/></filterbinding>"
            );
            let binding = Binding::parse(xml.as_bytes()).unwrap();
            match (check_linkdev(&binding, &around), words) {
                (Ok(()), None) => {}
                (Err(error), Some(words)) => {
                    assert!(error.to_string().contains(words), "{error}");
                }
                (found, _) => panic!("{linkdev} {around:?}: {found:?}"),
            }
        }
    }
}
