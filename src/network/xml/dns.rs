//! Reads `<dns>`: the forwarders, and the records of the network's DNS server.
//!
//! libvirt's attribute `port` of a forwarder is refused, since netlaunch does not support it.

use super::Result;
use crate::network::fields::{address, need, number};
use crate::network::model::{Dns, DnsHost, Forwarder, Srv, SrvTarget, Txt};
use crate::types::{DomainName, HostName, Protocol};
use crate::xml::ElementReader;

pub(super) fn dns(take: &mut ElementReader<'_>) -> Result<Dns> {
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

fn forwarder(take: &mut ElementReader<'_>) -> Result<Forwarder> {
    take.refuse_attributes(&["port"])?;
    match (take.value::<DomainName>("domain")?, take.value_with("addr", address)?) {
        (None, Some(addr)) => Ok(Forwarder::All(addr)),
        (Some(domain), Some(addr)) => Ok(Forwarder::Domain(domain, addr)),
        (Some(domain), None) => Ok(Forwarder::Host(domain)),
        (None, None) => Err(take.bad("addr and domain are missing: add one of them or both")),
    }
}

fn dns_host(take: &mut ElementReader<'_>) -> Result<DnsHost> {
    let ip = need(take, "ip", address)?;
    let names: Vec<HostName> = take
        .children("hostname")
        .map(|e| e.take(ElementReader::text_value))
        .collect::<Result<_>>()?;
    if names.is_empty() { Err(take.missing_child("hostname")) } else { Ok(DnsHost { ip, names }) }
}

fn srv(take: &mut ElementReader<'_>) -> Result<Srv> {
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
