//! What the host has: links, addresses, routes; and whether a subnet is still free.
//!
//! Names are text here: the kernel allows some that [`InterfaceName`] does not, and their subnets
//! count all the same.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};

use super::{LinkError, Netlink};
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

impl Netlink {
    /// Everything the host has.
    ///
    /// # Errors
    /// The kernel's refusal. A kernel without IPv6 just has no IPv6 routes.
    pub async fn host(&self) -> Result<HostNet, LinkError> {
        let links = self.links().await?;
        let refused = |error| LinkError::refused("list the addresses of the host", error);
        let addresses: Vec<AddressMessage> =
            self.handle.address().get().execute().try_collect().await.map_err(refused)?;
        let refused = |error| LinkError::refused("list the routes of the host", error);
        let mut routes: Vec<RouteMessage> = Vec::new();
        for query in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ] {
            match self.handle.route().get(query).execute().try_collect::<Vec<_>>().await {
                Ok(found) => routes.extend(found),
                Err(error) => {
                    let error = refused(error);
                    if !matches!(error.errno(), Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT)) {
                        return Err(error);
                    }
                }
            }
        }
        Ok(HostNet {
            links,
            addresses: addresses.iter().filter_map(address).collect(),
            routes: routes.iter().filter_map(route).collect(),
        })
    }

    /// All interfaces.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn links(&self) -> Result<Vec<Link>, LinkError> {
        let refused = |error| LinkError::refused("list the interfaces of the host", error);
        let messages: Vec<LinkMessage> =
            self.handle.link().get().execute().try_collect().await.map_err(refused)?;
        Ok(messages.iter().map(link).collect())
    }

    /// The interface of that name.
    ///
    /// # Errors
    /// [`LinkError::Missing`], or the kernel's refusal.
    pub async fn link(&self, name: &InterfaceName) -> Result<Link, LinkError> {
        let request = self.handle.link().get().match_name(name.as_str());
        let found = request.execute().try_collect::<Vec<_>>().await.map_err(|error| {
            let error = LinkError::refused(format!("look for {name}"), error);
            if error.is_gone() { LinkError::Missing(name.clone()) } else { error }
        })?;
        found.first().map(link).ok_or_else(|| LinkError::Missing(name.clone()))
    }

    /// The interface of that number.
    pub(super) async fn link_by_index(&self, index: u32) -> Result<Link, LinkError> {
        let what = || format!("look for interface {index}");
        let request = self.handle.link().get().match_index(index);
        let found = request.execute().try_collect::<Vec<_>>().await;
        let found = found.map_err(|error| LinkError::refused(what(), error))?;
        found
            .first()
            .map(link)
            .ok_or_else(|| LinkError::refused(what(), rtnetlink::Error::RequestFailed))
    }
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        name: String::new(),
        index: message.header.index,
        bridge: false,
        up: message.header.flags.contains(LinkFlags::Up),
        mtu: 0,
        mac: None,
        master: None,
        group: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::Group(group) => link.group = *group,
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::LinkInfo(infos) => {
                link.bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
            }
            _ => {}
        }
    }
    link
}

/// An address message's own address: `IFA_LOCAL` where there is one, because `IFA_ADDRESS` is the
/// other end's on a point-to-point link.
fn address(message: &AddressMessage) -> Option<LinkAddress> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let any = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    let address = IpNet::new(local.or(any)?, message.header.prefix_len).ok()?;
    Some(LinkAddress { link: message.header.index, address })
}

/// A route of the main table, as far as packets of guests may meet it.
fn route(message: &RouteMessage) -> Option<HostRoute> {
    let header = &message.header;
    let main = u32::from(RouteHeader::RT_TABLE_MAIN);
    let mut table = u32::from(header.table);
    let mut route = HostRoute {
        to: IpNet::new(unspecified(header.address_family)?, 0).ok()?,
        link: None,
        direct: header.kind == RouteType::Unicast,
        advertised: header.protocol == RouteProtocol::Ra,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Oif(index) => route.link = Some(*index),
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => route.direct = false,
            RouteAttribute::Destination(to) => {
                let to = match to {
                    RouteAddress::Inet(address) => IpAddr::V4(*address),
                    RouteAddress::Inet6(address) => IpAddr::V6(*address),
                    _ => return None,
                };
                route.to = IpNet::new(to, header.destination_prefix_length).ok()?;
            }
            _ => {}
        }
    }
    route.direct &= route.link.is_some();
    let multicast = route.to.addr().is_multicast();
    let local = matches!(route.to.addr(), IpAddr::V6(to) if to.is_unicast_link_local());
    (table == main && !multicast && !local).then_some(route)
}

fn unspecified(family: rtnetlink::packet_route::AddressFamily) -> Option<IpAddr> {
    match family {
        rtnetlink::packet_route::AddressFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
        rtnetlink::packet_route::AddressFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
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
