//! What the host has, read from the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType, RouteVia,
};

use super::host::{HostNet, HostRoute, Link, LinkAddress};
use super::{LinkError, Netlink};
use crate::types::InterfaceName;

impl Netlink {
    /// Everything the host has.
    ///
    /// # Errors
    /// The kernel's refusal. A kernel without IPv6 just has no IPv6 routes.
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
        Ok(HostNet {
            links,
            addresses: addresses.collect(),
            routes: routes.iter().filter_map(route).collect(),
            next_hops: routes.iter().flat_map(|route| next_hops(&route.attributes)).collect(),
        })
    }

    /// All interfaces.
    ///
    /// # Errors
    /// The kernel's refusal.
    pub async fn links(&self) -> Result<Vec<Link>, LinkError> {
        let query = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let listed = self.requests.list(query).await;
        let listed = listed.map_err(|e| LinkError::failed("list the interfaces of the host", e))?;
        Ok(listed.iter().filter_map(as_link).collect())
    }

    /// The interface of that name.
    ///
    /// # Errors
    /// [`LinkError::Missing`], or the kernel's refusal.
    pub async fn link(&self, name: &InterfaceName) -> Result<Link, LinkError> {
        let mut query = LinkMessage::default();
        query.attributes.push(LinkAttribute::IfName(name.as_str().to_owned()));
        let found = self.requests.get(RouteNetlinkMessage::GetLink(query)).await;
        let found = found.map_err(|failure| {
            let error = LinkError::failed(format!("look for {name}"), failure);
            if error.is_gone() { LinkError::Missing(name.clone()) } else { error }
        })?;
        found.iter().find_map(as_link).ok_or_else(|| LinkError::Missing(name.clone()))
    }

    /// The interface of that number; `None` where there is none.
    pub(super) async fn link_by_index(&self, index: u32) -> Result<Option<Link>, LinkError> {
        let mut query = LinkMessage::default();
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

fn as_link(message: &RouteNetlinkMessage) -> Option<Link> {
    match message {
        RouteNetlinkMessage::NewLink(message) => Some(link(message)),
        _ => None,
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

/// The routers of a route: its own, or those of its parts (rtnetlink(7), RTA_MULTIPATH). A router of
/// another IP version is RTA_VIA.
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
