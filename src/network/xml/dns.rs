//! Reads `<dns>`: the forwarders, and the records of the network's DNS server.

use std::num::NonZeroU16;

use super::Result;
use crate::network::fields::{address, need, number};
use crate::network::model::{Dns, DnsHost, DnsServer, Forwarder, Srv, SrvTarget, Txt};
use crate::types::{DnsName, Protocol};
use crate::xml::{Element, ElementReader};

pub(super) fn dns(take: &mut ElementReader<'_>) -> Result<Dns> {
    let enable = take.yes_no("enable")?.unwrap_or(true);
    let forward_plain_names = take.yes_no("forwardPlainNames")?.unwrap_or(true);
    let forwarders =
        take.children("forwarder").map(|e| e.take(forwarder)).collect::<Result<_>>()?;
    let hosts = take.children("host").map(dns_host).collect::<Result<_>>()?;
    let services = take.children("srv").map(srv).collect::<Result<_>>()?;
    let texts = take.children("txt").map(txt).collect::<Result<_>>()?;
    Ok(Dns { enable, forward_plain_names, forwarders, hosts, services, texts })
}

fn forwarder(take: &mut ElementReader<'_>) -> Result<Forwarder> {
    let domain = take.value::<DnsName>("domain")?;
    let address = take.value_with("addr", address)?;
    let port = take.value_with("port", |text| {
        number::<NonZeroU16>(text).map_err(|_| format!("{text:?} is not a port: use 1 to 65535"))
    })?;
    match (domain, address.map(|address| DnsServer { address, port })) {
        (None, Some(server)) => Ok(Forwarder::All(server)),
        (Some(domain), Some(server)) => Ok(Forwarder::Domain(domain, server)),
        (Some(domain), None) if port.is_none() => Ok(Forwarder::Host(domain)),
        (Some(_), None) => Err(take.bad("port is the server's: add addr, or remove port")),
        (None, None) => Err(take.bad("addr and domain are missing: add one of them or both")),
    }
}

/// Reads one `<txt>` of `<dns>`.
pub(in crate::network) fn txt(element: &Element) -> Result<Txt> {
    element.take(|take| Ok(Txt { name: take.required("name")?, value: take.required("value")? }))
}

/// Reads one `<host>` of `<dns>`.
pub(in crate::network) fn dns_host(element: &Element) -> Result<DnsHost> {
    element.take(read_host)
}

/// Reads one `<srv>` of `<dns>`.
pub(in crate::network) fn srv(element: &Element) -> Result<Srv> {
    element.take(read_srv)
}

fn read_host(take: &mut ElementReader<'_>) -> Result<DnsHost> {
    let ip = need(take, "ip", address)?;
    let names: Vec<DnsName> = take
        .children("hostname")
        .map(|e| e.take(ElementReader::text_value))
        .collect::<Result<_>>()?;
    if names.is_empty() { Err(take.missing_child("hostname")) } else { Ok(DnsHost { ip, names }) }
}

fn read_srv(take: &mut ElementReader<'_>) -> Result<Srv> {
    let service = take.required("service")?;
    let protocols = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];
    let protocol = take.choice("protocol", &protocols)?.ok_or_else(|| take.missing("protocol"))?;
    let domain = take.value("domain")?;
    let target = take.value_with("target", |text| match text {
        "." => Ok(None),
        name => name.parse::<DnsName>().map(Some),
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
