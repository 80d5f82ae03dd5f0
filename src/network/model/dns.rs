//! The DNS server of a network and its records.

use std::net::IpAddr;
use std::num::NonZeroU16;

use crate::network::values::{ServiceName, TxtValue};
use crate::types::{DnsName, Protocol};

/// The guests' DNS domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// The domain's name.
    pub name: DnsName,
    /// Whether the network's DNS server never forwards queries about this domain.
    pub local_only: bool,
}

/// The network's DNS server. [`Dns::default`] forwards all queries to the host's resolvers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Whether the network has a DNS server; if not, the other fields have no effect.
    pub enable: bool,
    /// Whether queries for names without a dot are forwarded too.
    pub forward_plain_names: bool,
    /// The servers that get the queries in place of the host's resolvers.
    pub forwarders: Vec<Forwarder>,
    /// Addresses and their names.
    pub hosts: Vec<DnsHost>,
    /// SRV records.
    pub services: Vec<Srv>,
    /// TXT records.
    pub texts: Vec<Txt>,
}

impl Default for Dns {
    fn default() -> Self {
        Dns {
            enable: true,
            forward_plain_names: true,
            forwarders: Vec::new(),
            hosts: Vec::new(),
            services: Vec::new(),
            texts: Vec::new(),
        }
    }
}

/// A DNS server that gets forwarded queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsServer {
    /// Its address.
    pub address: IpAddr,
    /// Its port; `None` means 53.
    pub port: Option<NonZeroU16>,
}

/// The destination of forwarded DNS queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Forwarder {
    /// All queries go to this server.
    All(DnsServer),
    /// Queries about this domain go to this server.
    Domain(DnsName, DnsServer),
    /// Queries about this domain go to the network's own records, then to the host's resolvers,
    /// even if [`Forwarder::All`] sends the other queries to another server.
    Host(DnsName),
}

/// An address and its names in DNS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsHost {
    /// The address.
    pub ip: IpAddr,
    /// Its names; there is at least one.
    pub names: Vec<DnsName>,
}

/// An SRV record (RFC 2782).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Srv {
    /// The service, such as `ldap`.
    pub service: ServiceName,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The domain in which clients look for the service; `None` means the network's own domain.
    pub domain: Option<DnsName>,
    /// The server; `None` means that the service is not available.
    pub target: Option<SrvTarget>,
}

/// The server of an SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SrvTarget {
    /// The server's name; `None` means the root, `.`, which says that the service is not available
    /// (RFC 2782).
    pub host: Option<DnsName>,
    /// The server's port.
    pub port: Option<u16>,
    /// The priority; clients try the server with the lowest number first.
    pub priority: Option<u16>,
    /// The weight, which is the server's share of the clients among servers with the same priority.
    pub weight: Option<u16>,
}

/// A TXT record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txt {
    /// Its name.
    pub name: DnsName,
    /// The strings of the record.
    pub value: TxtValue,
}
