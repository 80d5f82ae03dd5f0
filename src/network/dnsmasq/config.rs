//! What the guests of a bridge are told, in no program's words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use super::files::Files;
use crate::types::{DomainName, HostName, InterfaceName, Mac};

/// Everything that one bridge's dnsmasq does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpDns {
    /// The bridge. It must have its addresses: dnsmasq answers on all of them and on nothing else,
    /// and serves the ranges that lie in one of its subnets.
    pub interface: InterfaceName,
    /// Where the files are.
    pub files: Files,
    /// Which addresses are given away; none means no DHCP.
    pub ranges: Vec<Range>,
    /// Guests with an address or name of their own.
    pub hosts: Vec<DhcpHost>,
    /// Whether guests are told to send everything else through the host: not on an isolated network.
    pub default_route: bool,
    /// The largest packet guests are told to send, in bytes.
    pub mtu: Option<u16>,
    /// The guests' domain.
    pub domain: Option<Domain>,
    /// What is answered to DNS questions; none means that the port stays closed.
    pub dns: Option<Dns>,
    /// The directory whose files everyone on the bridge may read by TFTP.
    pub tftp_root: Option<PathBuf>,
    /// What guests boot from the network.
    pub boot: Option<Boot>,
}

/// How long a guest may keep an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lease {
    /// So many seconds; dnsmasq makes less than 120 that.
    Seconds(u32),
    /// For ever.
    Infinite,
}

/// A subnet whose addresses are given away or announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Range {
    /// IPv4 addresses for everyone who asks.
    V4 {
        /// The first.
        start: Ipv4Addr,
        /// The last.
        end: Ipv4Addr,
        /// The subnet's mask.
        netmask: Ipv4Addr,
        /// For how long; none leaves it to dnsmasq (an hour).
        lease: Option<Lease>,
    },
    /// IPv4 addresses for [`DhcpDns::hosts`] only.
    V4Hosts {
        /// An address of the subnet.
        subnet: Ipv4Addr,
        /// The subnet's mask.
        netmask: Ipv4Addr,
    },
    /// IPv6 addresses for everyone who asks (DHCPv6), announced by router advertisements.
    V6 {
        /// The first.
        start: Ipv6Addr,
        /// The last.
        end: Ipv6Addr,
        /// The subnet's prefix length, 64 or more.
        prefix: u8,
        /// For how long; none leaves it to dnsmasq (an hour).
        lease: Option<Lease>,
    },
    /// IPv6 addresses for [`DhcpDns::hosts`] only, announced by router advertisements.
    V6Hosts {
        /// An address of the subnet.
        subnet: Ipv6Addr,
        /// The subnet's prefix length, 64 or more.
        prefix: u8,
    },
    /// Router advertisements alone: guests make themselves IPv6 addresses (SLAAC).
    V6Announced {
        /// An address of the subnet.
        subnet: Ipv6Addr,
        /// The subnet's prefix length; guests make themselves addresses in a /64 only.
        prefix: u8,
    },
}

/// Which guest a [`DhcpHost`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Client {
    /// The one with this hardware address.
    Mac(Mac),
    /// The one with this DHCPv6 unique identifier: pairs of hexadecimal digits with colons.
    Duid(String),
    /// The one that calls itself so.
    Name(HostName),
}

/// A guest with an address or name of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpHost {
    /// Which.
    pub client: Client,
    /// Its address.
    pub address: Option<IpAddr>,
    /// The name it is told, and known by in DNS; with [`Client::Name`] it is that.
    pub name: Option<HostName>,
    /// For how long.
    pub lease: Option<Lease>,
}

/// The guests' domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// Its name.
    pub name: DomainName,
    /// Whether questions about it go to no other server.
    pub local_only: bool,
}

/// What is answered to DNS questions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dns {
    /// Names and their addresses.
    pub hosts: Vec<DnsHost>,
    /// Services.
    pub srv: Vec<Srv>,
    /// Texts.
    pub txt: Vec<Txt>,
    /// Whom to ask what is not known here. One without a domain replaces the host's own servers
    /// (/etc/resolv.conf).
    pub forwarders: Vec<Forwarder>,
    /// Whether the host's own servers are asked: not for an isolated network.
    pub host_servers: bool,
    /// Whether names without a dot go to other servers, too.
    pub forward_plain_names: bool,
}

/// An address and its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsHost {
    /// The address.
    pub address: IpAddr,
    /// At least one name.
    pub names: Vec<HostName>,
}

/// A service (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    /// What, such as `ldap`, without the underscore.
    pub service: String,
    /// Over what, `tcp` or `udp`, without the underscore.
    pub protocol: String,
    /// In which domain; none means [`DhcpDns::domain`].
    pub domain: Option<DomainName>,
    /// Who offers it; none means that nobody does.
    pub target: Option<DomainName>,
    /// Its port.
    pub port: u16,
    /// Lower is asked first.
    pub priority: u16,
    /// Among equals, how often.
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

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarder {
    /// About this domain only.
    pub domain: Option<DomainName>,
    /// The server; none (only with a domain) means the host's own.
    pub address: Option<IpAddr>,
}

/// What guests boot from the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot {
    /// The file's name on the TFTP server.
    pub file: String,
    /// The TFTP server; none means the host.
    pub server: Option<Ipv4Addr>,
}

/// The text of dnsmasq's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// For [`Files::conf`].
    pub conf: String,
    /// For [`Files::dhcp_hosts`].
    pub dhcp_hosts: String,
    /// For [`Files::dns_hosts`].
    pub dns_hosts: String,
}

/// Why a value cannot be written into dnsmasq's files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// dnsmasq would take it for a pattern.
    #[error("dnsmasq cannot serve the interface {0}: its name has a '*'; choose another name")]
    Interface(InterfaceName),
    /// Not text, or with control characters.
    #[error("{what} {text:?} has characters that a configuration file cannot hold; choose another")]
    Characters {
        /// What it is.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// Longer than dnsmasq reads.
    #[error("{what} {text:?} is longer than dnsmasq takes ({limit} bytes); shorten it")]
    Long {
        /// What it is.
        what: &'static str,
        /// The text.
        text: String,
        /// The most.
        limit: usize,
    },
    /// Not a DUID.
    #[error(
        "{0:?} is not a DHCPv6 identifier: write pairs of hexadecimal digits with colons, such as 00:03:00:01:52:54:00:12:34:56"
    )]
    Duid(String),
    /// Not a name of its kind.
    #[error("{what} {text:?} is not valid: use letters, digits and hyphens")]
    Name {
        /// What it is.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// Neither a domain nor a server.
    #[error("a DNS forwarder has neither a domain nor an address; give it one of them")]
    Forwarder,
    /// A DNS host without a name.
    #[error("the DNS host {0} has no name; give it one")]
    Nameless(IpAddr),
}
