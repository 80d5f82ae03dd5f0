//! The host's links, addresses and routes as values, and the check whether a subnet is free.
//!
//! Interface names are plain text here: the kernel allows some names that [`InterfaceName`] does
//! not, and the subnets of these interfaces count as well.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::types::InterfaceName;

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// The name.
    pub name: String,
    /// The number.
    pub index: u32,
    /// Whether it is a bridge.
    pub bridge: bool,
    /// Whether it is turned on.
    pub up: bool,
    /// The largest packet in bytes; 0 if the kernel does not say.
    pub mtu: u32,
    /// The hardware address, if it has one.
    pub mac: Option<[u8; 6]>,
    /// The number of the bridge, bond or similar device that it belongs to.
    pub master: Option<u32>,
    /// The group, a number without a meaning to the kernel; 0 by default.
    pub group: u32,
    /// The kernel's name for the kind, such as `veth`; `None` for hardware and for loopback.
    pub kind: Option<String>,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// Whether ARP is off (`ip link set NAME arp off`): the host neither sends ARP requests nor
    /// answers them on this interface.
    pub noarp: bool,
    /// Whether a bridge takes part in the spanning tree protocol; `None` for other kinds.
    pub stp: Option<bool>,
    /// Whether a bridge keeps VLANs apart; `None` for other kinds.
    pub vlan_filtering: Option<bool>,
    /// Whether it is a port whose bridge forwards frames from it and to it: the spanning tree
    /// protocol has not put it into another state, and it is on.
    pub forwards: bool,
    /// The alias, a text from an administrator or a program (`ip link set NAME alias TEXT`).
    pub alias: Option<String>,
    /// The number of the interface that it is stacked on, or of the other end of a veth; `None` if
    /// it has none, or if that interface is in another network namespace.
    pub peer: Option<u32>,
}

/// An address of an interface, with its subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkAddress {
    /// The interface's number.
    pub link: u32,
    /// The address and its prefix length.
    pub address: IpNet,
}

impl Link {
    /// Returns the interface with this number among these. That is fast if they are sorted by their
    /// numbers, as [`Netlink::links`](super::Netlink::links) returns them.
    pub fn among(links: &[Link], index: u32) -> Option<&Link> {
        match links.binary_search_by_key(&index, |link| link.index) {
            Ok(at) => links.get(at),
            Err(_) => links.iter().find(|link| link.index == index),
        }
    }
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoute {
    /// The destination.
    pub to: IpNet,
    /// The interface's number; `None` for a route with several interfaces or without one.
    pub link: Option<u32>,
    /// The numbers of all interfaces; several for equal-cost next hops (ECMP).
    pub links: Vec<u32>,
    /// The number of the table.
    pub table: u32,
    /// Whether the interface reaches it without a router.
    pub direct: bool,
    /// Whether the route came from an IPv6 router's advertisement. IPv6 forwarding removes such a
    /// route unless the interface's `accept_ra` is 2 (ip-sysctl.txt in the kernel).
    pub advertised: bool,
}

/// The host's links, addresses and routes at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostNet {
    /// The interfaces.
    pub links: Vec<Link>,
    /// The addresses of the interfaces.
    pub addresses: Vec<LinkAddress>,
    /// The routes of the main table.
    pub routes: Vec<HostRoute>,
    /// The routes of the other tables, except the kernel's table of local addresses.
    pub other_routes: Vec<HostRoute>,
    /// The routers of the routes in all tables.
    pub next_hops: Vec<IpAddr>,
}

/// The reason why a subnet is not free.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Conflict {
    /// An interface has an overlapping subnet.
    Address {
        /// The interface's name.
        link: String,
        /// The interface's address and subnet.
        address: IpNet,
    },
    /// A route leads the guests' packets elsewhere, or the guests' subnet would hide directly
    /// reached hosts.
    Route {
        /// The names of the interfaces, if the route has any.
        link: Option<String>,
        /// The destination of the route.
        to: IpNet,
    },
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Conflict::Address { link, address } => write!(f, "{link} has the address {address}"),
            Conflict::Route { link: Some(link), to } => {
                write!(f, "the host has a route to {to} through {link}")
            }
            Conflict::Route { link: None, to } => write!(f, "the host has a route to {to}"),
        }
    }
}

