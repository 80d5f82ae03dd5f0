//! The configuration of a bridge's dnsmasq as values, independent of the file format.
//!
//! [`DhcpDns`] holds everything that the text of dnsmasq's files depends on; `render` makes the
//! text from it and checks each value that dnsmasq could misread. The values here do not come
//! from the host: a caller that needs an address or a name of the host passes it in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::files::Files;
use crate::types::{DnsName, HostName, InterfaceName, Mac};

/// The port of a DNS server that has no other.
pub const DNS_PORT: u16 = 53;

/// The configuration of the dnsmasq of one bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpDns {
    /// The bridge. It must have its addresses already: dnsmasq answers only on these addresses, and
    /// serves the ranges that lie in one of its subnets.
    pub interface: InterfaceName,
    /// The paths of the files.
    pub files: Files,
    /// The addresses that guests can lease; an empty list means no DHCP.
    pub ranges: Vec<Range>,
    /// Guests with a fixed address or name.
    pub hosts: Vec<DhcpHost>,
    /// Whether guests get a default route through the host; not for an isolated network.
    pub default_route: bool,
    /// The MTU that guests get, in bytes.
    pub mtu: Option<u16>,
    /// The guests' domain.
    pub domain: Option<Domain>,
    /// The DNS configuration; `None` means that the DNS port stays closed.
    pub dns: Option<Dns>,
    /// The directory whose files every machine on the bridge may read by TFTP.
    pub tftp_root: Option<PathBuf>,
    /// The network boot configuration of guests.
    pub boot: Option<Boot>,
    /// Further lines of the configuration file, each with an option and its value. The caller makes
    /// sure that they are safe.
    pub options: Vec<String>,
}

/// The time for which a guest may keep an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// A number of seconds; dnsmasq raises a value below 120 to 120.
    Seconds(u32),
    /// Without a limit.
    Infinite,
}

/// A subnet whose addresses are leased or announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Range {
    /// IPv4 addresses for all clients.
    V4 {
        /// The first address.
        start: Ipv4Addr,
        /// The last address.
        end: Ipv4Addr,
        /// The subnet's mask.
        netmask: Ipv4Addr,
        /// The lease time; `None` means dnsmasq's default (an hour).
        lease: Option<Lease>,
    },
    /// IPv4 addresses for [`DhcpDns::hosts`] only.
    V4Hosts {
        /// An address of the subnet.
        subnet: Ipv4Addr,
        /// The subnet's mask.
        netmask: Ipv4Addr,
    },
    /// IPv6 addresses for all clients (DHCPv6), announced by router advertisements.
    V6 {
        /// The first address.
        start: Ipv6Addr,
        /// The last address.
        end: Ipv6Addr,
        /// The subnet's prefix length, 64 or more.
        prefix: u8,
        /// The lease time; `None` means dnsmasq's default (a day, dnsmasq(8)).
        lease: Option<Lease>,
    },
    /// IPv6 addresses for [`DhcpDns::hosts`] only, announced by router advertisements.
    V6Hosts {
        /// An address of the subnet.
        subnet: Ipv6Addr,
        /// The subnet's prefix length, 64 or more.
        prefix: u8,
    },
    /// Only router advertisements: guests choose their IPv6 addresses themselves (SLAAC).
    V6Announced {
        /// An address of the subnet.
        subnet: Ipv6Addr,
        /// The subnet's prefix length; guests choose addresses only in a /64.
        prefix: u8,
    },
}

/// The identification of a [`DhcpHost`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Client {
    /// The guest with this hardware address.
    Mac(Mac),
    /// The guest with this DHCPv6 unique identifier: pairs of hexadecimal digits with colons.
    Duid(String),
    /// The guest that sends this name.
    Name(HostName),
}

