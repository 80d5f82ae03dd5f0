//! The host's own network: its default routes, the subnets it routes, its resolvers.
//!
//! Read from /proc/net and /etc/resolv.conf, without a process or a socket. /proc/net/route has the
//! IPv4 routes of the main table; /proc/net/ipv6_route has those of all tables. A line that is not
//! as the kernel writes it is left out, and said so at debug level.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::Ipv4Net;

use crate::facts::Host;

/// The route is in use (`RTF_UP`, linux/route.h).
const UP: u32 = 0x0001;
/// What it reaches is refused (`RTF_REJECT`).
const REJECT: u32 = 0x0200;
/// The shortest prefix of a route to some subnet. Shorter ones (0.0.0.0/1 and 128.0.0.0/1 of a
/// VPN) are parts of a default route: no private block is that large.
const SHORTEST: u8 = 8;

/// What is known of the host's network. `root` stands before every path that is read.
pub(super) fn host(root: &Path, is_root: bool) -> Host {
    let read = |file: &str| {
        fs::read_to_string(root.join(file)).unwrap_or_else(|error| {
            tracing::debug!(file, %error, "not read");
            String::new()
        })
    };
    // A kernel without IPv6 has no file of its routes, but /proc/net/route is always there.
    let unknown = fs::metadata(root.join("proc/net/route")).err().map(|error| {
        match root.join("proc/self").exists() {
            true => format!("/proc/net/route cannot be read ({error})"),
            false => "/proc is not mounted".to_owned(),
        }
    });
    let v4 = lines(&read("proc/net/route"), 1, route_v4);
    let v6 = lines(&read("proc/net/ipv6_route"), 0, route_v6);
    let mut routes = Vec::new();
    for subnet in v4.iter().filter_map(|route| route.to) {
        if subnet.prefix_len() >= SHORTEST && !routes.contains(&subnet) {
            routes.push(subnet);
        }
    }
    Host {
        root: is_root,
        default_v4: default(v4),
        default_v6: default(v6),
        unknown,
        routes,
        resolvers: resolvers(&read("etc/resolv.conf")),
    }
}

/// A usable route of the host, not over its loopback interface.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    interface: String,
    /// The IPv4 subnet, or nothing for a default route; always nothing for IPv6, of which only
    /// default routes are kept.
    to: Option<Ipv4Net>,
    metric: u32,
}

/// The interface of the default route with the lowest metric, the first of those.
fn default(routes: Vec<Route>) -> Option<String> {
    let defaults = routes.into_iter().filter(|route| route.to.is_none());
    defaults.min_by_key(|route| route.metric).map(|route| route.interface)
}

/// What a line says: nothing for a line that is broken, `Some(None)` for one of no interest here.
type Line = Option<Option<Route>>;

fn lines(text: &str, header: usize, parse: fn(&[&str]) -> Line) -> Vec<Route> {
    text.lines()
        .skip(header)
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            parse(&fields).unwrap_or_else(|| {
                tracing::debug!(line, "not a route");
                None
            })
        })
        .collect()
}

/// A line of /proc/net/route: interface, destination, gateway, flags, references, uses, metric,
/// mask, and more. Addresses are the bytes of a number in the machine's order.
fn route_v4(fields: &[&str]) -> Line {
    let [interface, to, _, flags, _, _, metric, mask, ..] = fields else { return None };
    let address = |text: &str| Some(Ipv4Addr::from(hex(text, 8)?.to_ne_bytes()));
    let (to, mask) = (address(to)?, address(mask)?);
    let to = Ipv4Net::with_netmask(to, mask).ok()?;
    if to != to.trunc() {
        return None;
    }
    let metric = metric.parse().ok()?;
    let flags = hex(flags, 4)?;
    Some(usable(interface, flags).then(|| Route {
        interface: (*interface).to_owned(),
        to: (to.prefix_len() != 0).then_some(to),
        metric,
    }))
}

/// A line of /proc/net/ipv6_route: destination and its length, source and its length, next hop,
/// metric, references, uses, flags, interface. Addresses are written in network order.
fn route_v6(fields: &[&str]) -> Line {
    let [to, to_length, from, from_length, _, metric, _, _, flags, interface] = fields else {
        return None;
    };
    let address = |text: &str| {
        let valid = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        valid.then(|| u128::from_str_radix(text, 16).ok())?.map(Ipv6Addr::from)
    };
    let (to, from) = (address(to)?, address(from)?);
    let everything = to.is_unspecified() && hex(to_length, 2)? == 0;
    let from_everywhere = from.is_unspecified() && hex(from_length, 2)? == 0;
    let (metric, flags) = (hex(metric, 8)?, hex(flags, 8)?);
    let wanted = everything && from_everywhere && usable(interface, flags);
    Some(wanted.then(|| Route { interface: (*interface).to_owned(), to: None, metric }))
}

fn usable(interface: &str, flags: u32) -> bool {
    interface != "lo" && flags & UP != 0 && flags & REJECT == 0
}

/// A number of exactly this many hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u32> {
    let valid = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    valid.then(|| u32::from_str_radix(text, 16).ok())?
}

