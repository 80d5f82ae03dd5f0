//! Reads `<ip>` with the DHCP server of its subnet, and `<route>`.
//!
//! Each address and each number is checked by itself here. Whether a range lies in its subnet
//! is a question about two values, and [`crate::network::check`] answers it.

use super::Result;
use crate::network::fields::{address, class_prefix, need, number, subnet};
use crate::network::model::{Bootp, Client, Dhcp, DhcpHost, DhcpRange, Ip, Lease, Route};
use crate::network::places::{Part, Places};
use crate::xml::{Element, ElementReader};

pub(super) fn ip(reader: &mut ElementReader<'_>, index: usize, places: &mut Places) -> Result<Ip> {
    let net = subnet(reader, class_prefix)?;
    let local_ptr = reader.yes_no("localPtr")?.unwrap_or(false);
    let tftp = reader.child("tftp")?.map(|element| {
        places.note(Part::Tftp(index), element.place);
        element.take(|reader| reader.required("root"))
    });
    let dhcp = reader.child("dhcp")?.map(|element| {
        places.note(Part::Dhcp(index), element.place);
        element.take(|reader| dhcp(reader, index, places))
    });
    Ok(Ip { net, local_ptr, tftp: tftp.transpose()?, dhcp: dhcp.transpose()? })
}

fn dhcp(reader: &mut ElementReader<'_>, index: usize, places: &mut Places) -> Result<Dhcp> {
    let mut dhcp = Dhcp::default();
    for element in reader.children("range") {
        places.note(Part::Range(index, dhcp.ranges.len()), element.place);
        dhcp.ranges.push(dhcp_range(element)?);
    }
    for element in reader.children("host") {
        places.note(Part::Host(index, dhcp.hosts.len()), element.place);
        dhcp.hosts.push(dhcp_host(element)?);
    }
    if let Some(element) = reader.child("bootp")? {
        places.note(Part::Bootp(index), element.place);
        let read = |reader: &mut ElementReader<'_>| {
            Ok(Bootp { file: reader.required("file")?, server: reader.value("server")? })
        };
        dhcp.bootp = Some(element.take(read)?);
    }
    Ok(dhcp)
}

/// Reads one `<range>` of `<dhcp>`.
pub(in crate::network) fn dhcp_range(element: &Element) -> Result<DhcpRange> {
    element.take(|reader| {
        let (first, last) = (need(reader, "start", address)?, need(reader, "end", address)?);
        Ok(DhcpRange { first, last, lease: lease(reader)? })
    })
}

/// Reads one `<host>` of `<dhcp>`.
pub(in crate::network) fn dhcp_host(element: &Element) -> Result<DhcpHost> {
    element.take(read_host)
}

fn read_host(reader: &mut ElementReader<'_>) -> Result<DhcpHost> {
    let (mac, duid) = (reader.value("mac")?, reader.value("id")?);
    let name = reader.value("name")?;
    let client = match (mac, duid, name) {
        (Some(mac), None, name) => Client::Mac(mac, name),
        (None, Some(duid), name) => Client::Duid(duid, name),
        (None, None, Some(name)) => Client::Name(name),
        (Some(_), Some(_), _) => {
            return Err(reader.bad("mac is for IPv4 and id for IPv6: remove one of them"));
        }
        (None, None, None) => return Err(reader.bad("the client is missing: add mac, id or name")),
    };
    Ok(DhcpHost { client, ip: need(reader, "ip", address)?, lease: lease(reader)? })
}

fn lease(reader: &mut ElementReader<'_>) -> Result<Option<Lease>> {
    let Some(element) = reader.child("lease")? else { return Ok(None) };
    element.take(|reader| {
        let expiry: u64 = need(reader, "expiry", number)?;
        let units = [("seconds", 1), ("minutes", 60), ("hours", 3600)];
        let unit: u64 = reader.choice("unit", &units)?.unwrap_or(60);
        // In DHCP the largest 32-bit number means an infinite lease (RFC 2131, 3.3).
        match expiry.checked_mul(unit).and_then(|seconds| u32::try_from(seconds).ok()) {
            Some(0) => Ok(Some(Lease::Infinite)),
            Some(seconds) if (120..u32::MAX).contains(&seconds) => {
                Ok(Some(Lease::Seconds(seconds)))
            }
            Some(1..120) => Err(reader.bad(
                "the lease time is too short: use at least 2 minutes, or expiry='0' for no limit",
            )),
            _ => Err(reader.bad("the lease time is too long: use expiry='0' for no limit")),
        }
    })
}

pub(super) fn route(reader: &mut ElementReader<'_>) -> Result<Route> {
    let net = subnet(reader, |ip| ip.is_unspecified().then_some(0))?;
    let gateway = need(reader, "gateway", address)?;
    let metric = reader.value_with("metric", |text| match number::<u32>(text)?.try_into() {
        Ok(metric) => Ok(metric),
        Err(_) => Err("a metric is at least 1".to_owned()),
    })?;
    Ok(Route { net, gateway, metric })
}
