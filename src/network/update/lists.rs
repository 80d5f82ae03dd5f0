//! Changes the records of a DNS server, the interfaces for forwarding, and the port groups.

use std::net::IpAddr;

use super::dhcp::root;
use super::{NetworkUpdate, UpdateError, UpdateSection, UpdateVerb, add, only};
use crate::network::fields::{address, number};
use crate::network::list_element::ListElement;
use crate::network::model::{Dns, DnsHost, Forward, PortGroup, Srv, Txt};
use crate::network::values::{PortGroupName, ServiceName};
use crate::types::{DnsName, InterfaceName, Protocol};
use crate::xml::{Element, ElementReader};

type Result<T> = std::result::Result<T, UpdateError>;

const PROTOCOLS: [(&str, Protocol); 2] = [("tcp", Protocol::Tcp), ("udp", Protocol::Udp)];

/// Refuses a parent index, and a modification if the elements have no key.
fn check(update: &NetworkUpdate, has_key: bool) -> Result<()> {
    if update.parent.is_some() {
        return Err(UpdateError::NoParent(update.section));
    }
    if update.verb == UpdateVerb::Modify && !has_key {
        return Err(UpdateError::NotModifiable(update.section));
    }
    Ok(())
}

pub(super) fn dns_host(dns: &mut Dns, update: &NetworkUpdate, element: &Element) -> Result<()> {
    let section = UpdateSection::DnsHost;
    check(update, false)?;
    root(element, DnsHost::NAME)?;
    if update.verb == UpdateVerb::Delete {
        let (ip, names): (Option<IpAddr>, Vec<DnsName>) = element.take(|reader| {
            let ip = reader.value_with("ip", address)?;
            let names =
                reader.children("hostname").map(|name| name.take(|reader| reader.text_value()));
            let names = names.collect::<std::result::Result<Vec<_>, _>>()?;
            if ip.is_none() && names.is_empty() {
                return Err(reader.bad("it names no record: add ip or <hostname>"));
            }
            Ok((ip, names))
        })?;
        let at = only(&dns.hosts, section, |host| {
            ip.is_none_or(|ip| host.ip == ip) && names.iter().all(|name| host.names.contains(name))
        })?;
        dns.hosts.remove(at);
        return Ok(());
    }
    let new = DnsHost::from_element(element)?;
    for host in &dns.hosts {
        let key = match () {
            () if host.ip == new.ip => "ip",
            () if host.names.iter().any(|name| new.names.contains(name)) => "hostname",
            () => continue,
        };
        return Err(UpdateError::Exists { section, key });
    }
    add(&mut dns.hosts, update.verb, new);
    Ok(())
}

pub(super) fn dns_txt(dns: &mut Dns, update: &NetworkUpdate, element: &Element) -> Result<()> {
    let section = UpdateSection::DnsTxt;
    check(update, false)?;
    root(element, Txt::NAME)?;
    if update.verb == UpdateVerb::Delete {
        let name: DnsName = element.take(|reader| {
            reader.attribute("value");
            reader.required("name")
        })?;
        dns.texts.remove(only(&dns.texts, section, |txt| txt.name == name)?);
        return Ok(());
    }
    let new = Txt::from_element(element)?;
    if dns.texts.iter().any(|txt| txt.name == new.name) {
        return Err(UpdateError::Exists { section, key: "name" });
    }
    add(&mut dns.texts, update.verb, new);
    Ok(())
}

/// The attributes of a service that shall be removed; the removed one has all that are set.
struct SrvKey {
    service: Option<ServiceName>,
    protocol: Option<Protocol>,
    domain: Option<DnsName>,
    target: Option<String>,
    numbers: [Option<u16>; 3],
}

