//! Reads the kernel's neighbour tables, and the MAC addresses that bridges have learned.
//!
//! The guests fill both tables: an entry says which address a guest has used lately, and not that
//! the guest may have it.

use std::net::IpAddr;

use nix::errno::Errno;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{LinkError, Netlink};

/// An address that the kernel has seen behind an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbor {
    /// The interface's number.
    pub link: u32,
    /// The address.
    pub address: IpAddr,
    /// The hardware address.
    pub mac: [u8; 6],
    /// Whether the neighbour has answered lately.
    pub reachable: bool,
    /// The time since its last answer, in clock ticks.
    pub confirmed: u32,
}

/// A MAC address that a bridge has learned behind one of its ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgeEntry {
    /// The number of the port.
    pub port: u32,
    /// The MAC address.
    pub mac: [u8; 6],
}

impl Netlink {
    /// Returns the usable entries of the neighbour tables of both IP versions for one interface.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub async fn neighbors(&self, link: u32) -> Result<Vec<Neighbor>, LinkError> {
        let mut all = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            all.extend(self.entries(family).await?.iter().filter_map(neighbor));
        }
        all.retain(|neighbor| neighbor.link == link);
        Ok(all)
    }

    /// Returns the MAC addresses that the bridges of the host have learned.
    ///
    /// # Errors
    /// Returns the kernel's error.
    pub async fn bridge_entries(&self) -> Result<Vec<BridgeEntry>, LinkError> {
        Ok(self.entries(AddressFamily::Bridge).await?.iter().filter_map(bridge_entry).collect())
    }

    async fn entries(&self, family: AddressFamily) -> Result<Vec<NeighbourMessage>, LinkError> {
        let mut query = NeighbourMessage::default();
        query.header.family = family;
        let listed = self.requests.list(RouteNetlinkMessage::GetNeighbour(query)).await;
        let listed = match listed {
            Ok(listed) => listed,
            Err(failure) => {
                let error = LinkError::failed("list the neighbours of the host", failure);
                // A kernel without IPv6 has no such table.
                return match error.errno() {
                    Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) => Ok(Vec::new()),
                    _ => Err(error),
                };
            }
        };
        let message = |message| match message {
            RouteNetlinkMessage::NewNeighbour(message) => Some(message),
            _ => None,
        };
        Ok(listed.into_iter().filter_map(message).collect())
    }
}

fn hardware_address(message: &NeighbourMessage) -> Option<[u8; 6]> {
    message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok(),
        _ => None,
    })
}

fn neighbor(message: &NeighbourMessage) -> Option<Neighbor> {
    let reachable = match message.header.state {
        NeighbourState::Reachable | NeighbourState::Permanent => true,
        NeighbourState::Stale | NeighbourState::Delay | NeighbourState::Probe => false,
        _ => return None,
    };
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
            Some((*address).into())
        }
        _ => None,
    })?;
    let confirmed = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::CacheInfo(info) => Some(info.confirmed),
        _ => None,
    });
    Some(Neighbor {
        link: message.header.ifindex,
        address,
        mac: hardware_address(message)?,
        reachable,
        confirmed: confirmed.unwrap_or(u32::MAX),
    })
}

/// A permanent entry is the address of the port itself.
fn bridge_entry(message: &NeighbourMessage) -> Option<BridgeEntry> {
    if message.header.state == NeighbourState::Permanent {
        return None;
    }
    Some(BridgeEntry { port: message.header.ifindex, mac: hardware_address(message)? })
}
