//! Reads the host's own network: its default routes, its routed subnets and its DNS servers.
//!
//! The sources are /proc/net and /etc/resolv.conf, so no process or socket is needed.
//! /proc/net/route has the IPv4 routes of the main table only; /proc/net/ipv6_route has the routes
//! of all tables.
//!
//! A line in an unknown format is skipped with a debug message. An unreadable /proc is reported as
//! unknown routes, because it does not mean that the host has no routes.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::Ipv4Net;

use crate::types::facts::Host;
use crate::types::name_servers;

/// The route is in use (`RTF_UP`, linux/route.h).
const UP: u32 = 0x0001;
/// The kernel refuses packets to the destination (`RTF_REJECT`).
const REJECT: u32 = 0x0200;
/// The file with the DNS servers, below the root.
const RESOLV_CONF: &str = "etc/resolv.conf";
/// The shortest prefix of a route to a subnet.
///
/// A route with a shorter prefix (0.0.0.0/1 and 128.0.0.0/1 of a VPN) is a part of a default route:
/// no private block of addresses is that large.
const SHORTEST: u8 = 8;

/// Reads the host's network. Every file is read below `root`.
pub(super) fn probe(root: &Path, is_root: bool) -> Host {
    let read = |file: &str| {
        fs::read_to_string(root.join(file)).unwrap_or_else(|error| {
            tracing::debug!(file, %error, "cannot read the routes");
            String::new()
        })
    };
    // /proc/net/route always exists; a kernel without IPv6 has no file for IPv6 routes.
    let unknown = fs::metadata(root.join("proc/net/route")).err().map(|error| {
        if root.join("proc/self").exists() {
            format!("/proc/net/route cannot be read ({error})")
        } else {
            "/proc is not mounted".to_owned()
        }
    });
    let (default_v4, routes) = routes_v4(&read("proc/net/route"));
    let default_v6 = routes_v6(&read("proc/net/ipv6_route"));
    let (resolvers, resolvers_problem) = resolvers(root);
    Host {
        root: is_root,
        default_v4,
        default_v6,
        unknown,
        routes,
        resolv_conf: root.join(RESOLV_CONF),
        resolvers,
        resolvers_problem,
        first_port: if is_root { 0 } else { first_port(root) },
    }
}

/// Returns the interface of the default route, and the subnets that have a route, from the text of
/// /proc/net/route.
pub(super) fn routes_v4(text: &str) -> (Option<String>, Vec<Ipv4Net>) {
    let all = lines(text, 1, route_v4);
    let mut routes = Vec::new();
    for subnet in all.iter().filter_map(|route| route.to) {
        if subnet.prefix_len() >= SHORTEST && !routes.contains(&subnet) {
            routes.push(subnet);
        }
    }
    (default_interface(all), routes)
}

/// Returns the interface of the default route from the text of /proc/net/ipv6_route.
pub(super) fn routes_v6(text: &str) -> Option<String> {
    default_interface(lines(text, 0, route_v6))
}