impl SrvKey {
    fn matches(&self, srv: &Srv) -> bool {
        let target = srv.target.as_ref();
        let host = target.map(|target| target.host.as_ref().map_or(".", |host| host.as_str()));
        let [port, priority, weight] = self.numbers;
        let same = |own: Option<u16>, other: Option<u16>| own.is_none_or(|own| Some(own) == other);
        self.service.as_ref().is_none_or(|own| *own == srv.service)
            && self.protocol.is_none_or(|own| own == srv.protocol)
            && self.domain.as_ref().is_none_or(|own| Some(own) == srv.domain.as_ref())
            && self.target.as_ref().is_none_or(|own| Some(own.as_str()) == host)
            && same(port, target.and_then(|target| target.port))
            && same(priority, target.and_then(|target| target.priority))
            && same(weight, target.and_then(|target| target.weight))
    }
}

pub(super) fn dns_srv(dns: &mut Dns, update: &NetworkUpdate, element: &Element) -> Result<()> {
    let section = UpdateSection::DnsSrv;
    check(update, false)?;
    root(element, Srv::NAME)?;
    if update.verb == UpdateVerb::Delete {
        let key = element.take(|reader| {
            Ok(SrvKey {
                service: Some(reader.required("service")?),
                protocol: reader.choice("protocol", &PROTOCOLS)?,
                domain: reader.value("domain")?,
                target: reader.attribute("target").map(|target| target.value.clone()),
                numbers: [
                    reader.value_with("port", number)?,
                    reader.value_with("priority", number)?,
                    reader.value_with("weight", number)?,
                ],
            })
        })?;
        dns.services.remove(only(&dns.services, section, |srv| key.matches(srv))?);
        return Ok(());
    }
    let new = Srv::from_element(element)?;
    let same = |srv: &Srv| {
        let host = |srv: &Srv| srv.target.as_ref().map(|target| (target.host.clone(), target.port));
        (&srv.service, srv.protocol, &srv.domain) == (&new.service, new.protocol, &new.domain)
            && host(srv) == host(&new)
    };
    if dns.services.iter().any(same) {
        return Err(UpdateError::Exists { section, key: "service and target" });
    }
    add(&mut dns.services, update.verb, new);
    Ok(())
}

pub(super) fn forward_interface(
    forward: &mut Forward,
    update: &NetworkUpdate,
    element: &Element,
) -> Result<()> {
    let section = UpdateSection::ForwardInterface;
    check(update, false)?;
    root(element, InterfaceName::NAME)?;
    let new = InterfaceName::from_element(element)?;
    let mode = forward.name();
    let devs = match forward {
        Forward::Nat(nat) => &mut nat.devs,
        Forward::Route { devs } => devs,
        Forward::Isolated | Forward::Open | Forward::Bridge => {
            return Err(UpdateError::NoInterfaces(mode));
        }
    };
    if update.verb == UpdateVerb::Delete {
        devs.remove(only(devs, section, |dev| *dev == new)?);
        return Ok(());
    }
    if devs.contains(&new) {
        return Err(UpdateError::Exists { section, key: "dev" });
    }
    add(devs, update.verb, new);
    Ok(())
}

pub(super) fn port_group(
    groups: &mut Vec<PortGroup>,
    update: &NetworkUpdate,
    element: &Element,
) -> Result<()> {
    let section = UpdateSection::PortGroup;
    check(update, true)?;
    root(element, PortGroup::NAME)?;
    if update.verb == UpdateVerb::Delete {
        // Only the name is the key: the others are the properties of the group.
        let name: PortGroupName = ElementReader::new(element).required("name")?;
        groups.remove(only(groups, section, |group| group.name == name)?);
        return Ok(());
    }
    let new = PortGroup::from_element(element)?;
    if update.verb == UpdateVerb::Modify {
        let at = only(groups, section, |group| group.name == new.name)?;
        groups[at] = new;
        return Ok(());
    }
    if groups.iter().any(|group| group.name == new.name) {
        return Err(UpdateError::Exists { section, key: "name" });
    }
    add(groups, update.verb, new);
    Ok(())
}
