//! Reads the host's links, addresses and routes from the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    BridgePortState, BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData,
    LinkAttribute, LinkExtentMask, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType, RouteVia,
};

use super::host::{HostNet, HostRoute, Link, LinkAddress};
use super::port::vlan_filtering;
use super::{LinkError, Netlink};
use crate::types::InterfaceName;

/// The table of the host's own addresses, which the kernel manages (rtnetlink(7)).
const LOCAL: u32 = 255;

impl Netlink {
    /// Returns all links, addresses and routes of the host. A kernel without IPv6 has no IPv6
    /// routes.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub async fn host(&self) -> Result<HostNet, LinkError> {
        let links = self.links().await?;
        let query = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let listed = self.requests.list(query).await;
        let listed = listed.map_err(|e| LinkError::failed("list the addresses of the host", e))?;
        let addresses = listed.iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewAddress(message) => address(message),
            _ => None,
        });
        let mut routes = Vec::new();
        for query in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ] {
            match self.requests.list(RouteNetlinkMessage::GetRoute(query)).await {
                Ok(listed) => {
                    routes.extend(listed.into_iter().filter_map(|message| match message {
                        RouteNetlinkMessage::NewRoute(message) => Some(message),
                        _ => None,
                    }))
                }
                Err(failure) => {
                    let error = LinkError::failed("list the routes of the host", failure);
                    if !matches!(error.errno(), Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT)) {
                        return Err(error);
                    }
                }
            }
        }
        let table = u32::from(RouteHeader::RT_TABLE_MAIN);
        let (main, other_routes) =
            routes.iter().filter_map(route).partition(|route| route.table == table);
        Ok(HostNet {
            links,
            addresses: addresses.collect(),
            routes: main,
            other_routes,
            next_hops: routes.iter().flat_map(|route| next_hops(&route.attributes)).collect(),
        })
    }

    /// Returns all interfaces, sorted by their numbers.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub async fn links(&self) -> Result<Vec<Link>, LinkError> {
        let query = RouteNetlinkMessage::GetLink(without_counters());
        let listed = self.requests.list(query).await;
        let listed = listed.map_err(|e| LinkError::failed("list the interfaces of the host", e))?;
        let mut links: Vec<Link> = listed.iter().filter_map(as_link).collect();
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// Returns the interface of that name.
    ///
    /// # Errors
    /// Returns [`LinkError::Missing`] if it does not exist, or the kernel's error.
    pub async fn link(&self, name: &InterfaceName) -> Result<Link, LinkError> {
        let mut query = without_counters();
        query.attributes.push(LinkAttribute::IfName(name.as_str().to_owned()));
        let found = self.requests.get(RouteNetlinkMessage::GetLink(query)).await;
        let found = found.map_err(|failure| {
            let error = LinkError::failed(format!("look for {name}"), failure);
            if error.is_gone() { LinkError::Missing(name.clone()) } else { error }
        })?;
        found.iter().find_map(as_link).ok_or_else(|| LinkError::Missing(name.clone()))
    }

    /// Returns the interface of that number; `None` if it does not exist.
    pub(crate) async fn link_by_index(&self, index: u32) -> Result<Option<Link>, LinkError> {
        let mut query = without_counters();
        query.header.index = index;
        match self.requests.get(RouteNetlinkMessage::GetLink(query)).await {
            Ok(found) => Ok(found.iter().find_map(as_link)),
            Err(failure) => {
                let error = LinkError::failed(format!("look for interface {index}"), failure);
                if error.is_gone() { Ok(None) } else { Err(error) }
            }
        }
    }
}

/// Returns a question for links whose answer leaves the counters out: they are more than half of
/// it.
fn without_counters() -> LinkMessage {
    let mut query = LinkMessage::default();
    query.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    query
}

fn as_link(message: &RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(message) => Some(link(message)),
        _ => None,
    }
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        noarp: message.header.flags.contains(LinkFlags::Noarp),
        ..Link::default()
    };
    let mut is_elsewhere = false;
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::Link(index) => link.peer = Some(*index),
            LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok(),
            LinkAttribute::Group(group) => link.group = *group,
            LinkAttribute::Controller(index) => link.master = Some(*index),
            LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
            LinkAttribute::LinkInfo(infos) => {
                link.bridge = infos.contains(&LinkInfo::Kind(InfoKind::Bridge));
                link.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
                for info in infos {
                    match info {
                        LinkInfo::Data(InfoData::Bridge(data)) => {
                            link.stp = stp(data);
                            link.vlan_filtering = vlan_filtering(data);
                        }
                        LinkInfo::PortData(InfoPortData::BridgePort(data)) => {
                            let state = InfoBridgePort::State(BridgePortState::Forwarding);
                            link.forwards = data.contains(&state);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link.peer = link.peer.filter(|_| !is_elsewhere);
    link
}

/// Returns whether a bridge with these properties takes part in the spanning tree protocol.
fn stp(data: &[InfoBridge]) -> Option<bool> {
    data.iter().find_map(|property| match property {
        InfoBridge::StpState(state) => Some(*state != BridgeStpState::Disabled),
        _ => None,
    })
}

/// Returns the address of an address message: `IFA_LOCAL` if present, because `IFA_ADDRESS` is the
/// other end's address on a point-to-point link.
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

/// Returns the routers of a route: its own, or those of its parts (rtnetlink(7), RTA_MULTIPATH).
/// RTA_VIA contains a router of another IP version.
fn next_hops(attributes: &[RouteAttribute]) -> Vec<IpAddr> {
    let mut all = Vec::new();
    for attribute in attributes {
        match attribute {
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => all.push((*address).into()),
            RouteAttribute::Gateway(RouteAddress::Inet6(address)) => all.push((*address).into()),
            RouteAttribute::Via(RouteVia::Inet(address)) => all.push((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => all.push((*address).into()),
            RouteAttribute::MultiPath(parts) => {
                all.extend(parts.iter().flat_map(|part| next_hops(&part.attributes)));
            }
            _ => {}
        }
    }
    all
}

/// Returns the parts of a route that can concern guests' packets.
fn route(message: &RouteMessage) -> Option<HostRoute> {
    let header = &message.header;
    let mut route = HostRoute {
        to: IpNet::new(unspecified(header.address_family)?, 0).ok()?,
        link: None,
        links: Vec::new(),
        table: u32::from(header.table),
        direct: header.kind == RouteType::Unicast,
        advertised: header.protocol == RouteProtocol::Ra,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Table(number) => route.table = *number,
            RouteAttribute::Oif(index) => route.link = Some(*index),
            RouteAttribute::MultiPath(parts) => {
                route.links.extend(parts.iter().map(|part| part.interface_index));
            }
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
    route.links.extend(route.link);
    let multicast = route.to.addr().is_multicast();
    let local = matches!(route.to.addr(), IpAddr::V6(to) if to.is_unicast_link_local());
    (route.table != LOCAL && !multicast && !local).then_some(route)
}

fn unspecified(family: rtnetlink::packet_route::AddressFamily) -> Option<IpAddr> {
    match family {
        rtnetlink::packet_route::AddressFamily::Inet => Some(Ipv4Addr::UNSPECIFIED.into()),
        rtnetlink::packet_route::AddressFamily::Inet6 => Some(Ipv6Addr::UNSPECIFIED.into()),
        _ => None,
    }
}
