//! Makes the kernel forget UDP connections to published ports.
//!
//! The kernel translates all datagrams of a connection as it translated the first one. A client
//! that goes on sending would keep its connection to the former address of a guest, or to the host,
//! for ever. So the connections to the ports whose rules change are deleted, and the next datagram
//! makes a new one. A TCP client connects again by itself.
//!
//! The messages are those of linux/netfilter/nfnetlink_conntrack.h.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::nft_dump::{Attributes, exchange};
use super::nft_kernel::{attribute, message};
use crate::types::{Protocol, Publish};

/// The subsystem of connections in nfnetlink, and its messages.
const SUBSYSTEM: libc::c_int = libc::NFNL_SUBSYS_CTNETLINK << 8;
const GET: libc::c_int = 1;
const DELETE: libc::c_int = 2;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;

/// Deletes the UDP connections to these ports of the host, whose addresses are `local`. Returns
/// their number.
///
/// # Errors
/// Returns the kernel's error.
pub fn forget_connections(ports: &[Publish], local: &[IpAddr]) -> io::Result<usize> {
    let is_udp = |port: &&Publish| port.protocol == Protocol::Udp;
    let mut forgotten = 0;
    for (family, v6) in [(libc::AF_INET, false), (libc::AF_INET6, true)] {
        let own: Vec<&Publish> =
            ports.iter().filter(is_udp).filter(|port| port.address.is_ipv6() == v6).collect();
        if own.is_empty() {
            continue;
        }
        let family = u8::try_from(family).unwrap_or_default();
        let ask = |kind, attributes: &[u8], flags: libc::c_int| {
            exchange(&message(SUBSYSTEM | kind, family, [0, 0], attributes, flags as u16))
        };
        for connection in ask(GET, &[], libc::NLM_F_DUMP)? {
            let all = Attributes(&connection);
            let Some(tuple) = all.first(CTA_TUPLE_ORIG) else { continue };
            if own.iter().any(|port| leads_to(tuple, port, local)) {
                let tuple = attribute(CTA_TUPLE_ORIG | libc::NLA_F_NESTED as u16, tuple);
                match ask(DELETE, &tuple, libc::NLM_F_ACK) {
                    Ok(_) => forgotten += 1,
                    // The connection has ended in the meantime.
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(forgotten)
}

/// Returns whether a connection goes to a published port.
fn leads_to(tuple: &[u8], publish: &Publish, local: &[IpAddr]) -> bool {
    let tuple = Attributes(tuple);
    let (Some(ip), Some(protocol)) = (tuple.nested(CTA_TUPLE_IP), tuple.nested(CTA_TUPLE_PROTO))
    else {
        return false;
    };
    let bytes = |all: &Attributes<'_>, kind| all.first(kind).map(|bytes| bytes.to_vec());
    let v4 = bytes(&ip, CTA_IP_V4_DST).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let v6 = bytes(&ip, CTA_IP_V6_DST).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    let to = v4.map(Ipv4Addr::from).map(IpAddr::from).or(v6.map(Ipv6Addr::from).map(IpAddr::from));
    let port = bytes(&protocol, CTA_PROTO_DST_PORT).and_then(|bytes| bytes.try_into().ok());
    let port = port.map(u16::from_be_bytes);
    let is_udp = bytes(&protocol, CTA_PROTO_NUM) == Some(vec![libc::IPPROTO_UDP as u8]);
    let is_in = |port: u16| publish.host.first() <= port && port <= publish.host.last();
    let is_address = |to: IpAddr| {
        // A connection through the host to the same port elsewhere stays.
        if publish.address.is_unspecified() { local.contains(&to) } else { to == publish.address }
    };
    is_udp && to.is_some_and(is_address) && port.is_some_and(is_in)
}
