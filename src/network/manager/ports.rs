//! Lists the ports on the bridge of a running network, with the guests behind them.
//!
//! The tap of a launch names its launch and the guest's MAC address in its alias. Behind every
//! other port, and behind a launch whose guest forwards frames of others, the guests are the MAC
//! addresses that the bridge has learned there.

use super::{Manager, ManagerError, NetworkStatus};
use crate::network::dnsmasq::lease_file::mac;
use crate::network::guest_address::{AddressTable, AddressTableError, FoundAddresses};
use crate::sys::netlink::{BridgeEntry, GuestTap, Link, Netlink};
use crate::types::Mac;

/// A port on the bridge of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetworkPort {
    /// The name of the interface.
    pub name: String,
    /// The number of the interface.
    pub index: u32,
    /// The launch that the port belongs to; `None` for a port of another program.
    pub launch: Option<String>,
    /// Whether a launch of netlaunch made the port. Its name may be unknown.
    pub own: bool,
    /// The kind of the interface, such as `tun`; `None` for a physical one.
    pub kind: Option<String>,
    /// Whether the interface is turned on.
    pub up: bool,
    /// The guests behind the port; the guest of a launch comes first.
    pub guests: Vec<PortGuest>,
}

/// A guest behind a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortGuest {
    /// The MAC address of its card.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: FoundAddresses,
}

/// The ports of a network.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct NetworkPorts {
    /// The ports, in the order of their names.
    pub ports: Vec<NetworkPort>,
    /// The places of addresses that could not be read.
    pub unread: Vec<AddressTableError>,
}

impl Manager {
    /// Returns the ports on the bridge of a running network.
    ///
    /// # Errors
    /// [`ManagerError::Link`] if the interfaces cannot be listed.
    pub async fn ports(&self, status: &NetworkStatus) -> Result<NetworkPorts, ManagerError> {
        let netlink = Netlink::open()?;
        let links = netlink.links().await?;
        let Some(bridge) = status.bridge_index(&links) else {
            return Ok(NetworkPorts::default());
        };
        let (table, unread) = AddressTable::of_network(status).await;
        let entries = netlink.bridge_entries().await?;
        let on_bridge = links.iter().filter(|link| link.master == Some(bridge));
        let mut ports: Vec<_> = on_bridge.map(|link| port(link, &entries, &table)).collect();
        ports.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(NetworkPorts { ports, unread })
    }
}

fn port(link: &Link, entries: &[BridgeEntry], table: &AddressTable) -> NetworkPort {
    let home = GuestTap::of(link).map(|tap| tap.home).filter(|home| !home.once);
    let own = home.as_ref().and_then(|home| home.mac);
    let learned = entries.iter().filter(|entry| entry.port == link.index);
    let mut macs: Vec<Mac> = learned.filter_map(|entry| mac(&entry.mac)).collect();
    macs.sort();
    macs.dedup();
    macs.retain(|learned| Some(*learned) != own);
    let guest = |mac| PortGuest { mac, addresses: table.find(mac) };
    NetworkPort {
        name: link.name.clone(),
        index: link.index,
        own: home.is_some(),
        launch: home.and_then(|home| home.launch),
        kind: link.kind.clone(),
        up: link.up,
        guests: own.into_iter().chain(macs).map(guest).collect(),
    }
}
