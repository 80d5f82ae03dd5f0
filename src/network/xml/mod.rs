//! Reads libvirt's network XML into a [`Network`].
//!
//! This module reads `<network>` and its simple children; `forward`, `dns` and `ip` read the
//! children that have children themselves. Each child is read at most once, and a child or
//! attribute that no function asks for is an error.
//!
//! A value that is invalid by itself is refused here, at its own place. [`super::check`] then finds
//! the parts that do not fit together; it gets the place of each part from [`Places`].

mod dns;
mod forward;
mod ip;

use super::fields::{need, number};
use super::model::{Bridge, Domain, Forward, Network};
use super::places::{Part, Places};
use super::values::device;
use crate::types::{InterfaceName, Mac, Uuid};
use crate::xml::{self, ElementReader, XmlError};

/// The values for a document that leaves them out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// The network's UUID.
    pub uuid: Uuid,
    /// The bridge's hardware address.
    pub mac: Mac,
    /// The bridge's name; if `None`, the document must have it.
    pub bridge: Option<InterfaceName>,
}

/// A network, and the places of its parts in the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The network.
    pub network: Network,
    /// The places of its parts.
    pub places: Places,
}

/// Whether a bridge runs STP by default.
///
/// libvirt's default is on. Here it is off, so a bridge does not accept BPDUs from a guest unless
/// the document asks for it; and a network of one bridge has no loops.
const STP: bool = false;

/// The elements of `<network>` that the format has and netlaunch does not support.
const OTHER_ELEMENTS: [&str; 8] =
    ["bandwidth", "vlan", "portgroup", "virtualport", "port", "metadata", "title", "description"];

type Result<T> = std::result::Result<T, XmlError>;

/// Reads a network.
///
/// If the document leaves out a value that netlaunch chooses, the value comes from `fill`. Without
/// `fill`, as for a document that netlaunch wrote, the document must have all of these values.
///
/// # Errors
/// The first [`XmlError`].
pub fn parse(bytes: &[u8], fill: Option<&Fill>) -> Result<Parsed> {
    let root = xml::read(bytes)?;
    let mut places = Places::default();
    places.note(Part::Network, root.place);
    let mut take = ElementReader::root(&root, "network")?;
    let network = network(&mut take, fill, &mut places)?;
    take.finish()?;
    Ok(Parsed { network, places })
}

fn network(
    take: &mut ElementReader<'_>,
    fill: Option<&Fill>,
    places: &mut Places,
) -> Result<Network> {
    take.refuse_attributes(&["trustGuestRxFilters"])?;
    take.refuse_children(&OTHER_ELEMENTS)?;
    let ipv6 = take.yes_no("ipv6")?.unwrap_or(false);
    // This is the number of guests at the time when libvirt printed the document. It is checked and
    // dropped.
    if let Some(connections) = take.attribute("connections") {
        number::<u32>(&connections.value).map_err(|why| take.wrong(connections, why))?;
    }
    let name = take.child("name")?.ok_or_else(|| take.missing_child("name"))?;
    places.note(Part::Name, name.place);
    let name = name.take(ElementReader::text_value)?;
    let uuid = uuid(take, fill, places)?;
    let forward = match take.child("forward")? {
        Some(element) => {
            places.note(Part::Forward, element.place);
            element.take(|take| forward::forward(take, places))?
        }
        None => Forward::Isolated,
    };
    let bridge = match take.child("bridge")? {
        Some(element) => {
            places.note(Part::Bridge, element.place);
            element.take(|take| bridge(take, fill))?
        }
        None => {
            let name = fill.and_then(|fill| fill.bridge.clone());
            let name = name.ok_or_else(|| take.missing_child("bridge"))?;
            Bridge { name, stp: STP, delay: 0, zone: None }
        }
    };
    let mtu = take.child("mtu")?.map(|element| {
        places.note(Part::Mtu, element.place);
        element.take(|take| need(take, "size", number))
    });
    let mac = match take.child("mac")? {
        Some(element) => {
            places.note(Part::Mac, element.place);
            element.take(|take| take.required("address"))?
        }
        None => fill.map(|fill| fill.mac).ok_or_else(|| take.missing_child("mac"))?,
    };
    let domain = take.child("domain")?.map(|element| {
        places.note(Part::Domain, element.place);
        element.take(domain)
    });
    let dns = take.child("dns")?.map(|element| element.take(dns::dns));
    let mut ips = Vec::new();
    for element in take.children("ip") {
        places.note(Part::Ip(ips.len()), element.place);
        let index = ips.len();
        ips.push(element.take(|take| ip::ip(take, index, places))?);
    }
    let mut routes = Vec::new();
    for element in take.children("route") {
        places.note(Part::Route(routes.len()), element.place);
        routes.push(element.take(ip::route)?);
    }
    Ok(Network {
        name,
        uuid,
        ipv6,
        forward,
        bridge,
        mac,
        mtu: mtu.transpose()?,
        domain: domain.transpose()?.flatten(),
        dns: dns.transpose()?.unwrap_or_default(),
        ips,
        routes,
    })
}

fn uuid(take: &mut ElementReader<'_>, fill: Option<&Fill>, places: &mut Places) -> Result<Uuid> {
    if let Some(uuid) = take.child("uuid")? {
        places.note(Part::Uuid, uuid.place);
        // In libvirt's tools an empty <uuid/> means that libvirt chooses the UUID.
        if fill.is_none() || !uuid.text.trim().is_empty() {
            return uuid.take(ElementReader::text_value);
        }
        uuid.take(|take| Ok(take.text()))?;
    }
    fill.map(|fill| fill.uuid).ok_or_else(|| take.missing_child("uuid"))
}

fn bridge(take: &mut ElementReader<'_>, fill: Option<&Fill>) -> Result<Bridge> {
    take.refuse_attributes(&["macTableManager"])?;
    let name = match take.value_with("name", device)? {
        Some(name) => name,
        None => {
            let name = fill.and_then(|fill| fill.bridge.clone());
            name.ok_or_else(|| take.missing("name"))?
        }
    };
    Ok(Bridge {
        name,
        stp: take.choice("stp", &[("on", true), ("off", false)])?.unwrap_or(STP),
        delay: take.value_with("delay", number)?.unwrap_or(0),
        zone: take.value("zone")?,
    })
}

fn domain(take: &mut ElementReader<'_>) -> Result<Option<Domain>> {
    take.refuse_attributes(&["register"])?;
    let local_only = take.yes_no("localOnly")?.unwrap_or(false);
    // An empty name means that there is no domain, as in libvirt.
    let name = need(take, "name", |text| match text {
        "" => Ok(None),
        _ => text.parse().map(Some),
    })?;
    Ok(name.map(|name| Domain { name, local_only }))
}

impl Fill {
    /// Returns a random UUID and a random MAC address, with `bridge` as the bridge's name.
    pub fn random(bridge: Option<InterfaceName>, rng: &mut impl rand::Rng) -> Self {
        Fill { uuid: Uuid::random(rng), mac: Mac::random(rng), bridge }
    }
}