/// A guest with a fixed address or name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpHost {
    /// The identification of the guest.
    pub client: Client,
    /// The fixed address.
    pub address: Option<IpAddr>,
    /// The name that the guest gets and has in DNS; with [`Client::Name`] it is that name.
    pub name: Option<HostName>,
    /// The lease time.
    pub lease: Option<Lease>,
}

/// The guests' domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// The domain's name.
    pub name: DnsName,
    /// Whether queries for the domain are never forwarded to another server.
    pub local_only: bool,
}

/// The DNS configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dns {
    /// Names and their addresses.
    pub hosts: Vec<DnsHost>,
    /// SRV records.
    pub srv: Vec<Srv>,
    /// TXT records.
    pub txt: Vec<Txt>,
    /// The servers for other queries. A server without a domain replaces the host's own servers
    /// (/etc/resolv.conf).
    pub forwarders: Vec<Forwarder>,
    /// Whether dnsmasq asks the host's own servers; not for an isolated network.
    pub host_servers: bool,
    /// Whether names without a dot are also forwarded to other servers.
    pub forward_plain_names: bool,
}

/// An address and its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsHost {
    /// The address.
    pub address: IpAddr,
    /// At least one name.
    pub names: Vec<DnsName>,
}

/// A service (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    /// The service, such as `ldap`, without the underscore.
    pub service: String,
    /// The protocol, `tcp` or `udp`, without the underscore.
    pub protocol: String,
    /// The domain; `None` means [`DhcpDns::domain`].
    pub domain: Option<DnsName>,
    /// The host that offers the service; `None` means that the service does not exist.
    pub target: Option<DnsName>,
    /// The port of the service.
    pub port: u16,
    /// The priority; clients try lower numbers first.
    pub priority: u16,
    /// The relative weight among equal priorities.
    pub weight: u16,
}

/// A text record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txt {
    /// The name: letters, digits, `-`, `_` and dots.
    pub name: String,
    /// The text, 255 bytes at most.
    pub value: String,
}

/// A server for queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarder {
    /// The domain for which the server is asked; `None` means all queries.
    pub domain: Option<DnsName>,
    /// The server; `None` (only with a domain) means the host's own servers.
    pub server: Option<SocketAddr>,
}

/// The network boot configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The name of the file on the TFTP server.
    pub file: String,
    /// The TFTP server; `None` means the host.
    pub server: Option<Ipv4Addr>,
}

/// The text of dnsmasq's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text of [`Files::conf`].
    pub conf: String,
    /// The text of [`Files::dhcp_hosts`].
    pub dhcp_hosts: String,
    /// The text of [`Files::dns_hosts`].
    pub dns_hosts: String,
}

/// The reason why a value cannot be written into dnsmasq's files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// dnsmasq would treat the interface's name as a pattern.
    #[error("dnsmasq cannot serve the interface {0}: its name has a '*'; choose another name")]
    Interface(InterfaceName),
    /// The value is not text, or has control characters.
    #[error("{what} {text:?} has characters that a configuration file cannot hold; choose another")]
    Characters {
        /// The meaning of the value.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// The value is longer than dnsmasq reads.
    #[error("{what} {text:?} is longer than dnsmasq takes ({limit} bytes); shorten it")]
    Long {
        /// The meaning of the value.
        what: &'static str,
        /// The text.
        text: String,
        /// The maximum length in bytes.
        limit: usize,
    },
    /// The text is not a DUID.
    #[error(
        "{0:?} is not a DHCPv6 identifier: write pairs of hexadecimal digits with colons, such as 00:03:00:01:52:54:00:12:34:56"
    )]
    Duid(String),
    /// The text is not a valid name.
    #[error("{what} {text:?} is not valid: use letters, digits and hyphens")]
    Name {
        /// The meaning of the value.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// The forwarder has neither a domain nor a server.
    #[error("a DNS forwarder has neither a domain nor an address; give it one of them")]
    Forwarder,
    /// The DNS host has no name.
    #[error("the DNS host {0} has no name; give it one")]
    Nameless(IpAddr),
}
