//! What the host has, read from the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::RouteMessageBuilder;
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
            next_hops: routes.iter().flat_map(|route| next_hops(&route.attributes)).collect(),
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
