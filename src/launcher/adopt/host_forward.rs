//! The values of `hostfwd`: `[PROTOCOL]:[ADDRESS]:PORT-[GUEST_ADDRESS]:GUEST_PORT`, as
//! slirp_hostfwd() of QEMU (net/slirp.c) reads them.
//!
//! An empty protocol is TCP, and an empty address is 0.0.0.0: all addresses of the host, where
//! netlaunch's own published ports default to 127.0.0.1.

use std::net::{IpAddr, Ipv4Addr};

use super::left::Left;
use super::subnet;
use crate::types::{PortRange, Protocol, Publish};

/// Reads a forward to a guest at `guest`.
pub(super) fn publish(forward: &[u8], guest: Ipv4Addr) -> Result<Publish, Left> {
    let stays = |why| Left::forward(forward, why);
    let form = || stays("netlaunch does not read this forward");
    let (protocol, rest) = split(forward, b':').ok_or_else(form)?;
    let protocol = match protocol {
        b"" | b"tcp" => Protocol::Tcp,
        b"udp" => Protocol::Udp,
        b"unix" => return Err(stays("passt cannot forward a UNIX socket")),
        _ => return Err(form()),
    };
    let (address, rest) = split(rest, b':').ok_or_else(form)?;
    let (host, rest) = split(rest, b'-').ok_or_else(form)?;
    let (to, inside) = split(rest, b':').ok_or_else(form)?;
    let address = match address {
        b"" => Ipv4Addr::UNSPECIFIED,
        text => subnet::address(text).ok_or_else(form)?,
    };
    if address.is_multicast() || address.is_broadcast() {
        return Err(form());
    }
    if host == b"0" {
        return Err(stays("only slirp shows which port it takes for port 0"));
    }
    let to = match to {
        b"" => guest,
        text => subnet::address(text).ok_or_else(form)?,
    };
    if to != guest && !to.is_unspecified() {
        return Err(stays("passt forwards to the guest's own address only"));
    }
    let (host, guest) = (port(host).ok_or_else(form)?, port(inside).ok_or_else(form)?);
    Ok(Publish { address: IpAddr::V4(address), host, guest, protocol })
}

fn split(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == separator)?;
    Some((&text[..at], &text[at + 1..]))
}

/// Reads a decimal port. QEMU also reads octal and hexadecimal numbers; they stay on slirp.
fn port(text: &[u8]) -> Option<PortRange> {
    let plain = text.iter().all(u8::is_ascii_digit) && !text.starts_with(b"0");
    let port = std::str::from_utf8(text).ok().filter(|_| plain)?.parse().ok()?;
    PortRange::new(port, port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(forward: &str) -> String {
        match publish(forward.as_bytes(), Ipv4Addr::new(10, 0, 2, 15)) {
            Ok(publish) => publish.to_string(),
            Err(left) => left.to_string(),
        }
    }

    #[test]
    fn a_forward_is_read_in_each_spelling() {
        for (forward, expected) in [
            ("tcp::2222-:22", "0.0.0.0:2222:22/tcp"),
            ("::2222-:22", "0.0.0.0:2222:22/tcp"),
            (":127.0.0.1:2222-:22", "127.0.0.1:2222:22/tcp"),
            ("udp:192.0.2.1:53-:5353", "192.0.2.1:53:5353/udp"),
            ("tcp:0.0.0.0:65535-:1", "0.0.0.0:65535:1/tcp"),
            ("tcp::80-10.0.2.15:80", "0.0.0.0:80:80/tcp"),
            ("tcp::80-0.0.0.0:80", "0.0.0.0:80:80/tcp"),
        ] {
            assert_eq!(read(forward), expected, "{forward}");
        }
    }

    #[test]
    fn a_forward_that_passt_cannot_do_has_its_reason() {
        for (forward, part) in [
            ("unix:/run/s-:22", "UNIX socket"),
            ("tcp:127.0.0.1:0-:22", "port 0"),
            ("tcp::80-10.0.2.16:80", "own address"),
            ("tcp::2222", "does not read"),
            ("", "does not read"),
            ("sctp::1-:1", "does not read"),
            ("tcp::0x50-:80", "does not read"),
            ("tcp::080-:80", "does not read"),
            ("tcp::80-:0", "does not read"),
            ("tcp::80-:65536", "does not read"),
            ("tcp:localhost:80-:80", "does not read"),
            ("tcp:127.1:80-:80", "does not read"),
            ("tcp:224.0.0.1:80-:80", "does not read"),
            ("tcp:[::1]:80-:80", "does not read"),
            ("tcp::80-:80:", "does not read"),
        ] {
            let reason = read(forward);
            assert!(reason.contains(part), "{forward}: {reason}");
            assert!(reason.ends_with(&format!("(hostfwd={forward})")), "{forward}: {reason}");
        }
    }
}
