//! From libvirt's network XML to a [`Network`].
//!
//! A value that makes no sense by itself is refused here, at its own place; what does not go
//! together is for [`super::check`], and [`Places`] tells it where the parts are.

use super::fields::{address, address_v4, class_prefix, need, number, subnet};
use super::model::{
    AddressRange, Bootp, Bridge, Client, Dhcp, DhcpHost, DhcpRange, Dns, DnsHost, Domain, Forward,
    Forwarder, Ip, Lease, Nat, Network, Route, Srv, SrvTarget, Txt,
};
use super::places::{Part, Places};
use super::values::device;
use crate::types::{DomainName, HostName, InterfaceName, Mac, PortRange, Protocol, Uuid};
use crate::xml::{self, Mistake, Take, XmlError};

/// What a document gets that leaves these out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fill {
    /// Its UUID.
    pub uuid: Uuid,
    /// The bridge's hardware address.
    pub mac: Mac,
    /// The bridge's name; `None` when it has to be in the document.
    pub bridge: Option<InterfaceName>,
}

/// A network, and where its parts are in the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The network.
    pub network: Network,
    /// Where its parts are.
    pub places: Places,
}

/// Whether a bridge speaks STP if its document does not say so. libvirt's does; here no bridge
/// believes a guest's BPDUs without being asked to, and a network of one bridge has no loops.
const STP: bool = false;

/// Elements of `<network>` that the format has and netlaunch does not.
const OTHER_ELEMENTS: [&str; 8] =
    ["bandwidth", "vlan", "portgroup", "virtualport", "port", "metadata", "title", "description"];

type Result<T> = std::result::Result<T, XmlError>;

/// Reads a network. What is left out and netlaunch chooses is taken from `fill`; without one, as of
/// a document that netlaunch wrote, it must be there.
///
/// # Errors
/// The first [`XmlError`].
pub fn parse(bytes: &[u8], fill: Option<&Fill>) -> Result<Parsed> {
    let root = xml::read(bytes)?;
    let mut places = Places::default();
    places.note(Part::Network, root.place);
    let mut take = Take::root(&root, "network")?;
    let network = network(&mut take, fill, &mut places)?;
    take.finish()?;
    Ok(Parsed { network, places })
}