/// The resolvers of a resolv.conf(5) text, in order. The interface of a link-local address
/// (`fe80::1%eth0`) is dropped.
fn resolvers(text: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let rest = line.strip_prefix("nameserver")?;
            if !rest.starts_with([' ', '\t']) {
                return None;
            }
            let word = rest.split_whitespace().next()?;
            match word.split_once('%') {
                None => word.parse().ok(),
                Some((address, _)) => address.parse().ok().map(IpAddr::V6),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    fn of(v4: &str, v6: &str, resolv: &str) -> Host {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in
            [("proc/net/route", v4), ("proc/net/ipv6_route", v6), ("etc/resolv.conf", resolv)]
        {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        host(root.path(), false)
    }

    /// A line of /proc/net/route for a little-endian machine.
    fn line(interface: &str, to: &str, flags: &str, metric: u32, mask: &str) -> String {
        format!("{interface}\t{to}\t00000000\t{flags}\t0\t0\t{metric}\t{mask}\t0\t0\t0   \n")
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn ipv4_routes() {
        let text = [
            HEADER.to_owned(),
            line("eth0", "00000000", "0003", 100, "00000000"),
            line("wlan0", "00000000", "0003", 50, "00000000"),
            line("off0", "00000000", "0002", 1, "00000000"),
            line("no0", "00000000", "0201", 1, "00000000"),
            line("lo", "00000000", "0001", 0, "00000000"),
            line("eth0", "000200C0", "0001", 0, "00FFFFFF"),
            line("wlan0", "000200C0", "0001", 9, "00FFFFFF"),
            line("tun0", "0000000A", "0001", 0, "000000FF"),
            line("tun0", "00000000", "0001", 0, "00000080"),
            line("tun0", "00000080", "0001", 0, "00000080"),
            line("lo", "0000FEA9", "0001", 0, "0000FFFF"),
            line("expv", "0163A8C0", "0005", 0, "FFFFFFFF"),
        ]
        .concat();
        let host = of(&text, "", "");
        assert_eq!(host.default_v4.as_deref(), Some("wlan0"));
        let expected = ["192.0.2.0/24", "10.0.0.0/8", "192.168.99.1/32"];
        assert_eq!(host.routes, expected.map(|net| net.parse().unwrap()));
    }

    #[test]
    fn broken_ipv4_lines_are_left_out() {
        let good = line("eth0", "00000000", "0003", 0, "00000000");
        for bad in [
            line("x", "0000000", "0003", 0, "00000000"),
            line("x", "+0000000", "0003", 0, "00000000"),
            line("x", "00000000", "003", 0, "00000000"),
            line("x", "00000000", "0003", 0, "FF00FF00"),
            line("x", "FFFFFFFF", "0003", 0, "00000000"),
            "x 00000000\n".to_owned(),
            "\n".to_owned(),
            line("x", "00000000", "0003", 0, "00000000").replace("\t0\t0\t0\t", "\t0\t0\t-1\t"),
        ] {
            let host = of(&[HEADER, &bad, &good].concat(), "", "");
            assert_eq!(host.default_v4.as_deref(), Some("eth0"), "{bad}");
        }
        assert_eq!(of("", "", ""), Host::default());
    }

    #[test]
    fn a_missing_proc_is_not_a_host_without_routes() {
        let unknown = Some("/proc is not mounted".to_owned());
        let expected = Host { root: true, unknown, ..Host::default() };
        assert_eq!(host(Path::new("/nonexistent"), true), expected);
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        let unknown = host(root.path(), false).unknown.unwrap();
        assert!(unknown.starts_with("/proc/net/route cannot be read (No such file"), "{unknown}");
    }

    #[test]
    fn ipv6_default_routes() {
        let zero = "0".repeat(32);
        let line = |to: &str, length: &str, metric: &str, flags: &str, interface: &str| {
            format!(
                "{to} {length} {zero} 00 {zero} {metric} 00000002 00000000 {flags} {interface:>8}\n"
            )
        };
        let subnet = format!("fd{}", "0".repeat(30));
        let good = line(&zero, "00", "00000400", "00000003", "eth0");
        for (other, expected) in [
            (String::new(), "eth0"),
            (line(&subnet, "40", "00000100", "00000001", "x"), "eth0"),
            (line(&zero, "00", "00000001", "00000003", "lo"), "eth0"),
            (line(&zero, "00", "ffffffff", "00200200", "lo"), "eth0"),
            (line(&zero, "00", "00000001", "00000203", "x"), "eth0"),
            (line(&zero, "00", "00000001", "00000002", "x"), "eth0"),
            (line(&zero, "00", "00000300", "00000003", "wlan0"), "wlan0"),
            (line(&zero, "01", "00000300", "00000003", "x"), "eth0"),
            (line(&zero[1..], "00", "00000300", "00000003", "x"), "eth0"),
            ("nonsense\n".to_owned(), "eth0"),
        ] {
            let host = of("", &[other.as_str(), &good].concat(), "");
            assert_eq!(host.default_v6.as_deref(), Some(expected), "{other}");
        }
        assert_eq!(of("", &line(&subnet, "40", "00000100", "00000001", "x"), "").default_v6, None);
    }

    #[test]
    fn resolv_conf() {
        for (text, expected) in [
            ("nameserver 10.255.255.53\n", &["10.255.255.53"][..]),
            (
                "# nameserver 1.1.1.1\n;x\nsearch a b\nnameserver\t127.0.0.53 trailing\nnameserver 2001:db8::1",
                &["127.0.0.53", "2001:db8::1"],
            ),
            ("nameserver fe80::1%eth0\r\n", &["fe80::1"]),
            ("nameserver\nnameserver \nnameservers 1.1.1.1\nnameserver 1.1.1\n", &[]),
            ("nameserver 1.1.1.1%eth0\n nameserver 9.9.9.9\n", &[]),
        ] {
            let expected: Vec<IpAddr> = expected.iter().map(|ip| ip.parse().unwrap()).collect();
            assert_eq!(resolvers(text), expected, "{text}");
        }
    }
}
