//! Reads libvirt's network XML into a [`Network`].
//!
//! This module reads `<network>` and its simple children; `forward`, `dns`, `ip` and `port` read
//! the children that have children themselves. Each child is read at most once, and a child or
//! attribute that no function asks for is an error.
//!
//! A value that is invalid by itself is refused here, at its own place. [`super::check`] then finds
//! the parts that do not fit together; it gets the place of each part from [`Places`].

mod dns;
mod forward;
mod ip;
mod port;

pub(in crate::network) use dns::{dns_host, srv, txt};
pub(in crate::network) use forward::interface;
pub(in crate::network) use ip::{dhcp_host, dhcp_range};
pub(in crate::network) use port::port_group;

use super::fields::{need, number};
use super::model::{Bridge, Domain, Forward, Network};
use super::places::{Part, Places};
use super::values::bridge_name;
use crate::types::{InterfaceName, Mac, Uuid};
use crate::xml::{self, Element, ElementReader, Foreign, Format, XmlError, XmlErrorKind};

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
#[non_exhaustive]
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

/// The namespace of the options for dnsmasq.
pub(super) const DNSMASQ: &str = "http://libvirt.org/schemas/network/dnsmasq/1.0";

/// The content of `<metadata>` belongs to other programs.
const FORMAT: Format = Format { kept: &["metadata"], namespaces: &[(DNSMASQ, "dnsmasq")] };

type Result<T> = std::result::Result<T, XmlError>;

/// Reads a network.
///
/// If the document leaves out a value that netlaunch chooses, the value comes from `fill`. Without
/// `fill`, as for a document that netlaunch wrote, the document must have all of these values.
///
/// # Errors
/// The first [`XmlError`].
pub fn parse(bytes: &[u8], fill: Option<&Fill>) -> Result<Parsed> {
    let root = xml::read_format(bytes, &FORMAT)?;
    let mut places = Places::default();
    places.note(Part::Network, root.place);
    let mut reader = ElementReader::root(&root, "network")?;
    let network = network(&mut reader, fill, &mut places)?;
    reader.finish()?;
    Ok(Parsed { network, places })
}

fn network(
    reader: &mut ElementReader<'_>,
    fill: Option<&Fill>,
    places: &mut Places,
) -> Result<Network> {
    let ipv6 = reader.yes_no("ipv6")?.unwrap_or(false);
    // This is the number of guests at the time when libvirt printed the document. It is checked and
    // dropped.
    if let Some(connections) = reader.attribute("connections") {
        number::<u32>(&connections.value).map_err(|why| reader.wrong(connections, why))?;
    }
    let name = reader.child("name")?.ok_or_else(|| reader.missing_child("name"))?;
    places.note(Part::Name, name.place);
    let name = name.take(ElementReader::text_value)?;
    let uuid = uuid(reader, fill, places)?;
    let title = reader.child("title")?.filter(|title| !title.text.is_empty());
    let title = title.map(|title| title.take(ElementReader::text_value)).transpose()?;
    let description = match reader.child("description")? {
        Some(element) => element.take(|reader| Ok(reader.text().to_owned()))?,
        None => String::new(),
    };
    let metadata = match reader.child("metadata")? {
        Some(element) => element.take(|reader| Ok(reader.kept().clone()))?,
        None => Foreign::default(),
    };
    let forward = match reader.child("forward")? {
        Some(element) => {
            places.note(Part::Forward, element.place);
            element.take(|reader| forward::forward(reader, places))?
        }
        None => Forward::Isolated,
    };
    let bridge = bridge(reader, &forward, fill, places)?;
    let mtu = mtu(reader, places)?;
    let mac = mac(reader, &forward, fill, places)?;
    let domain = noted(reader, "domain", Part::Domain, places)?;
    let domain = domain.map(|element| element.take(domain_of)).transpose()?.flatten();
    let dns = noted(reader, "dns", Part::Dns, places)?;
    let dns = dns.map(|element| element.take(dns::dns)).transpose()?.unwrap_or_default();
    let ips = list(reader, "ip", Part::Ip, places, |element, index, places| {
        element.take(|reader| ip::ip(reader, index, places))
    })?;
    let routes =
        list(reader, "route", Part::Route, places, |element, _, _| element.take(ip::route))?;
    let bandwidth = reader.element().children.iter().find(|child| child.name == "bandwidth");
    if let Some(element) = bandwidth {
        places.note(Part::Bandwidth, element.place);
    }
    let port = port::properties(reader)?;
    let port_groups =
        list(reader, "portgroup", Part::PortGroup, places, |element, _, _| port_group(element))?;
    let dnsmasq_options = match reader.child("dnsmasq:options")? {
        Some(element) => element.take(|reader| {
            list(reader, "dnsmasq:option", Part::DnsmasqOption, places, |element, _, _| {
                element.take(|reader| reader.required("value"))
            })
        })?,
        None => Vec::new(),
    };
    Ok(Network {
        name,
        uuid,
        title,
        description: Some(description).filter(|text| !text.is_empty()),
        metadata: Some(metadata).filter(|content| !content.is_blank()),
        ipv6,
        forward,
        bridge,
        mac,
        mtu,
        domain,
        dns,
        ips,
        routes,
        port,
        port_groups,
        dnsmasq_options,
    })
}