fn network(take: &mut Take<'_>, fill: Option<&Fill>, places: &mut Places) -> Result<Network> {
    take.refuse_attributes(&["trustGuestRxFilters"])?;
    take.refuse_children(&OTHER_ELEMENTS)?;
    let ipv6 = take.yes_no("ipv6")?.unwrap_or(false);
    // How many guests were on it when the document was printed; nothing to keep.
    if let Some(connections) = take.attribute("connections") {
        number::<u32>(&connections.value).map_err(|why| take.wrong(connections, why))?;
    }
    let name = take.child("name")?.ok_or_else(|| take.missing_child("name"))?;
    places.note(Part::Name, name.place);
    let name = name.take(Take::text_value)?;
    let uuid = match take.child("uuid")? {
        // libvirt's tools write an empty <uuid/> for "choose one".
        Some(uuid) if !(fill.is_some() && uuid.text.trim().is_empty()) => {
            places.note(Part::Uuid, uuid.place);
            uuid.take(Take::text_value)?
        }
        Some(uuid) => {
            places.note(Part::Uuid, uuid.place);
            uuid.take(|take| Ok(take.text()))?;
            fill.map(|fill| fill.uuid).ok_or_else(|| take.missing_child("uuid"))?
        }
        None => fill.map(|fill| fill.uuid).ok_or_else(|| take.missing_child("uuid"))?,
    };
    let forward = match take.child("forward")? {
        Some(element) => {
            places.note(Part::Forward, element.place);
            element.take(|take| forward(take, places))?
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
        element.take(|take| {
            let size = take.value_with("size", number::<u16>)?;
            size.ok_or_else(|| take.missing("size"))
        })
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
        element.take(|take| {
            take.refuse_attributes(&["register"])?;
            let local_only = take.yes_no("localOnly")?.unwrap_or(false);
            let name = take.value_with("name", |text| match text {
                "" => Ok(None),
                _ => text.parse().map(Some),
            })?;
            // An empty name is no domain, as in libvirt.
            let name = name.ok_or_else(|| take.missing("name"))?;
            Ok(name.map(|name| Domain { name, local_only }))
        })
    });
    let dns = take.child("dns")?.map(|element| element.take(dns));
    let mut ips = Vec::new();
    for element in take.children("ip") {
        places.note(Part::Ip(ips.len()), element.place);
        let index = ips.len();
        ips.push(element.take(|take| ip(take, index, places))?);
    }
    let mut routes = Vec::new();
    for element in take.children("route") {
        places.note(Part::Route(routes.len()), element.place);
        routes.push(element.take(route)?);
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

fn bridge(take: &mut Take<'_>, fill: Option<&Fill>) -> Result<Bridge> {
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

fn forward(take: &mut Take<'_>, places: &mut Places) -> Result<Forward> {
    take.refuse_attributes(&["managed"])?;
    let mode = take.attribute("mode");
    let text = mode.map_or("nat", |mode| mode.value.as_str());
    if let (Some(mode), "bridge" | "passthrough" | "private" | "vepa" | "hostdev") = (mode, text) {
        let what = Mistake::Unsupported {
            what: format!("<forward mode='{text}'>"),
            fix: "use nat, route or open, or no <forward> for an isolated network",
        };
        return Err(XmlError { place: mode.value_place, what });
    }
    take.refuse_children(&["address", "pf", "driver"])?;
    let mut dev = take.value_with("dev", device)?;
    // libvirt prints the device a second time as an element.
    if let Some(interface) = take.child("interface")? {
        let other = interface.take(|interface| {
            interface.attribute("connections");
            need(interface, "dev", device)
        })?;
        let first = dev.get_or_insert_with(|| other.clone());
        if *first != other {
            let why = format!("it is {other}, and dev of <forward> is {first}: one is supported");
            return Err(Take::new(interface).bad(why));
        }
    }
    let nat = take.child("nat")?;
    if let Some(nat) = nat
        && text != "nat"
    {
        return Err(Take::new(nat)
            .bad(format!("it goes with mode='nat' only, and this is {text:?}: remove it")));
    }
    match text {
        "nat" => {
            let mut settings = match nat {
                Some(element) => element.take(|take| self::nat(take, places))?,
                None => Nat::default(),
            };
            settings.dev = dev;
            Ok(Forward::Nat(settings))
        }
        "route" => Ok(Forward::Route { dev }),
        // Without rules nothing could keep to one device; without forwarding there is none.
        "open" | "none" => match take.attribute("dev") {
            None if text == "open" => Ok(Forward::Open),
            None => Ok(Forward::Isolated),
            Some(dev) => {
                Err(take.wrong(dev, format!("mode={text:?} goes without a device: remove it")))
            }
        },
        other => {
            let why = format!("{other:?} is not a mode: use nat, route, open or none");
            Err(mode.map_or_else(|| take.bad(&why), |mode| take.wrong(mode, &why)))
        }
    }
}

fn nat(take: &mut Take<'_>, places: &mut Places) -> Result<Nat> {
    let ipv6 = take.yes_no("ipv6")?.unwrap_or(false);
    let addresses = take.child("address")?.map(|element| {
        places.note(Part::NatAddresses, element.place);
        element.take(|take| {
            let (first, last) = (need(take, "start", address_v4)?, need(take, "end", address_v4)?);
            let why = || format!("{first} to {last} runs backwards: exchange them");
            AddressRange::new(first, last).ok_or_else(|| take.bad(why()))
        })
    });
    let ports = take.child("port")?.map(|element| {
        places.note(Part::NatPorts, element.place);
        element.take(|take| {
            let (first, last) = (need(take, "start", number)?, need(take, "end", number)?);
            let why =
                || format!("{first} to {last} are no ports: use 1 to 65535, the lowest first");
            PortRange::new(first, last).ok_or_else(|| take.bad(why()))
        })
    });
    Ok(Nat { dev: None, ipv6, addresses: addresses.transpose()?, ports: ports.transpose()? })
}

fn dns(take: &mut Take<'_>) -> Result<Dns> {
    let enable = take.yes_no("enable")?.unwrap_or(true);
    let forward_plain_names = take.yes_no("forwardPlainNames")?.unwrap_or(true);
    let forwarders =
        take.children("forwarder").map(|e| e.take(forwarder)).collect::<Result<_>>()?;
    let hosts = take.children("host").map(|e| e.take(dns_host)).collect::<Result<_>>()?;
    let services = take.children("srv").map(|e| e.take(srv)).collect::<Result<_>>()?;
    let texts = take
        .children("txt")
        .map(|e| {
            e.take(|take| Ok(Txt { name: take.required("name")?, value: take.required("value")? }))
        })
        .collect::<Result<_>>()?;
    Ok(Dns { enable, forward_plain_names, forwarders, hosts, services, texts })
}

fn forwarder(take: &mut Take<'_>) -> Result<Forwarder> {
    take.refuse_attributes(&["port"])?;
    match (take.value::<DomainName>("domain")?, take.value_with("addr", address)?) {
        (None, Some(addr)) => Ok(Forwarder::All(addr)),
        (Some(domain), Some(addr)) => Ok(Forwarder::Domain(domain, addr)),
        (Some(domain), None) => Ok(Forwarder::Host(domain)),
        (None, None) => Err(take.bad("it says nothing: add addr, domain or both")),
    }
}

fn dns_host(take: &mut Take<'_>) -> Result<DnsHost> {
    let ip = need(take, "ip", address)?;
    let names: Vec<HostName> =
        take.children("hostname").map(|e| e.take(Take::text_value)).collect::<Result<_>>()?;
    if names.is_empty() { Err(take.missing_child("hostname")) } else { Ok(DnsHost { ip, names }) }
}

fn srv(take: &mut Take<'_>) -> Result<Srv> {
    let service = take.required("service")?;
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let protocol = take.choice("protocol", &protocols)?.ok_or_else(|| take.missing("protocol"))?;
    let domain = take.value("domain")?;
    let target = take.value_with("target", |text| match text {
        "." => Ok(None),
        name => name.parse::<DomainName>().map(Some),
    })?;
    let port = take.value_with("port", number)?;
    let priority = take.value_with("priority", number)?;
    let weight = take.value_with("weight", number)?;
    let target = match target {
        Some(host) => Some(SrvTarget { host, port, priority, weight }),
        None if port.or(priority).or(weight).is_none() => None,
        None => return Err(take.bad("port, priority and weight are the target's: add target")),
    };
    Ok(Srv { service, protocol, domain, target })
}

fn ip(take: &mut Take<'_>, index: usize, places: &mut Places) -> Result<Ip> {
    let net = subnet(take, class_prefix)?;
    let local_ptr = take.yes_no("localPtr")?.unwrap_or(false);
    let tftp = take.child("tftp")?.map(|element| {
        places.note(Part::Tftp(index), element.place);
        element.take(|take| take.required("root"))
    });
    let dhcp = take.child("dhcp")?.map(|element| {
        places.note(Part::Dhcp(index), element.place);
        element.take(|take| dhcp(take, index, places))
    });
    Ok(Ip { net, local_ptr, tftp: tftp.transpose()?, dhcp: dhcp.transpose()? })
}

fn dhcp(take: &mut Take<'_>, index: usize, places: &mut Places) -> Result<Dhcp> {
    let mut dhcp = Dhcp::default();
    for element in take.children("range") {
        places.note(Part::Range(index, dhcp.ranges.len()), element.place);
        dhcp.ranges.push(element.take(|take| {
            let (first, last) = (need(take, "start", address)?, need(take, "end", address)?);
            Ok(DhcpRange { first, last, lease: lease(take)? })
        })?);
    }
    for element in take.children("host") {
        places.note(Part::Host(index, dhcp.hosts.len()), element.place);
        dhcp.hosts.push(element.take(dhcp_host)?);
    }
    if let Some(element) = take.child("bootp")? {
        places.note(Part::Bootp(index), element.place);
        let read = |take: &mut Take<'_>| {
            Ok(Bootp { file: take.required("file")?, server: take.value("server")? })
        };
        dhcp.bootp = Some(element.take(read)?);
    }
    Ok(dhcp)
}

fn dhcp_host(take: &mut Take<'_>) -> Result<DhcpHost> {
    let (mac, duid) = (take.value("mac")?, take.value("id")?);
    let name = take.value("name")?;
    let client = match (mac, duid, name) {
        (Some(mac), None, name) => Client::Mac(mac, name),
        (None, Some(duid), name) => Client::Duid(duid, name),
        (None, None, Some(name)) => Client::Name(name),
        (Some(_), Some(_), _) => {
            return Err(take.bad("mac is for IPv4 and id for IPv6: remove one of them"));
        }
        (None, None, None) => return Err(take.bad("whose address is it? add mac, id or name")),
    };
    Ok(DhcpHost { client, ip: need(take, "ip", address)?, lease: lease(take)? })
}

fn lease(take: &mut Take<'_>) -> Result<Option<Lease>> {
    let Some(element) = take.child("lease")? else { return Ok(None) };
    element.take(|take| {
        let expiry: u64 = need(take, "expiry", number)?;
        let units = [("seconds", 1), ("minutes", 60), ("hours", 3600)];
        let unit: u64 = take.choice("unit", &units)?.unwrap_or(60);
        // The largest 32-bit number means "for ever" in DHCP (RFC 2131, 3.3).
        match expiry.checked_mul(unit).and_then(|seconds| u32::try_from(seconds).ok()) {
            Some(0) => Ok(Some(Lease::Infinite)),
            Some(seconds) if (120..u32::MAX).contains(&seconds) => {
                Ok(Some(Lease::Seconds(seconds)))
            }
            Some(1..120) => Err(take.bad("it is too short: use 2 minutes at least, or 0 for ever")),
            _ => Err(take.bad("it is too long: use expiry='0', which is for ever")),
        }
    })
}

fn route(take: &mut Take<'_>) -> Result<Route> {
    let net = subnet(take, |ip| ip.is_unspecified().then_some(0))?;
    let gateway = need(take, "gateway", address)?;
    let metric = take.value_with("metric", |text| match number::<u32>(text)?.try_into() {
        Ok(metric) => Ok(metric),
        Err(_) => Err("a metric is at least 1".to_owned()),
    })?;
    Ok(Route { net, gateway, metric })
}

impl Fill {
    /// Random values, and this name for the bridge.
    pub fn random(bridge: Option<InterfaceName>, rng: &mut impl rand::Rng) -> Self {
        Fill { uuid: Uuid::random(rng), mac: Mac::random(rng), bridge }
    }
}
