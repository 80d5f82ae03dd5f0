//! Finds the process that uses a port that dnsmasq needs.
//!
//! dnsmasq says only that an address is in use. The kernel's lists of sockets below
//! /proc/thread-self/net, for this thread's network namespace, contain the socket's inode number,
//! and /proc/PID/fd shows which process has this socket open.

use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A process that uses a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortUser {
    /// The port.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The address that it listens on.
    pub address: IpAddr,
    /// The name and number of the process; `None` if /proc does not show it.
    pub process: Option<(String, i32)>,
}

impl std::fmt::Display for PortUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PortUser { port, protocol, address, process } = self;
        match process {
            Some((name, pid)) => {
                write!(f, "{name} (process {pid}) has port {port}/{protocol} on {address}")
            }
            None => write!(f, "another program has port {port}/{protocol} on {address}"),
        }
    }
}

impl PortUser {
    /// Returns the fix for a network on this bridge.
    pub(super) fn fix(&self, bridge: &str) -> String {
        let name = self.process.as_ref().map_or("", |(name, _)| name.as_str());
        let own = match name {
            "dnsmasq" | "pihole-FTL" => format!(
                "write bind-dynamic and except-interface={bridge} into its configuration (often \
                 /etc/dnsmasq.conf) and restart it"
            ),
            "named" => {
                "name the addresses that it shall have in listen-on of named.conf (not any) \
                        and restart it"
                    .to_owned()
            }
            "unbound" => "name the addresses that it shall have with interface: in unbound.conf \
                          (not 0.0.0.0) and restart it"
                .to_owned(),
            "systemd-resolve" => "remove DNSStubListenerExtra= from resolved.conf and restart \
                                  systemd-resolved"
                .to_owned(),
            "systemd-network" => "remove DHCPServer=yes from the .network file and restart \
                                  systemd-networkd"
                .to_owned(),
            "dhcpd" | "kea-dhcp4" | "kea-dhcp6" => {
                "name the interfaces that it shall serve in its configuration and restart it"
                    .to_owned()
            }
            _ => "have it listen on other addresses".to_owned(),
        };
        let without = match self.port {
            53 => ", or give the network <dns enable='no'/>",
            _ => ", or give the network no <dhcp>",
        };
        format!("{own}, stop it{without}")
    }
}

/// Returns the first process that uses one of these ports on one of these addresses or on all
/// addresses. Ignores each dnsmasq whose configuration is in a directory of `own_dir`, which has a
/// directory for each network: the address check of the networks is more exact.
pub(super) fn find(
    ports: &[(u16, &'static str)],
    own: &[IpAddr],
    own_dir: &Path,
) -> Option<PortUser> {
    let mut hidden = None;
    for (port, protocol) in ports {
        for socket in sockets(protocol, *port) {
            let clashes = socket.address.is_unspecified() || own.contains(&socket.address);
            if !clashes {
                continue;
            }
            let user =
                |process| PortUser { port: *port, protocol, address: socket.address, process };
            match process(socket.inode) {
                Some((_, pid)) if is_own_dnsmasq(pid, own_dir) => {}
                Some(process) => return Some(user(Some(process))),
                None => hidden = hidden.or(Some(user(None))),
            }
        }
    }
    hidden
}

struct Socket {
    address: IpAddr,
    inode: u64,
}

/// Returns the sockets of a protocol that use a port and wait for other machines.
fn sockets(protocol: &str, port: u16) -> Vec<Socket> {
    let mut sockets = Vec::new();
    for list in [protocol.to_owned(), format!("{protocol}6")] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{list}")).unwrap_or_default();
        sockets.extend(text.lines().skip(1).filter_map(|line| {
            let (address, at, inode) = socket(line, protocol == "tcp")?;
            (at == port).then_some(Socket { address, inode })
        }));
    }
    sockets
}

/// Parses a line about a socket that waits for other machines: its address, port and inode.
pub(crate) fn socket(line: &str, is_tcp: bool) -> Option<(IpAddr, u16, u64)> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (address, port) = words.get(1)?.split_once(':')?;
    // A listening TCP socket has the state 0A (tcp_states.h).
    let waits = !is_tcp || *words.get(3)? == "0A";
    let port = u16::from_str_radix(port, 16).ok()?;
    waits.then_some((parse(address)?, port, words.get(9)?.parse().ok()?))
}

/// Parses an address in the kernel's form: words of 32 bits in this machine's byte order.
fn parse(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        u32::from_str_radix(text.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes)
    };
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let octets: Vec<u8> = [word(0)?, word(1)?, word(2)?, word(3)?].concat();
            let octets: [u8; 16] = octets.try_into().ok()?;
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

/// Returns the name and number of the process that has this socket.
fn process(inode: u64) -> Option<(String, i32)> {
    let socket = format!("socket:[{inode}]");
    let pids = fs::read_dir("/proc").ok()?.flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok()).find_map(|pid| {
        let has = fs::read_dir(format!("/proc/{pid}/fd"))
            .ok()?
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == socket.as_str()));
        let name = || fs::read_to_string(format!("/proc/{pid}/comm")).ok();
        has.then(name).flatten().map(|name| (name.trim_end().to_owned(), pid))
    })
}

/// Returns whether a process is a dnsmasq whose configuration is in a directory of `own_dir`.
fn is_own_dnsmasq(pid: i32, own_dir: &Path) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|argument| has_conf_in(argument, own_dir))
}

/// Returns whether an argument names a configuration file one directory below `own_dir`.
fn has_conf_in(argument: &[u8], own_dir: &Path) -> bool {
    let Some(conf) = argument.strip_prefix(b"--conf-file=") else { return false };
    Path::new(OsStr::from_bytes(conf)).parent().and_then(Path::parent) == Some(own_dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_the_order_of_this_machine() {
        if cfg!(target_endian = "little") {
            assert_eq!(parse("0100007F"), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
            let one = "00000000000000000000000001000000";
            assert_eq!(parse(one), Some(IpAddr::V6(Ipv6Addr::LOCALHOST)));
        }
        assert_eq!(parse("0"), None);
    }

    #[test]
    fn only_a_configuration_in_a_directory_of_a_network_is_own() {
        let own_dir = Path::new("/run/netlaunch/networks");
        for (argument, expected) in [
            ("--conf-file=/run/netlaunch/networks/lab/dnsmasq.conf", true),
            ("--conf-file=/run/netlaunch/networks/dnsmasq.conf", false),
            ("--conf-file=/run/netlaunch/networks/a/b/dnsmasq.conf", false),
            ("/run/netlaunch/networks/lab/dnsmasq.conf", false),
            ("--conf-file=/etc/dnsmasq.conf", false),
            ("", false),
        ] {
            assert_eq!(has_conf_in(argument.as_bytes(), own_dir), expected, "{argument}");
        }
    }

    #[test]
    fn the_process_that_has_a_port_is_found() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let at = socket.local_addr().unwrap();
        let found = find(&[(at.port(), "udp")], &[at.ip()], Path::new("/nonexistent")).unwrap();
        let me = std::process::id() as i32;
        assert_eq!(found.process.as_ref().map(|(_, pid)| *pid), Some(me));
        assert!(found.fix("nlt0").contains("or give the network no <dhcp>"));
    }
}
