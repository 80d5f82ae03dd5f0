//! Reads the name servers of a resolv.conf(5) text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Returns the name servers of a resolv.conf(5) text in their order, each one once.
///
/// Drops the interface of a link-local address (`fe80::1%eth0`). The unspecified address stands for
/// this host, as glibc connects to it: it becomes the loopback address of its IP version.
pub fn name_servers(text: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let server = name_server(line).map(|address| match address {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            other => other,
        });
        servers.extend(server.filter(|server| !servers.contains(server)));
    }
    servers
}

fn name_server(line: &str) -> Option<IpAddr> {
    let rest = line.strip_prefix("nameserver")?;
    if !rest.starts_with([' ', '\t']) {
        return None;
    }
    let word = rest.split_whitespace().next()?;
    match word.split_once('%') {
        None => word.parse().ok(),
        Some((address, _)) => address.parse().ok().map(IpAddr::V6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unspecified_address_is_this_host_and_no_server_comes_twice() {
        for (text, servers) in [
            ("nameserver 0.0.0.0\n", &["127.0.0.1"][..]),
            ("nameserver ::\nnameserver ::1\n", &["::1"]),
            ("nameserver 192.0.2.1\nnameserver\t192.0.2.2 # x\n", &["192.0.2.1", "192.0.2.2"]),
            ("nameserver fe80::1%eth0\n", &["fe80::1"]),
            (
                "# nameserver 1.1.1.1\n;x\nsearch a b\nnameserver\t127.0.0.53 x\nnameserver 2001:db8::1",
                &["127.0.0.53", "2001:db8::1"],
            ),
            ("nameserver fe80::1%eth0\r\n", &["fe80::1"]),
            ("nameserver\nnameserver \nnameservers 1.1.1.1\nnameserver 1.1.1\n", &[]),
            ("nameserver 1.1.1.1%eth0\n nameserver 9.9.9.9\n", &[]),
            ("#nameserver 192.0.2.1\nnameservers 192.0.2.1\nnameserver x\n\n", &[]),
        ] {
            let servers: Vec<IpAddr> = servers.iter().map(|s| s.parse().unwrap()).collect();
            assert_eq!(name_servers(text), servers, "{text}");
        }
    }
}