/// Returns the first port on which a user without privileges can listen. Without the file, as
/// before Linux 4.11, it is the kernel's fixed limit.
fn first_port(root: &Path) -> u16 {
    let text = fs::read_to_string(root.join("proc/sys/net/ipv4/ip_unprivileged_port_start"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

/// A usable route of the host that does not lead over its loopback interface.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Route {
    interface: String,
    /// The IPv4 subnet; `None` for a default route. IPv6 routes are always default routes, because
    /// others are not kept.
    to: Option<Ipv4Net>,
    metric: u32,
}

/// Returns the interface of the first default route with the lowest metric.
fn default_interface(routes: Vec<Route>) -> Option<String> {
    let defaults = routes.into_iter().filter(|route| route.to.is_none());
    defaults.min_by_key(|route| route.metric).map(|route| route.interface)
}

/// A parsed line: `None` for an unknown format, `Some(None)` for a route that is not needed.
type Line = Option<Option<Route>>;

fn lines(text: &str, header: usize, parse: fn(&[&str]) -> Line) -> Vec<Route> {
    text.lines()
        .skip(header)
        .filter_map(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            parse(&fields).unwrap_or_else(|| {
                tracing::debug!(line, "skipped a line of the kernel's routes in an unknown format");
                None
            })
        })
        .collect()
}

/// Parses a line of /proc/net/route: interface, destination, gateway, flags, references, uses,
/// metric, mask, and more.
///
/// An address is written as a hexadecimal number in the machine's byte order.
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

/// Parses a line of /proc/net/ipv6_route: destination and its length, source and its length, next
/// hop, metric, references, uses, flags, interface. Addresses are in network order.
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

/// Parses a number of exactly this many hexadecimal digits.
fn hex(text: &str, digits: usize) -> Option<u32> {
    let valid = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    valid.then(|| u32::from_str_radix(text, 16).ok())?
}

/// Returns the DNS servers of /etc/resolv.conf, or the reason why there are none.
fn resolvers(root: &Path) -> (Vec<IpAddr>, Option<String>) {
    let file = root.join(RESOLV_CONF);
    let problem = match fs::read(&file) {
        Ok(bytes) => match name_servers(&String::from_utf8_lossy(&bytes)) {
            servers if !servers.is_empty() => return (servers, None),
            _ => "names no DNS server".to_owned(),
        },
        Err(error) => match fs::read_link(&file) {
            Ok(to) if error.kind() == io::ErrorKind::NotFound => {
                format!("is a symbolic link to {}, which does not exist", to.display())
            }
            _ if error.kind() == io::ErrorKind::NotFound => "does not exist".to_owned(),
            _ => format!("cannot be read ({error})"),
        },
    };
    (Vec::new(), Some(format!("/{RESOLV_CONF} {problem}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    fn host(v4: &str, v6: &str, resolv: &str) -> Host {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in
            [("proc/net/route", v4), ("proc/net/ipv6_route", v6), ("etc/resolv.conf", resolv)]
        {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        probe(root.path(), false)
    }

    /// Returns a line of /proc/net/route for a little-endian machine.
    fn line(interface: &str, to: &str, flags: &str, metric: u32, mask: &str) -> String {
        format!("{interface}\t{to}\t00000000\t{flags}\t0\t0\t{metric}\t{mask}\t0\t0\t0   \n")
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn the_default_ipv4_route_has_the_lowest_metric_and_subnets_are_listed_once() {
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
        let host = host(&text, "", "");
        assert_eq!(host.default_v4.as_deref(), Some("wlan0"));
        let expected = ["192.0.2.0/24", "10.0.0.0/8", "192.168.99.1/32"];
        assert_eq!(host.routes, expected.map(|net| net.parse().unwrap()));
    }

    #[test]
    fn an_ipv4_line_in_an_unknown_format_is_skipped() {
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
            let host = host(&[HEADER, &bad, &good].concat(), "", "");
            assert_eq!(host.default_v4.as_deref(), Some("eth0"), "{bad}");
        }
        let empty = host("", "", "");
        assert_eq!((empty.default_v4, empty.default_v6, empty.routes), (None, None, vec![]));
    }

    #[test]
    fn the_routes_are_unknown_if_proc_is_missing() {
        let unknown = Some("/proc is not mounted".to_owned());
        let none = probe(Path::new("/nonexistent"), true);
        assert_eq!((none.root, none.unknown, none.default_v4), (true, unknown, None));
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/self")).unwrap();
        let unknown = probe(root.path(), false).unknown.unwrap();
        assert!(unknown.starts_with("/proc/net/route cannot be read (No such file"), "{unknown}");
    }

    #[test]
    fn the_default_ipv6_route_has_the_lowest_metric() {
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
            let host = host("", &[other.as_str(), &good].concat(), "");
            assert_eq!(host.default_v6.as_deref(), Some(expected), "{other}");
        }
        let subnet_only = host("", &line(&subnet, "40", "00000100", "00000001", "x"), "");
        assert_eq!(subnet_only.default_v6, None);
    }

    #[test]
    fn a_host_without_dns_servers_has_the_reason() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join(RESOLV_CONF);
        let assert_reason = |words: &str| {
            let host = probe(root.path(), false);
            assert_eq!((host.resolvers, &host.resolv_conf), (Vec::new(), &file), "{words}");
            let problem = host.resolvers_problem.unwrap();
            assert!(
                problem.starts_with("/etc/resolv.conf ") && problem.contains(words),
                "{problem}"
            );
        };
        fs::create_dir(root.path().join("etc")).unwrap();
        assert_reason("does not exist");
        std::os::unix::fs::symlink("../run/stub", &file).unwrap();
        assert_reason("is a symbolic link to ../run/stub, which does not exist");
        fs::remove_file(&file).unwrap();
        for text in ["", "search example\n", "nameserver\nnameserver x\n"] {
            fs::write(&file, text).unwrap();
            assert_reason("names no DNS server");
        }
        fs::write(&file, "nameserver 0.0.0.0\n").unwrap();
        let host = probe(root.path(), false);
        assert_eq!((host.resolvers_problem, host.resolvers.len()), (None, 1));
    }
}