/// Reads `<mtu>`. A size of 0 means that the document sets no MTU, as in libvirt.
fn mtu(reader: &mut ElementReader<'_>, places: &mut Places) -> Result<Option<u16>> {
    let Some(element) = noted(reader, "mtu", Part::Mtu, places)? else { return Ok(None) };
    let size: u16 = element.take(|reader| need(reader, "size", number))?;
    Ok(Some(size).filter(|size| *size != 0))
}

/// Returns the child element with this name and notes its place.
fn noted<'a>(
    reader: &mut ElementReader<'a>,
    name: &'static str,
    part: Part,
    places: &mut Places,
) -> Result<Option<&'a Element>> {
    let found = reader.child(name)?;
    if let Some(element) = found {
        places.note(part, element.place);
    }
    Ok(found)
}

/// Reads the child elements with this name and notes their places.
fn list<T>(
    reader: &mut ElementReader<'_>,
    name: &'static str,
    part: fn(usize) -> Part,
    places: &mut Places,
    read: impl Fn(&Element, usize, &mut Places) -> Result<T>,
) -> Result<Vec<T>> {
    let mut all = Vec::new();
    for (index, element) in reader.children(name).enumerate() {
        places.note(part(index), element.place);
        all.push(read(element, index, places)?);
    }
    Ok(all)
}

/// Reads `<mac>`. An existing bridge has a MAC address already.
fn mac(
    reader: &mut ElementReader<'_>,
    forward: &Forward,
    fill: Option<&Fill>,
    places: &mut Places,
) -> Result<Option<Mac>> {
    if let Some(element) = noted(reader, "mac", Part::Mac, places)? {
        return element.take(|reader| reader.required("address")).map(Some);
    }
    match (forward, fill) {
        (Forward::Bridge, _) => Ok(None),
        (_, Some(fill)) => Ok(Some(fill.mac)),
        (_, None) => Err(reader.missing_child("mac")),
    }
}

fn uuid(reader: &mut ElementReader<'_>, fill: Option<&Fill>, places: &mut Places) -> Result<Uuid> {
    if let Some(uuid) = reader.child("uuid")? {
        places.note(Part::Uuid, uuid.place);
        // In libvirt's tools an empty <uuid/> means that libvirt chooses the UUID.
        if fill.is_none() || !uuid.text.trim().is_empty() {
            return uuid.take(ElementReader::trimmed_value);
        }
        uuid.take(|reader| Ok(reader.text()))?;
    }
    fill.map(|fill| fill.uuid).ok_or_else(|| reader.missing_child("uuid"))
}

/// Reads `<bridge>`. An existing bridge must be named.
fn bridge(
    reader: &mut ElementReader<'_>,
    forward: &Forward,
    fill: Option<&Fill>,
    places: &mut Places,
) -> Result<Bridge> {
    let chosen = fill.and_then(|fill| fill.bridge.clone()).filter(|_| *forward != Forward::Bridge);
    let Some(element) = reader.child("bridge")? else {
        let name = chosen.ok_or_else(|| reader.missing_child("bridge"))?;
        return Ok(Bridge { name, stp: STP, delay: 0, zone: None, kernel_mac_table: false });
    };
    places.note(Part::Bridge, element.place);
    element.take(|reader| {
        // libvirt chooses the name in place of an empty one, which virt-manager writes, and of this
        // template.
        let name = reader.value_with("name", |text| match text {
            "" | "virbr%d" if chosen.is_some() => Ok(None),
            _ => bridge_name(text).map(Some),
        })?;
        let name = name.flatten().or(chosen).ok_or_else(|| reader.missing("name"))?;
        Ok(Bridge {
            name,
            stp: reader.choice("stp", &[("on", true), ("off", false)])?.unwrap_or(STP),
            delay: reader.value_with("delay", number)?.unwrap_or(0),
            zone: reader.value("zone")?,
            kernel_mac_table: kernel_mac_table(reader)?,
        })
    })
}

/// Reads `macTableManager`. The kernel learns the guests' MAC addresses; libvirt can do it in its
/// place, and netlaunch cannot.
fn kernel_mac_table(reader: &mut ElementReader<'_>) -> Result<bool> {
    match reader.attribute("macTableManager") {
        None => Ok(false),
        Some(manager) if manager.value == "kernel" => Ok(true),
        Some(manager) if manager.value == "libvirt" => {
            let what = "macTableManager='libvirt'".to_owned();
            let fix = "write macTableManager='kernel', which is the default";
            let what = XmlErrorKind::Unsupported { what, fix };
            Err(XmlError { place: manager.value_place, what })
        }
        Some(manager) => {
            let why = format!("{:?} is not a value of it: use kernel", manager.value);
            Err(reader.wrong(manager, why))
        }
    }
}

fn domain_of(reader: &mut ElementReader<'_>) -> Result<Option<Domain>> {
    if reader.yes_no("register")? == Some(true)
        && let Some(register) = reader.attribute("register")
    {
        let what = "register='yes'".to_owned();
        let fix = "remove it, and tell systemd-resolved of the bridge yourself while the network \
                   runs: resolvectl dns BRIDGE ADDRESS, resolvectl domain BRIDGE '~DOMAIN'";
        let what = XmlErrorKind::Unsupported { what, fix };
        return Err(XmlError { place: register.value_place, what });
    }
    let local_only = reader.yes_no("localOnly")?.unwrap_or(false);
    // An empty name means that there is no domain, as in libvirt.
    let name = need(reader, "name", |text| match text {
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
