//! Finds the MAC address of the guest behind a port.
//!
//! The sources are asked in this order, and the first one that has an answer counts:
//!
//! 1. the binding of the port, if it has one;
//! 2. the alias of the tap of a launch, which the launch wrote;
//! 3. the forwarding table of the bridge, if the bridge has learned exactly one address on the
//!    port;
//! 4. the other end of a veth, if it is in this network namespace.
//!
//! A macvtap or macvlan is on no bridge. The kernel gives it the frames for its own address, so
//! that is the guest's.
//!
//! The guest itself decides what the bridge learns. So the caller always reports the source, and an
//! address is never taken from a table with several.

use std::collections::BTreeSet;
use std::fmt;

use super::{BindingError, Bindings};
use crate::sys::netlink::{BridgeEntry, GuestTap, Link, LinkError, Netlink};
use crate::types::{InterfaceName, Mac};

/// The MAC address of a guest, with its source.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuestMac {
    /// The address.
    pub mac: Mac,
    /// The source of the address.
    pub source: MacSource,
}

/// The source of a guest's MAC address.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MacSource {
    /// The binding of the port.
    Binding,
    /// The record of the launch whose tap the port is.
    Launch,
    /// The forwarding table of the bridge with this name.
    Bridge(String),
    /// The veth with this name, the other end of the port.
    Peer(String),
    /// The port itself, a macvtap or macvlan.
    Interface,
}

impl fmt::Display for MacSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MacSource::Binding => f.write_str("the present binding of the port has it"),
            MacSource::Launch => f.write_str("the launch of the tap has recorded it"),
            MacSource::Bridge(bridge) => {
                write!(f, "the bridge {bridge} has learned it from the frames of the port")
            }
            MacSource::Peer(peer) => write!(f, "{peer}, the other end of the port, has it"),
            MacSource::Interface => f.write_str("the port itself has it"),
        }
    }
}

/// Why the MAC address of a guest was not found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoGuestMac {
    /// The bridge has learned several addresses on the port.
    #[error(
        "the guest's MAC address is not known: {bridge} has learned {} on the port {port}; set the address",
        list(.found)
    )]
    Several {
        /// The port.
        port: InterfaceName,
        /// The name of the bridge.
        bridge: String,
        /// The addresses.
        found: Vec<Mac>,
    },
    /// No source has an address.
    #[error(
        "the guest's MAC address is not known: {bridge} has learned none on the port {port}, and the port has no other end in this network namespace; set the address"
    )]
    Nothing {
        /// The port.
        port: InterfaceName,
        /// The name of the bridge.
        bridge: String,
    },
    /// The port cannot have a filter, or the kernel did not answer.
    #[error(transparent)]
    Binding(#[from] BindingError),
}

impl From<LinkError> for NoGuestMac {
    fn from(error: LinkError) -> Self {
        BindingError::from(error).into()
    }
}

