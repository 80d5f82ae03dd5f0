//! Adds and removes the addresses and static routes of a bridge.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::errno::Errno;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::route::{RouteMessage, RouteScope};
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};
use serde::{Deserialize, Serialize};

use super::request::Again;
use super::undo::Undo;
use super::{LinkError, Netlink};
use crate::types::InterfaceName;

/// A static route through an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// The destination; host bits are ignored.
    pub to: IpNet,
    /// The router; `None` means that the interface reaches the destination directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// The metric, of which the lowest wins; `None` means the kernel's default (0 for IPv4, 1024
    /// for IPv6).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.to.trunc())?;
        self.via.map_or(Ok(()), |via| write!(f, " via {via}"))?;
        self.metric.map_or(Ok(()), |metric| write!(f, " metric {metric}"))
    }
}

impl Netlink {
    /// Adds an address with its subnet to an interface. An IPv4 address gets the subnet's broadcast
    /// address. An IPv6 address is used at once, without duplicate address detection: on a bridge
    /// without ports the detection would never end, and a server could not bind to the address
    /// until then.
    ///
    /// # Errors
    /// Returns an error if the interface does not exist or the kernel refuses: EEXIST if the
    /// interface has the address already.
    pub async fn add_address(
        &self,
        name: &InterfaceName,
        address: IpNet,
    ) -> Result<Undo, LinkError> {
        let index = self.link(name).await?.index;
        self.add_address_to(name, index, address).await
    }

    /// Adds an address like [`Netlink::add_address`] to the interface of this number, which saves
    /// the search for it; `name` is for messages and for the record.
    ///
    /// # Errors
    /// Returns the errors of [`Netlink::add_address`].
    pub(crate) async fn add_address_to(
        &self,
        name: &InterfaceName,
        index: u32,
        address: IpNet,
    ) -> Result<Undo, LinkError> {
        let mut message = address_message(index, address);
        if address.addr().is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Nodad;
        }
        let message = RouteNetlinkMessage::NewAddress(message);
        let added = self.requests.create(message, Again::Refused(&[Errno::EEXIST])).await;
        added.map_err(|e| LinkError::failed(format!("give {name} the address {address}"), e))?;
        Ok(Undo::Address { name: name.clone(), index, address })
    }

    /// Removes an address from an interface.
    ///
    /// # Errors
    /// Returns an error if the interface does not exist or the kernel refuses: EADDRNOTAVAIL if the
    /// interface does not have the address.
    pub async fn delete_address(
        &self,
        name: &InterfaceName,
        address: IpNet,
    ) -> Result<(), LinkError> {
        let index = self.link(name).await?.index;
        let message = RouteNetlinkMessage::DelAddress(address_message(index, address));
        let gone = Again::Refused(&[Errno::EADDRNOTAVAIL]);
        let deleted = self.requests.change(message, gone).await;
        deleted.map_err(|e| LinkError::failed(format!("take the address {address} from {name}"), e))
    }

    /// Adds a static route through an interface, which must be up.
    ///
    /// # Errors
    /// Returns an error if the interface does not exist or the kernel refuses: EEXIST if the host
    /// has such a route, ENETUNREACH (IPv4) or EHOSTUNREACH (IPv6) if the interface does not reach
    /// the router.
    pub async fn add_route(&self, name: &InterfaceName, route: &Route) -> Result<Undo, LinkError> {
        let link = self.link(name).await?;
        let what = || format!("add the route to {route} through {name}");
        let message = RouteNetlinkMessage::NewRoute(message(link.index, route, what)?);
        let added = self.requests.create(message, Again::Refused(&[Errno::EEXIST])).await;
        added.map_err(|e| LinkError::failed(what(), e))?;
        Ok(Undo::Route { name: name.clone(), index: link.index, route: route.clone() })
    }

    /// Removes a static route through an interface.
    ///
    /// # Errors
    /// Returns an error if the interface does not exist or the kernel refuses: ESRCH if the route
    /// does not exist.
    pub async fn delete_route(&self, name: &InterfaceName, route: &Route) -> Result<(), LinkError> {
        let link = self.link(name).await?;
        let what = || format!("remove the route to {route} through {name}");
        let message = RouteNetlinkMessage::DelRoute(message(link.index, route, what)?);
        let deleted = self.requests.change(message, Again::Refused(&[Errno::ESRCH])).await;
        deleted.map_err(|e| LinkError::failed(what(), e))
    }
}

/// Returns the kernel's form of an address; an IPv4 address gets the subnet's broadcast address.
fn address_message(index: u32, address: IpNet) -> AddressMessage {
    match address {
        IpNet::V4(net) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(index)
            .address(net.addr(), net.prefix_len())
            .build(),
        IpNet::V6(net) => AddressMessageBuilder::<Ipv6Addr>::new()
            .index(index)
            .address(net.addr(), net.prefix_len())
            .build(),
    }
}

/// Returns the kernel's form of a route. Refuses a router of the other IP version.
fn message(
    index: u32,
    route: &Route,
    what: impl Fn() -> String,
) -> Result<RouteMessage, LinkError> {
    let invalid = || LinkError::Refused {
        what: what(),
        source: std::io::ErrorKind::InvalidInput.into(),
        fix: "destination and router must have the same IP version",
    };
    let to = route.to.trunc();
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(to.addr(), to.prefix_len())
        .map_err(|_| invalid())?
        .output_interface(index);
    match route.via {
        Some(via) if via.is_ipv4() != to.addr().is_ipv4() => return Err(invalid()),
        Some(via) => builder = builder.gateway(via).map_err(|_| invalid())?,
        None => builder = builder.scope(RouteScope::Link),
    }
    if let Some(metric) = route.metric {
        builder = builder.priority(metric);
    }
    Ok(builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(to: &str, via: Option<&str>) -> Route {
        let via = via.map(|via| via.parse().unwrap());
        Route { to: to.parse().unwrap(), via, metric: Some(7) }
    }

    #[test]
    fn a_router_has_the_destinations_ip_version() {
        let what = || "add it".to_owned();
        let error = message(1, &route("10.1.0.0/16", Some("fd00::1")), what).unwrap_err();
        assert!(error.to_string().contains("same IP version"), "{error}");
        assert!(message(1, &route("10.1.0.0/16", Some("10.0.0.1")), what).is_ok());
        assert!(message(1, &route("fd01::/64", None), what).is_ok());
    }

    #[test]
    fn routes_read_like_those_of_ip() {
        assert_eq!(
            route("10.1.2.3/16", Some("10.0.0.1")).to_string(),
            "10.1.0.0/16 via 10.0.0.1 metric 7"
        );
        let json = serde_json::to_string(&route("fd00::/64", None)).unwrap();
        assert_eq!(json, r#"{"to":"fd00::/64","metric":7}"#);
    }
}