impl HostNet {
    /// Returns the interface of that name.
    pub fn link(&self, name: &InterfaceName) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name.as_str())
    }

    /// Returns the interfaces that belong to the bridge `name`.
    pub fn ports(&self, name: &InterfaceName) -> Vec<&Link> {
        let Some(bridge) = self.link(name) else { return Vec::new() };
        self.links.iter().filter(|link| link.master == Some(bridge.index)).collect()
    }

    /// Returns the host's present use of `subnet`, if any; ignores the interface `except`.
    ///
    /// These count as a conflict: an address whose subnet overlaps, a route to a part of `subnet`,
    /// and a route that reaches all of it without a router. A default route is no conflict, nor is
    /// a route through a router to something larger, since the guests' subnet is more specific.
    /// IPv6 link-local subnets (fe80::/10) exist on every interface and are no conflict.
    pub fn conflict(&self, subnet: IpNet, except: Option<&InterfaceName>) -> Option<Conflict> {
        if is_link_local(&subnet) {
            return None;
        }
        let subnet = subnet.trunc();
        let except = except.and_then(|name| self.link(name)).map(|link| link.index);
        let overlaps = |net: &IpNet| subnet.contains(net) || net.contains(&subnet);
        let address = self
            .addresses
            .iter()
            .filter(|address| Some(address.link) != except && !is_link_local(&address.address))
            .find(|address| overlaps(&address.address.trunc()))
            .map(|found| Conflict::Address { link: self.name(found.link), address: found.address });
        address.or_else(|| {
            self.routes
                .iter()
                .filter(|route| route.link.is_none() || route.link != except)
                .filter(|route| route.to.prefix_len() > 0)
                .find(|route| {
                    subnet.contains(&route.to) || route.direct && route.to.contains(&subnet)
                })
                .map(|found| {
                    let names: Vec<_> = found.links.iter().map(|link| self.name(*link)).collect();
                    let link = (!names.is_empty()).then(|| names.join(" and "));
                    Conflict::Route { link, to: found.to }
                })
        })
    }

    /// Returns the names of the interfaces of the default routes.
    pub fn uplinks(&self) -> Vec<String> {
        let default = self.routes.iter().filter(|route| route.to.prefix_len() == 0);
        let mut names: Vec<String> =
            default.flat_map(|r| &r.links).map(|index| self.name(*index)).collect();
        names.sort();
        names.dedup();
        names
    }

    /// Returns the name of the interface of that number.
    pub fn name(&self, index: u32) -> String {
        let link = self.links.iter().find(|link| link.index == index);
        link.map_or_else(|| format!("interface {index}"), |link| link.name.clone())
    }
}

/// Returns whether it is an IPv6 link-local subnet or address. The kernel gives each interface one.
pub(crate) fn is_link_local(net: &IpNet) -> bool {
    matches!(net, IpNet::V6(net) if net.addr().is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostNet {
        let link = |name: &str, index, master| Link {
            name: name.to_owned(),
            index,
            bridge: name == "br0",
            up: true,
            mtu: 1500,
            master,
            ..Link::default()
        };
        let address = |link, address: &str| LinkAddress { link, address: address.parse().unwrap() };
        let route = |to: &str, link, direct| HostRoute {
            to: to.parse().unwrap(),
            link,
            links: link.into_iter().collect(),
            table: 254,
            direct,
            advertised: false,
        };
        HostNet {
            links: vec![link("eth0", 2, None), link("br0", 3, None), link("tap0", 4, Some(3))],
            addresses: vec![
                address(2, "192.0.2.7/24"),
                address(3, "192.168.122.1/24"),
                address(2, "fe80::1/64"),
                address(2, "2001:db8:1::7/64"),
            ],
            routes: vec![
                route("0.0.0.0/0", Some(2), false),
                route("192.0.2.0/24", Some(2), true),
                route("192.168.122.0/24", Some(3), true),
                route("10.0.0.0/8", Some(2), false),
                route("10.77.5.0/24", None, false),
                route("172.16.0.0/12", Some(2), true),
            ],
            other_routes: Vec::new(),
            next_hops: Vec::new(),
        }
    }

    #[test]
    fn free_and_taken_subnets() {
        let host = host();
        let br0: InterfaceName = "br0".parse().unwrap();
        let conflict = |subnet: &str| host.conflict(subnet.parse().unwrap(), Some(&br0));
        for free in
            ["192.168.122.0/24", "10.1.0.0/16", "192.0.3.0/24", "2001:db8:2::/64", "fe80::5/64"]
        {
            assert_eq!(conflict(free), None, "{free}");
        }
        for (taken, why) in [
            ("192.0.2.128/25", "eth0 has the address 192.0.2.7/24"),
            ("192.0.0.0/16", "eth0 has the address 192.0.2.7/24"),
            ("10.77.0.1/16", "the host has a route to 10.77.5.0/24"),
            ("172.20.0.1/24", "the host has a route to 172.16.0.0/12 through eth0"),
            ("2001:db8:1::1/64", "eth0 has the address 2001:db8:1::7/64"),
        ] {
            assert_eq!(conflict(taken).unwrap().to_string(), why, "{taken}");
        }
        let taken = host.conflict("192.168.122.9/24".parse().unwrap(), None).unwrap();
        assert_eq!(taken.to_string(), "br0 has the address 192.168.122.1/24");
    }

    #[test]
    fn ports_are_those_of_the_bridge() {
        let host = host();
        let names = |of: &str| -> Vec<String> {
            host.ports(&of.parse().unwrap()).iter().map(|link| link.name.clone()).collect()
        };
        assert_eq!(names("br0"), ["tap0"]);
        assert_eq!(names("eth0"), [] as [String; 0]);
        assert_eq!(names("none"), [] as [String; 0]);
    }
}
