//! Reads `<dns>`: the forwarders, and the records of the network's DNS server.

use std::num::NonZeroU16;

use super::Result;
use crate::network::fields::{address, need, number};
use crate::network::model::{Dns, DnsHost, DnsServer, Forwarder, Srv, SrvTarget, Txt};
use crate::types::{DnsName, Protocol};
use crate::xml::{Element, ElementReader};

pub(super) fn dns(reader: &mut ElementReader<'_>) -> Result<Dns> {
    let enable = reader.yes_no("enable")?.unwrap_or(true);
    let forward_plain_names = reader.yes_no("forwardPlainNames")?.unwrap_or(true);
    let forwarders =
        reader.children("forwarder").map(|e| e.take(forwarder)).collect::<Result<_>>()?;
    let hosts = reader.children("host").map(dns_host).collect::<Result<_>>()?;
    let services = reader.children("srv").map(srv).collect::<Result<_>>()?;
    let texts = reader.children("txt").map(txt).collect::<Result<_>>()?;
    Ok(Dns { enable, forward_plain_names, forwarders, hosts, services, texts })
}

fn forwarder(reader: &mut ElementReader<'_>) -> Result<Forwarder> {
    let domain = reader.value::<DnsName>("domain")?;
    let address = reader.value_with("addr", address)?;
    let port = reader.value_with("port", |text| {
        number::<NonZeroU16>(text).map_err(|_| format!("{text:?} is not a port: use 1 to 65535"))
    })?;
    match (domain, address.map(|address| DnsServer { address, port })) {
        (None, Some(server)) => Ok(Forwarder::All(server)),
        (Some(domain), Some(server)) => Ok(Forwarder::Domain(domain, server)),
        (Some(domain), None) if port.is_none() => Ok(Forwarder::Host(domain)),
        (Some(_), None) => Err(reader.bad("port is the server's: add addr, or remove port")),
        (None, None) => Err(reader.bad("addr and domain are missing: add one of them or both")),
    }
}

/// Reads one `<txt>` of `<dns>`.
pub(in crate::network) fn txt(element: &Element) -> Result<Txt> {
    element
        .take(|reader| Ok(Txt { name: reader.required("name")?, value: reader.required("value")? }))
}

/// Reads one `<host>` of `<dns>`.
pub(in crate::network) fn dns_host(element: &Element) -> Result<DnsHost> {
    element.take(read_host)
}

/// Reads one `<srv>` of `<dns>`.
pub(in crate::network) fn srv(element: &Element) -> Result<Srv> {
    element.take(read_srv)
}

fn read_host(reader: &mut ElementReader<'_>) -> Result<DnsHost> {
    let ip = need(reader, "ip", address)?;
    let names: Vec<DnsName> = reader
        .children("hostname")
        .map(|e| e.take(ElementReader::text_value))
        .collect::<Result<_>>()?;
    if names.is_empty() { Err(reader.missing_child("hostname")) } else { Ok(DnsHost { ip, names }) }
}

fn read_srv(reader: &mut ElementReader<'_>) -> Result<Srv> {
    let service = reader.required("service")?;
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let protocol =
        reader.choice("protocol", &protocols)?.ok_or_else(|| reader.missing("protocol"))?;
    let domain = reader.value("domain")?;
    let target = reader.value_with("target", |text| match text {
        "." => Ok(None),
        name => name.parse::<DnsName>().map(Some),
    })?;
    let port = reader.value_with("port", number)?;
    let priority = reader.value_with("priority", number)?;
    let weight = reader.value_with("weight", number)?;
    let target = match target {
        Some(host) => Some(SrvTarget { host, port, priority, weight }),
        None if port.or(priority).or(weight).is_none() => None,
        None => return Err(reader.bad("port, priority and weight are the target's: add target")),
    };
    Ok(Srv { service, protocol, domain, target })
}
