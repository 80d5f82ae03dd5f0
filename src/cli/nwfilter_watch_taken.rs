//! Finds the machine that has the MAC address of a guest's first frame already.
//!
//! The guest chooses the source of its first frame. With the address of another machine the bridge
//! would send that machine's frames to the guest. So the watcher refuses an address that an
//! interface of the host has, or that the bridge has learned on another port. The guard drops all
//! frames of the guest's own port before the bridge learns from them.
//!
//! A guest that has moved here from behind another port, as after a live migration, is refused
//! until the bridge forgets its address there (300 s by default).

use std::fmt;

use crate::sys::netlink::{BridgeEntry, Link};
use crate::types::Mac;

/// The user of a MAC address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AddressUser {
    /// An interface of the host with this name.
    Interface(String),
    /// A machine behind the port of the bridge with this name.
    Behind(String),
}

impl fmt::Display for AddressUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AddressUser::Interface(name) => write!(f, "is that of the interface {name}"),
            AddressUser::Behind(port) => {
                write!(f, "belongs to a machine behind the port {port} of the same bridge")
            }
        }
    }
}

/// Returns the user of an address besides the guest behind the port with this index. `entries` are
/// the addresses that the bridges have learned.
pub(super) fn address_user(
    mac: Mac,
    index: u32,
    links: &[Link],
    entries: &[BridgeEntry],
) -> Option<AddressUser> {
    let octets = mac.octets();
    let port = links.iter().find(|link| link.index == index)?;
    let is_users = |link: &&Link| link.mac == Some(octets) && link.index != index;
    if let Some(link) = links.iter().find(is_users) {
        return Some(AddressUser::Interface(link.name.clone()));
    }
    let is_beside = |link: &&Link| link.master.is_some() && link.master == port.master;
    let has = |link: &&Link| {
        link.index != index
            && entries.iter().any(|entry| entry.port == link.index && entry.mac == octets)
    };
    links.iter().filter(is_beside).find(has).map(|link| AddressUser::Behind(link.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_host_or_behind_another_port_has_a_user() {
        let octets = |last: u8| [0x52, 0x54, 0, 0, 0, last];
        let link = |index: u32, name: &str, master: Option<u32>| Link {
            index,
            name: name.to_owned(),
            master,
            mac: Some(octets(0xf0 + u8::try_from(index).unwrap())),
            ..Link::default()
        };
        let links = [
            link(1, "br0", None),
            link(2, "tap2", Some(1)),
            link(3, "tap3", Some(1)),
            link(4, "br1", None),
            link(5, "tap5", Some(4)),
        ];
        let entry = |port: u32, last: u8| BridgeEntry { port, mac: octets(last) };
        let entries = [entry(3, 0x03), entry(2, 0x02), entry(5, 0x05)];
        let interface = |name: &str| Some(AddressUser::Interface(name.to_owned()));
        for (last, expected) in [
            (0xf1, interface("br0")),
            (0xf4, interface("br1")),
            (0x03, Some(AddressUser::Behind("tap3".to_owned()))),
            // The guest's own frames may have reached the bridge before the guard was there.
            (0x02, None),
            (0xf2, None),
            // The same address on another bridge is another machine.
            (0x05, None),
            (0x09, None),
        ] {
            let mac = Mac::new(octets(last)).unwrap();
            assert_eq!(address_user(mac, 2, &links, &entries), expected, "{mac}");
        }
    }
}
