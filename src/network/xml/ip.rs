//! Reads `<ip>` with the DHCP server of its subnet, and `<route>`.
//!
//! Each address and each number is checked by itself here. Whether a range lies in its subnet
//! is a question about two values, and [`crate::network::check`] answers it.

use super::Result;
use crate::network::fields::{address, class_prefix, need, number, subnet};
use crate::network::model::{Bootp, Client, Dhcp, DhcpHost, DhcpRange, Ip, Lease, Route};
use crate::network::places::{Part, Places};
use crate::xml::{Element, ElementReader};

pub(super) fn ip(take: &mut ElementReader<'_>, index: usize, places: &mut Places) -> Result<Ip> {
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

fn dhcp(take: &mut ElementReader<'_>, index: usize, places: &mut Places) -> Result<Dhcp> {
    let mut dhcp = Dhcp::default();
    for element in take.children("range") {
        places.note(Part::Range(index, dhcp.ranges.len()), element.place);
        dhcp.ranges.push(dhcp_range(element)?);
    }
    for element in take.children("host") {
        places.note(Part::Host(index, dhcp.hosts.len()), element.place);
        dhcp.hosts.push(dhcp_host(element)?);
    }
    if let Some(element) = take.child("bootp")? {
        places.note(Part::Bootp(index), element.place);
        let read = |take: &mut ElementReader<'_>| {
            Ok(Bootp { file: take.required("file")?, server: take.value("server")? })
        };
        dhcp.bootp = Some(element.take(read)?);
    }
    Ok(dhcp)
}

/// Reads one `<range>` of `<dhcp>`.
pub(in crate::network) fn dhcp_range(element: &Element) -> Result<DhcpRange> {
    element.take(|take| {
        let (first, last) = (need(take, "start", address)?, need(take, "end", address)?);
        Ok(DhcpRange { first, last, lease: lease(take)? })
    })
}

/// Reads one `<host>` of `<dhcp>`.
pub(in crate::network) fn dhcp_host(element: &Element) -> Result<DhcpHost> {
    element.take(read_host)
}

fn read_host(take: &mut ElementReader<'_>) -> Result<DhcpHost> {
    let (mac, duid) = (take.value("mac")?, take.value("id")?);
    let name = take.value("name")?;
    let client = match (mac, duid, name) {
        (Some(mac), None, name) => Client::Mac(mac, name),
        (None, Some(duid), name) => Client::Duid(duid, name),
        (None, None, Some(name)) => Client::Name(name),
        (Some(_), Some(_), _) => {
            return Err(take.bad("mac is for IPv4 and id for IPv6: remove one of them"));
        }
        (None, None, None) => return Err(take.bad("the client is missing: add mac, id or name")),
    };
    Ok(DhcpHost { client, ip: need(take, "ip", address)?, lease: lease(take)? })
}

fn lease(take: &mut ElementReader<'_>) -> Result<Option<Lease>> {
    let Some(element) = take.child("lease")? else { return Ok(None) };
    element.take(|take| {
        let expiry: u64 = need(take, "expiry", number)?;
        let units = [("seconds", 1), ("minutes", 60), ("hours", 3600)];
        let unit: u64 = take.choice("unit", &units)?.unwrap_or(60);
        // In DHCP the largest 32-bit number means an infinite lease (RFC 2131, 3.3).
        match expiry.checked_mul(unit).and_then(|seconds| u32::try_from(seconds).ok()) {
            Some(0) => Ok(Some(Lease::Infinite)),
            Some(seconds) if (120..u32::MAX).contains(&seconds) => {
                Ok(Some(Lease::Seconds(seconds)))
            }
            Some(1..120) => Err(take.bad(
                "the lease time is too short: use at least 2 minutes, or expiry='0' for no limit",
            )),
            _ => Err(take.bad("the lease time is too long: use expiry='0' for no limit")),
        }
    })
}

pub(super) fn route(take: &mut ElementReader<'_>) -> Result<Route> {
    let net = subnet(take, |ip| ip.is_unspecified().then_some(0))?;
    let gateway = need(take, "gateway", address)?;
    let metric = take.value_with("metric", |text| match number::<u32>(text)?.try_into() {
        Ok(metric) => Ok(metric),
        Err(_) => Err("a metric is at least 1".to_owned()),
    })?;
    Ok(Route { net, gateway, metric })
}
