//! What the host has as a value: links, addresses, routes; and whether a subnet is still free.
//!
//! Names are text here: the kernel allows some that [`InterfaceName`] does not, and their subnets
//! count all the same.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::types::InterfaceName;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// Whether it is a bridge.
    pub bridge: bool,
    /// Whether it is turned on.
    pub up: bool,
    /// The largest packet in bytes; 0 where the kernel does not say.
    pub mtu: u32,
    /// Its hardware address, where it has one.
    pub mac: Option<[u8; 6]>,
    /// The number of the bridge, bond or the like that it belongs to.
    pub master: Option<u32>,
    /// Its group, a number without a meaning to the kernel; 0 unless somebody sets it.
    pub group: u32,
}

/// An address of an interface, with its subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkAddress {
    /// The interface's number.
    pub link: u32,
    /// The address and its prefix length.
    pub address: IpNet,
}

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoute {
    /// Where to.
    pub to: IpNet,
    /// The interface's number; none for a route with several, or to nowhere.
    pub link: Option<u32>,
    /// Whether the interface reaches it without a router.
    pub direct: bool,
    /// Whether it was learnt from an IPv6 router's advertisement, and so would be lost by IPv6
    /// forwarding unless the interface's `accept_ra` is 2 (ip-sysctl.txt in the kernel).
    pub advertised: bool,
}

/// What the host has at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostNet {
    /// Its interfaces.
    pub links: Vec<Link>,
    /// Their addresses.
    pub addresses: Vec<LinkAddress>,
    /// The routes of its main table.
    pub routes: Vec<HostRoute>,
    /// The routers of the routes of all tables.
    pub next_hops: Vec<IpAddr>,
}

/// What stands in the way of a subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// An interface's subnet overlaps.
    Address {
        /// The interface's name.
        link: String,
        /// Its address and subnet.
        address: IpNet,
    },
    /// A route leads the guests' packets elsewhere, or the guests would hide its neighbours.
    Route {
        /// The interface's name, where the route has one.
        link: Option<String>,
        /// Where the route leads.
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
    /// The interface of that name.
    pub fn link(&self, name: &InterfaceName) -> Option<&Link> {
        self.links.iter().find(|link| link.name == name.as_str())
    }

    /// The interfaces that belong to the bridge `name`.
    pub fn ports(&self, name: &InterfaceName) -> Vec<&Link> {
        let Some(bridge) = self.link(name) else { return Vec::new() };
        self.links.iter().filter(|link| link.master == Some(bridge.index)).collect()
    }

    /// What the host uses `subnet` for already, interface `except` left out of account.
    ///
    /// In the way are an address whose subnet overlaps, a route to a part of `subnet`, and a route
    /// that reaches all of it without a router. A default route is not, nor one by a router to
    /// something larger: the guests' subnet is more specific. IPv6 link-local subnets
    /// (fe80::/10) are every interface's own.
    pub fn conflict(&self, subnet: IpNet, except: Option<&InterfaceName>) -> Option<Conflict> {
        let local = |net: &IpNet| match net {
            IpNet::V6(net) => net.addr().is_unicast_link_local(),
            IpNet::V4(_) => false,
        };
        if local(&subnet) {
            return None;
        }
        let subnet = subnet.trunc();
        let except = except.and_then(|name| self.link(name)).map(|link| link.index);
        let overlaps = |net: &IpNet| subnet.contains(net) || net.contains(&subnet);
        let address = self
            .addresses
            .iter()
            .filter(|address| Some(address.link) != except && !local(&address.address))
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
                .map(|found| Conflict::Route {
                    link: found.link.map(|index| self.name(index)),
                    to: found.to,
                })
        })
    }

    /// The interfaces with routes that an IPv6 router advertised.
    pub fn advertised(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .routes
            .iter()
            .filter(|route| route.advertised)
            .filter_map(|route| Some(self.name(route.link?)))
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The interfaces of the default routes, by which the host reaches everything else.
    pub fn uplinks(&self) -> Vec<String> {
        let default = self.routes.iter().filter(|route| route.to.prefix_len() == 0);
        let mut names: Vec<String> = default.filter_map(|r| Some(self.name(r.link?))).collect();
        names.sort();
        names.dedup();
        names
    }

    fn name(&self, index: u32) -> String {
        let link = self.links.iter().find(|link| link.index == index);
        link.map_or_else(|| format!("interface {index}"), |link| link.name.clone())
    }
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
            mac: None,
            master,
            group: 0,
        };
        let address = |link, address: &str| LinkAddress { link, address: address.parse().unwrap() };
        let route = |to: &str, link, direct| HostRoute {
            to: to.parse().unwrap(),
            link,
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
