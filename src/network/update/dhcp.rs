//! Changes `<host>` and `<range>` of a DHCP server.

use std::net::IpAddr;

use super::{NetworkUpdate, UpdateError, UpdateSection, UpdateVerb, add, only};
use crate::network::Network;
use crate::network::fields::address;
use crate::network::list_element::ListElement;
use crate::network::model::{Client, DhcpHost, DhcpRange, Ip};
use crate::network::values::Duid;
use crate::types::{HostName, Mac};
use crate::xml::{Element, ElementReader, XmlError};

type Result<T> = std::result::Result<T, UpdateError>;

/// The attributes of a host that shall be removed; the removed host has all that are set.
struct HostKey {
    mac: Option<Mac>,
    duid: Option<Duid>,
    name: Option<HostName>,
    ip: Option<IpAddr>,
}

impl HostKey {
    fn read(reader: &mut ElementReader<'_>) -> std::result::Result<Self, XmlError> {
        let key = HostKey {
            mac: reader.value("mac")?,
            duid: reader.value("id")?,
            name: reader.value("name")?,
            ip: reader.value_with("ip", address)?,
        };
        // The lease time is part of the element, and not of the key.
        if let Some(lease) = reader.child("lease")? {
            lease.take(|reader| {
                reader.attribute("expiry");
                reader.attribute("unit");
                Ok(())
            })?;
        }
        if key.mac.is_none() && key.duid.is_none() && key.name.is_none() && key.ip.is_none() {
            return Err(reader.bad("it has no attribute: add mac, id, name or ip"));
        }
        Ok(key)
    }

    fn matches(&self, host: &DhcpHost) -> bool {
        let (mac, duid) = match &host.client {
            Client::Mac(mac, _) => (Some(mac), None),
            Client::Duid(duid, _) => (None, Some(duid)),
            Client::Name(_) => (None, None),
        };
        self.mac.as_ref().is_none_or(|own| Some(own) == mac)
            && self.duid.as_ref().is_none_or(|own| Some(own) == duid)
            && self.name.as_ref().is_none_or(|own| Some(own) == host.client.name())
            && self.ip.is_none_or(|own| own == host.ip)
    }
}

pub(super) fn host(network: &mut Network, update: &NetworkUpdate, element: &Element) -> Result<()> {
    let section = UpdateSection::DhcpHost;
    if update.verb == UpdateVerb::Delete {
        root(element, DhcpHost::NAME)?;
        let key = element.take(HostKey::read)?;
        let ips = candidates(network, update.parent)?;
        let matches = |ip: &&mut Ip| {
            ip.dhcp.as_ref().is_some_and(|dhcp| dhcp.hosts.iter().any(|host| key.matches(host)))
        };
        let mut found = ips.into_iter().filter(matches);
        let Some(ip) = found.next() else { return Err(UpdateError::Missing(section)) };
        let count = found.count();
        if count > 0 {
            return Err(UpdateError::Several { section, count: count + 1 });
        }
        let Some(dhcp) = &mut ip.dhcp else { return Err(UpdateError::Missing(section)) };
        dhcp.hosts.remove(only(&dhcp.hosts, section, |host| key.matches(host))?);
        return Ok(());
    }
    root(element, DhcpHost::NAME)?;
    let new = DhcpHost::from_element(element)?;
    let dhcp = parent(network, update.parent, new.ip, section)?.dhcp.get_or_insert_default();
    if update.verb == UpdateVerb::Modify {
        let by_name = |host: &DhcpHost| same_name(host, &new);
        let at = match only(&dhcp.hosts, section, |host| same_guest(host, &new)) {
            Err(UpdateError::Missing(_)) => only(&dhcp.hosts, section, by_name)?,
            found => found?,
        };
        dhcp.hosts[at] = new;
        return Ok(());
    }
    for host in &dhcp.hosts {
        let key = match (&host.client, &new.client) {
            (Client::Mac(a, _), Client::Mac(b, _)) if a == b => "mac",
            (Client::Duid(a, _), Client::Duid(b, _)) if a == b => "id",
            _ if host.ip == new.ip => "ip",
            _ if same_name(host, &new) => "name",
            _ => continue,
        };
        return Err(UpdateError::Exists { section, key });
    }
    add(&mut dhcp.hosts, update.verb, new);
    Ok(())
}

/// Returns whether both entries are for the same card or client: the first key of a modification.
fn same_guest(old: &DhcpHost, new: &DhcpHost) -> bool {
    match (&old.client, &new.client) {
        (Client::Mac(old, _), Client::Mac(new, _)) => old == new,
        (Client::Duid(old, _), Client::Duid(new, _)) => old == new,
        _ => false,
    }
}

/// Returns whether both entries have the same name. A modification uses this key if the first key
/// finds no entry, as libvirt does, so that a guest with a new card keeps its name.
fn same_name(old: &DhcpHost, new: &DhcpHost) -> bool {
    old.client.name().is_some() && old.client.name() == new.client.name()
}

pub(super) fn range(
    network: &mut Network,
    update: &NetworkUpdate,
    element: &Element,
) -> Result<()> {
    let section = UpdateSection::DhcpRange;
    if update.verb == UpdateVerb::Modify {
        return Err(UpdateError::NotModifiable(section));
    }
    root(element, DhcpRange::NAME)?;
    let new = DhcpRange::from_element(element)?;
    let ip = parent(network, update.parent, new.first, section)?;
    let same = |range: &DhcpRange| range.first == new.first && range.last == new.last;
    if update.verb == UpdateVerb::Delete {
        let Some(dhcp) = &mut ip.dhcp else { return Err(UpdateError::Missing(section)) };
        dhcp.ranges.remove(only(&dhcp.ranges, section, same)?);
        return Ok(());
    }
    let dhcp = ip.dhcp.get_or_insert_default();
    if dhcp.ranges.iter().any(same) {
        return Err(UpdateError::Exists { section, key: "start and end" });
    }
    add(&mut dhcp.ranges, update.verb, new);
    Ok(())
}

pub(super) fn root(element: &Element, expected: &'static str) -> Result<()> {
    let reader = ElementReader::root(element, expected)?;
    // Only the name is checked here; the reader of the element takes its parts.
    let _ = reader.element();
    Ok(())
}

/// Returns the `<ip>` elements that an element without an address can belong to.
fn candidates(network: &mut Network, index: Option<usize>) -> Result<Vec<&mut Ip>> {
    let count = network.ips.len();
    match index {
        None => Ok(network.ips.iter_mut().collect()),
        Some(index) => {
            let ip = network.ips.get_mut(index).ok_or(UpdateError::Parent { index, count })?;
            Ok(vec![ip])
        }
    }
}

/// Returns the `<ip>` with this number, or the one whose subnet has the address.
fn parent(
    network: &mut Network,
    index: Option<usize>,
    address: IpAddr,
    section: UpdateSection,
) -> Result<&mut Ip> {
    let ips = candidates(network, index)?;
    let named = index.is_some();
    let mut found = ips.into_iter().filter(|ip| named || ip.net.contains(&address));
    found.next().ok_or(UpdateError::NoSubnet(section))
}
