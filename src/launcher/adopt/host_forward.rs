//! The values of `hostfwd`: `[PROTOCOL]:[ADDRESS]:PORT-[GUEST_ADDRESS]:GUEST_PORT`, as
//! slirp_hostfwd() of QEMU (net/slirp.c) reads them.
//!
//! An empty protocol is TCP, and an empty address is 0.0.0.0: all addresses of the host, where
//! netlaunch's own published ports default to 127.0.0.1.

use std::net::{IpAddr, Ipv4Addr};

use super::super::qemu_options::Parameters;
use super::left::{Left, option};
use super::netdev_options::unlisted;
use super::subnet;
use crate::types::{PortRange, Protocol, Publish};

/// The port of the host on which a forward listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::launcher) struct HostSide {
    pub(in crate::launcher) protocol: Protocol,
    pub(in crate::launcher) address: IpAddr,
    pub(in crate::launcher) port: u16,
}

/// Returns the forward that listens there, in the caller's words. `written` is the option of a
/// network that moved, such as `-nic user,hostfwd=tcp::2222-:22`.
pub(in crate::launcher) fn forward_on(written: &str, listens: HostSide) -> Option<String> {
    let (_, value) = written.split_once(' ')?;
    let options = unlisted(&Parameters::read(value.as_bytes(), Some("type")));
    let is_it = |forward: &&[u8]| {
        let guest = forward.iter().position(|byte| *byte == b'-').map(|at| &forward[at + 1..]);
        let guest = guest.and_then(|guest| split(guest, b':')).map(|(address, _)| address);
        // The move has checked the guest's address.
        let guest = guest.and_then(subnet::address).unwrap_or(Ipv4Addr::UNSPECIFIED);
        publish(forward, guest).is_ok_and(|publish| {
            let side = (publish.protocol, publish.address, publish.host.first());
            side == (listens.protocol, listens.address, listens.port)
        })
    };
    let forward = options.all("hostfwd").find(is_it)?;
    Some(format!("{} of {written}", option("hostfwd", forward)))
}

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

    #[test]
    fn the_forward_of_a_port_has_the_callers_words() {
        let nic =
            "-nic user,model=e1000,hostfwd=tcp::2222-:22,hostfwd=udp:127.0.0.1:53-10.0.2.15:5353";
        let json = r#"-netdev {"type":"user","id":"a","hostfwd":[{"str":"::80-:8080"}]}"#;
        let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for (written, protocol, address, port, expected) in [
            (nic, Protocol::Tcp, any, 2222, Some("hostfwd=tcp::2222-:22")),
            (nic, Protocol::Udp, loopback, 53, Some("hostfwd=udp:127.0.0.1:53-10.0.2.15:5353")),
            (nic, Protocol::Udp, any, 2222, None),
            (nic, Protocol::Tcp, loopback, 2222, None),
            (nic, Protocol::Tcp, any, 22, None),
            (json, Protocol::Tcp, any, 80, Some("hostfwd=::80-:8080")),
            ("QEMU's default card", Protocol::Tcp, any, 80, None),
        ] {
            let found = forward_on(written, HostSide { protocol, address, port });
            let expected = expected.map(|forward| format!("{forward} of {written}"));
            assert_eq!(found, expected, "{protocol} {port}");
        }
    }
}