/// Returns addresses as a list, at most eight of them.
fn list(found: &[Mac]) -> String {
    let shown: Vec<String> = found.iter().take(8).map(Mac::to_string).collect();
    match found.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

impl Bindings {
    /// Finds the MAC address of the guest behind a port.
    ///
    /// # Errors
    /// [`NoGuestMac`].
    pub async fn guest_mac(&self, port: &InterfaceName) -> Result<GuestMac, NoGuestMac> {
        let index = self.index_of(port)?;
        if let Some(status) = self.status(port)?.filter(|status| status.index == index)
            && status.is_bound()
        {
            let mac = self.binding(&status)?.mac;
            return Ok(GuestMac { mac, source: MacSource::Binding });
        }
        let around = super::bridge::of_port(port, index).await?;
        let netlink = Netlink::open()?;
        let link = netlink.link_by_index(index).await?;
        let link = link.ok_or_else(|| BindingError::NoPort(port.clone()))?;
        let Some(bridge) = around.bridge else {
            let mac = link.mac.and_then(|mac| Mac::new(mac).ok());
            let mac = mac.ok_or_else(|| BindingError::NoPort(port.clone()))?;
            return Ok(GuestMac { mac, source: MacSource::Interface });
        };
        let entries = netlink.bridge_entries().await?;
        let peer = match link.peer.filter(|_| link.kind.as_deref() == Some("veth")) {
            Some(peer) => netlink.link_by_index(peer).await?,
            None => None,
        };
        choose(port, bridge.as_str(), &link, &entries, peer.as_ref())
    }
}

/// Chooses the address from the sources other than the binding.
fn choose(
    port: &InterfaceName,
    bridge: &str,
    link: &Link,
    entries: &[BridgeEntry],
    peer: Option<&Link>,
) -> Result<GuestMac, NoGuestMac> {
    if let Some(mac) = GuestTap::of(link).and_then(|tap| tap.home.mac) {
        return Ok(GuestMac { mac, source: MacSource::Launch });
    }
    // A bridge has an entry for each VLAN.
    let on_port = entries.iter().filter(|entry| entry.port == link.index);
    let found: BTreeSet<Mac> = on_port.filter_map(|entry| Mac::new(entry.mac).ok()).collect();
    let found: Vec<Mac> = found.into_iter().collect();
    let bridge = bridge.to_owned();
    match found.as_slice() {
        [mac] => return Ok(GuestMac { mac: *mac, source: MacSource::Bridge(bridge) }),
        [] => {}
        _ => return Err(NoGuestMac::Several { port: port.clone(), bridge, found }),
    }
    let of_peer = peer.and_then(|peer| Some((Mac::new(peer.mac?).ok()?, peer.name.clone())));
    match of_peer {
        Some((mac, name)) => Ok(GuestMac { mac, source: MacSource::Peer(name) }),
        None => Err(NoGuestMac::Nothing { port: port.clone(), bridge }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str, mac: Option<[u8; 6]>) -> Link {
        Link { index, name: name.to_owned(), mac, ..Link::default() }
    }

    #[test]
    fn the_first_source_with_one_address_counts() {
        let port: InterfaceName = "tap1".parse().unwrap();
        let mac = |last: u8| [0x52, 0x54, 0, 0, 0, last];
        let entry = |port, mac| BridgeEntry { port, mac };
        let multicast = entry(7, [0x33, 0x33, 0, 0, 0, 1]);
        let peer = link(8, "vm0", Some(mac(9)));
        let alias = r#"netlaunch {"bridge":"br0","mac":"52:54:00:00:00:05"}"#;
        let plain = link(7, "tap1", Some(mac(0xfe)));
        let launch = Link { alias: Some(alias.to_owned()), ..plain.clone() };
        for (link, entries, peer, expected) in [
            (&plain, vec![entry(7, mac(1)), entry(7, mac(1)), multicast], None, "01 br0"),
            (&plain, vec![entry(7, mac(1)), entry(9, mac(2))], Some(&peer), "01 br0"),
            (&plain, vec![entry(9, mac(2)), multicast], Some(&peer), "09 vm0"),
            (&launch, vec![entry(7, mac(1)), entry(7, mac(2))], Some(&peer), "05 launch"),
        ] {
            let found = choose(&port, "br0", link, &entries, peer).unwrap();
            assert!(found.mac.to_string().ends_with(&expected[..2]), "{found:?}");
            assert!(found.source.to_string().contains(&expected[3..]), "{found:?}");
        }
        let entries = [entry(7, mac(2)), entry(7, mac(1))];
        let several = choose(&port, "br0", &plain, &entries, Some(&peer)).unwrap_err().to_string();
        assert!(several.contains("52:54:00:00:00:01, 52:54:00:00:00:02 on the port tap1"));
        let nothing = choose(&port, "br0", &plain, &[], None).unwrap_err().to_string();
        assert!(nothing.contains("br0 has learned none on the port tap1"), "{nothing}");
        let many: Vec<_> = (1..=11).map(|last| entry(7, mac(last))).collect();
        let many = choose(&port, "br0", &plain, &many, None).unwrap_err().to_string();
        assert!(many.contains("52:54:00:00:00:08 and 3 more on"), "{many}");
    }
}
